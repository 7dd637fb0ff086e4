"""The law of a relaxation with delayed feedback: that of a chain of single units with delay lines (docs/theory.md).

Feedback maps are linear and constant, whenever their signals arrive: x_l(n) = sum_m C[l, m] B_{l->m} x_m(0)
holds with delays, too. C is the same recursion with one unit per population, which has its initial state before
t = 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from actrelax.models.closed_form import hop_taus, terms, weighted_sum
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Matrix
from actrelax.models.problem import RelaxationProblem, State


def delayed_coefficients(problem: RelaxationProblem, *, dt: float, steps: int) -> Matrix:
    """Return C after `steps` steps of Euler's method, by the recursion of the chain of single units.

    c_l <- (1 - dt/tau_l) c_l + (dt/tau_l) c_{l+1}, with c_{l+1} from as many steps ago as feedback takes to l.

    Parameters
    ----------
    problem : RelaxationProblem
        A chain with a law (`closed_form.uncovered`), except for its delays.
    dt : float
        Delays must be whole numbers of dt.
    steps : int

    Returns
    -------
    numpy.ndarray
        (hidden + 1, hidden + 1), the lowest population first, the clamped output last.
    """
    network = problem.network
    if not network.graph.is_chain:
        raise ActrelaxError("delayed feedback has a law in chains: step this network's relaxation.")
    dt = problem.time("dt", dt)
    late, eta = problem.delay.steps(dt), dt / np.array(hop_taus(problem))[:, None]
    waits = [late.get(network.outgoing[name][0].name, 0) for name in network.hidden]
    past = [np.eye(len(waits) + 1)]
    for n in range(steps):
        above = np.stack([past[max(0, n - wait)][level + 1] for level, wait in enumerate(waits)])
        now = past[n].copy()
        now[:-1] += eta * (above - now[:-1])
        past.append(now)
    return past[-1]


def delayed_state(problem: RelaxationProblem, *, dt: float, steps: int) -> State:
    """Return hidden population -> activity after `steps` steps of Euler's method with delays, without taking them.

    The arguments are those of `delayed_coefficients`.
    """
    C = delayed_coefficients(problem, dt=dt, steps=steps)
    return {name: weighted_sum(found, C) for name, found in terms(replace(problem, delays=0.0)).items()}
