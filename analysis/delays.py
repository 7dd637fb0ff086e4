"""The law of a relaxation whose feedback takes time: that of the tiny chain with delay lines (THEORY.md section 4).

Feedback maps are linear and constant, whenever what they carry arrives. So x_l(n) = sum_m C[l, m] B_{l->m} x_m(0) holds
with delays, too, and C is what one unit per population does: delayed by the same steps, each in the state it began with
before that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from actrelax.models.closed_form import hop_taus, terms, weighted_sum
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Matrix
from actrelax.models.problem import RelaxationProblem, State


def delayed_coefficients(problem: RelaxationProblem, *, dt: float, steps: int) -> Matrix:
    """Return C after so many steps of Euler's method, by the recursion of the tiny chain.

    c_l <- (1 - dt/tau_l) c_l + (dt/tau_l) c_{l+1} of as many steps ago as feedback takes from l + 1 to l.

    Parameters
    ----------
    problem : RelaxationProblem
        A chain with a law (`closed_form.uncovered`) but for its delays.
    dt : float
        Of which delays are whole numbers.
    steps : int

    Returns
    -------
    numpy.ndarray
        (hidden + 1, hidden + 1), the lowest population first, the clamped output last.

    Raises
    ------
    ActrelaxError
        For a network that is no chain, or a delay that is no whole number of dt.
    """
    network = problem.network
    if not network.graph.is_chain:
        raise ActrelaxError("delayed feedback has a law in chains: step this network's relaxation.")
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
    """Return where a relaxation with delays is after so many steps of Euler's method, without taking them.

    Parameters
    ----------
    problem, dt, steps
        As for `delayed_coefficients`.

    Returns
    -------
    dict
        Hidden population -> (batch, *population.shape).

    Raises
    ------
    ActrelaxError
        As for `delayed_coefficients`, and where there is no law for another reason.
    """
    C = delayed_coefficients(problem, dt=dt, steps=steps)
    return {name: weighted_sum(found, C) for name, found in terms(replace(problem, delays=0.0)).items()}
