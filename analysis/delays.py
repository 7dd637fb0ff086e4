"""Closed form of a relaxation with delayed feedback (docs/theory.md).

Feedback maps are linear and constant, so x_l(n) = sum_m C[l, m] B_{l->m} x_m(0) also holds with delays. C follows
from a chain of single units with the same delays, whose history before t = 0 is their initial state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from actrelax.analysis.requirements import checked_step, require_hidden, require_relaxation
from actrelax.models._names import whole_number
from actrelax.models.closed_form import hop_taus, terms, weighted_sum
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Matrix
from actrelax.models.network import Projection
from actrelax.models.problem import RelaxationProblem, State


def delayed_coefficients(problem: RelaxationProblem, *, dt: float, steps: int) -> Matrix:
    """Return the coefficients C after `steps` steps of Euler's method with delays.

    c_l(n + 1) = (1 - dt/tau_l) c_l(n) + (dt/tau_l) c_{l+1}(n - d_l), with d_l the delay of the feedback to l in steps.

    Parameters
    ----------
    problem : RelaxationProblem
        A chain, covered by the closed form (`closed_form.uncovered`) except for its delays.
    dt : float
        Step size, in the unit of tau; delays must be whole multiples of dt.
    steps : int

    Returns
    -------
    numpy.ndarray
        (hidden + 1, hidden + 1), from the lowest population up; the last is the clamped output.

    Raises
    ------
    ActrelaxError
        For a network that is no chain, parallel projections with different delays, if `solve` would refuse dt, or if
        steps is not a whole number >= 0.
    """
    require_relaxation(problem, "the closed form of delayed feedback")
    require_hidden(problem, "the closed form of delayed feedback")
    network = problem.network
    if network.is_recurrent:
        raise ActrelaxError(
            f"the closed form of delayed feedback needs a chain, got {network.graph.cycles_in_words}: "
            "step the relaxation with solve."
        )
    if not network.graph.is_chain:
        raise ActrelaxError(
            "the closed form of delayed feedback needs a chain, this network has skip connections: "
            "step the relaxation with solve."
        )
    dt, steps = checked_step(problem, "euler", dt), whole_number("steps", steps, least=0)
    late, eta = problem.delay.steps(dt), dt / np.array(hop_taus(problem))[:, None]
    waits = [_wait(late, network.outgoing[name]) for name in network.hidden]
    past = [np.eye(len(waits) + 1)]
    for n in range(steps):
        above = np.stack([past[max(0, n - wait)][level + 1] for level, wait in enumerate(waits)])
        now = past[n].copy()
        now[:-1] += eta * (above - now[:-1])
        past.append(now)
    return past[-1]


def _wait(late: Mapping[str, int], projections: Sequence[Projection]) -> int:
    """Return the delay of the feedback to one population, in steps."""
    first, *others = (late.get(p.name, 0) for p in projections)
    if any(wait != first for wait in others):
        names = ", ".join(repr(p.name) for p in projections)
        raise ActrelaxError(
            f"the closed form of delayed feedback needs one delay for all projections between two populations, and "
            f"{names} differ: step the relaxation with solve."
        )
    return first


def delayed_state(problem: RelaxationProblem, *, dt: float, steps: int) -> State:
    """Return hidden population -> activity after `steps` steps of Euler's method with delays, without stepping.

    The arguments are those of `delayed_coefficients`.
    """
    C = delayed_coefficients(problem, dt=dt, steps=steps)
    return {name: weighted_sum(found, C) for name, found in terms(replace(problem, delays=0.0)).items()}
