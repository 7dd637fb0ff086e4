"""The ends of relaxations: at rest, chattering by the size of a step, or moving on (docs/theory.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actrelax.models.engines import TorchOptions, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State

AT_REST = 1e-6
"""Swing below which a sample is at rest."""
_SILENT = 1e-6
"""Share of its initial activity below which a population is silent: its swings count against this."""


@dataclass(frozen=True)
class Ending:
    """The last part of a relaxation.

    swing  (batch,): of the population that swings most, max |x(t) - x(t')| over the window / max |x|
    state  hidden population -> (batch, *population.shape), at the end
    """

    swing: Tensor
    state: State

    @property
    def settled(self) -> Tensor:
        """(batch,): whether each sample is at rest."""
        return self.swing < AT_REST


def ending(
    problem: RelaxationProblem,
    integrator: str | Integrator,
    *,
    eta: float = 0.1,
    duration: float = 100.0,
    window: float = 20.0,
    options: TorchOptions | None = None,
) -> Ending:
    """Relax, and measure how much each sample still moves at the end.

    Parameters
    ----------
    problem : RelaxationProblem
        With leaky units and one tau.
    integrator : str or Integrator
        Current gains make the equation stiff: use ``"BDF"`` to exclude effects of the step size.
    eta : float, default 0.1
        dt / tau; for adaptive methods the interval between observations.
    duration, window : float, default 100.0 and 20.0
        Length of the relaxation and of its observed last part, in units of tau, to the nearest step.
    options : TorchOptions, SciPyOptions or Brian2Options, optional
        As for `solve`.
    """
    if not 0 < window < duration:
        raise ActrelaxError(f"the window must lie between 0 and the duration {duration:g}, got {window:g}.")
    hidden, first = problem.network.hidden, problem.initial_state()
    before = solve(problem, integrator, round((duration - window) / eta), eta=eta, options=options).final
    late = replace(problem, start={name: before[name] for name in hidden})
    trajectory = solve(late, integrator, round(window / eta), eta=eta, record=hidden, options=options)
    swings = []
    for name in hidden:
        x = trajectory[name].flatten(2)
        largest = torch.maximum(x.abs().amax((0, 2)), _SILENT * first[name].flatten(1).abs().amax(1))
        swings.append((x.amax(0) - x.amin(0)).amax(1) / largest.clamp(min=torch.finfo(x.dtype).tiny))
    return Ending(torch.stack(swings).amax(0), {name: trajectory.final[name] for name in hidden})


def fates(coarse: Ending, fine: Ending) -> list[str]:
    """Return how each sample ends, from two endings of a problem, with a coarse step and with a quarter of it, say.

    A sample has "settled"; it "chatters" if it swings, but at most half as much with the finer steps: it slides
    along a kink, or the steps are too large to be stable; else it "moves".
    """
    shrinks = fine.swing <= coarse.swing / 2
    return [
        "settled" if rests else "chatters" if shrunk else "moves"
        for rests, shrunk in zip(coarse.settled.tolist(), shrinks.tolist(), strict=True)
    ]
