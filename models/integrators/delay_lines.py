"""Delayed feedback in fixed steps: each projection stores its latest signals and delivers the oldest."""

from __future__ import annotations

import torch

from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import InitialValueProblem, State
from actrelax.models.problem.delays import delay_line_key


@torch.no_grad()
def fill_delay_lines(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Add delay lines to a state, one signal per step of dt, as if it had been constant before t = 0."""
    lines: State = {}
    for name, steps in problem.delay.steps(dt).items():
        sent = problem.sent(problem.carriers[name], state)
        lines[delay_line_key(name)] = sent.expand(steps, *sent.shape)
    return state | lines


def shift_delay_lines(problem: InitialValueProblem, state: State) -> State:
    """Return the delay lines one step later: with the current signals, without the oldest."""
    lines: State = {}
    for name in problem.delay.times:
        line = delay_line_key(name)
        if line not in state:
            raise ActrelaxError(
                f"feedback along {name!r} is delayed, but the state has no delay line for it: "
                "begin with fill_delay_lines(problem, problem.initial_state(), dt)."
            )
        sent = problem.sent(problem.carriers[name], state)
        lines[line] = torch.cat([sent[None], state[line][:-1]])
    return lines
