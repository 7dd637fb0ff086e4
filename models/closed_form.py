"""The exact law of a frozen relaxation: coefficients from one tiny matrix (THEORY.md section 4).

While gains are frozen every scheme is linear, and what population l holds after n steps is a sum over the populations
m above it, x_l = sum_m C[l, m] B_{l->m} x_m(0): B carries feedback from m down to l, and C = T^n is a power of the
scheme's one-step matrix T on a chain of single units, whatever the network's width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from actrelax.models.errors import ActrelaxError

if TYPE_CHECKING:
    from actrelax.models.integrators import Integrator
    from actrelax.models.problem import RelaxationProblem, State

Matrix = NDArray[np.float64]


def chain_matrix(taus: Sequence[float]) -> Matrix:
    """Return M of the chain of single units dx/dt = M x: hidden units with these tau, from the input up, and a clamp.

    Returns
    -------
    numpy.ndarray
        (L + 1, L + 1) for L hidden units: -1/tau_l on the diagonal, 1/tau_l beside it, a row of zeros for the clamp.

    Examples
    --------
    >>> chain_matrix([2.0, 4.0])
    array([[-0.5 ,  0.5 ,  0.  ],
           [ 0.  , -0.25,  0.25],
           [ 0.  ,  0.  ,  0.  ]])
    """
    rates = 1 / np.asarray(taus, dtype=np.float64)
    size = len(rates) + 1
    matrix = np.zeros((size, size))
    hidden = np.arange(size - 1)
    matrix[hidden, hidden] = -rates
    matrix[hidden, hidden + 1] = rates
    return matrix


def coefficients(transition: Callable[[Matrix, float], Matrix], matrix: Matrix, dt: float, steps: int) -> Matrix:
    """Return C after so many steps of a scheme: its one-step matrix to that power.

    For dt/tau <= 1 all entries are probabilities and nothing cancels: entries of 1e-300 are as exact as those near 1.
    """
    return np.linalg.matrix_power(transition(matrix, dt), steps)


def flow(matrix: Matrix, t: float) -> Matrix:
    """Return exp(t M) of a chain, each entry relative to itself, however small, to about t/tau roundings.

    Scaling and squaring on the non-negative M + I/tau_min, where no terms cancel; `scipy.linalg.expm` is accurate
    relative to the largest entry only. One tau: K ~ Poisson(t / tau).
    """
    rate = float(-matrix.diagonal().min())
    squarings = max(0, math.ceil(math.log2(rate * t))) if rate * t > 0 else 0
    h = t / 2**squarings
    step = (matrix + rate * np.eye(len(matrix))) * h
    term = result = np.eye(len(matrix)) * math.exp(-rate * h)
    for k in range(1, 30 + len(matrix)):  # entry (l, m) first appears in the term k = m - l
        term = term @ step / k
        result = result + term
    for _ in range(squarings):
        result = result @ result
    return result


def uncovered(problem: RelaxationProblem) -> str | None:
    """Return None where the law holds, else one sentence that says why not."""
    if not problem.is_frozen:
        return "there is no law for an activity gain that is current: the relaxation is not linear."
    if problem.is_continuous:
        return "there is no law for continuous plasticity: feedback moves with the weights."
    if problem.clip is not None:
        return "there is no law with a clip: the relaxation is not linear."
    if problem.dynamics:
        return "there is no law for units with dynamics of their own: step the relaxation."
    if problem.delay.times:
        return "there is no law for feedback that takes time: step the relaxation."
    if problem.is_noisy:
        return "there is no law for a single noisy relaxation: step it."
    taus = [problem.taus.of(name) for name in problem.relaxing]
    if any(getattr(tau, "ndim", 0) > 0 for tau in taus):
        return "the law covers a time constant a population, not one a neuron: step the relaxation."
    if len({float(tau) for tau in taus}) > 1 and not problem.network.graph.is_chain:
        return "the law covers one time constant where populations are skipped, this problem has several: step it."
    return None


def hop_taus(problem: RelaxationProblem) -> tuple[float, ...]:
    """Return tau of each hidden population, from the lowest up; without a chain they are one, for each hop there is."""
    return tuple(float(problem.taus.of(name)) for name in problem.network.hidden)


def hop_matrix(problem: RelaxationProblem) -> Matrix:
    """Return M of a chain of single units, one a hidden population: its own network, or as many hops as it may have."""
    return chain_matrix(hop_taus(problem))


def predict(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> State:
    """Return where a relaxation is after so many steps, without taking them.

    Evaluated plainly, one feedback application after the other: exact to rounding, and the same cost for any number
    of steps.

    Parameters
    ----------
    problem : RelaxationProblem
    integrator : Integrator
    dt : float
        Its step, in the problem's unit of time.
    steps : int

    Returns
    -------
    dict
        Hidden population -> (batch, *population.shape).

    Raises
    ------
    ActrelaxError
        Where `uncovered` gives a reason.

    Examples
    --------
    >>> import torch
    >>> from actrelax.models.architectures import build
    >>> from actrelax.models.engines import solve
    >>> from actrelax.models.integrators import INTEGRATORS
    >>> from actrelax.models.problem import RelaxationProblem
    >>> network = build("mlp-4x5", input_shape=(6,), generator=torch.Generator().manual_seed(0)).double()
    >>> problem = RelaxationProblem.from_batch(network, torch.ones(1, 6).double(), torch.tensor([3]))
    >>> stepped = solve(problem, "euler", steps=50, eta=0.1).final["hidden1"]
    >>> torch.allclose(predict(problem, INTEGRATORS["euler"], dt=0.1, steps=50)["hidden1"], stepped, rtol=1e-12)
    True
    """
    reason = uncovered(problem)
    if reason is not None:
        raise ActrelaxError(reason)
    if problem.network.graph.is_chain:
        return _along_chain(problem, integrator, dt, steps)
    return _by_hops(problem, integrator, dt, steps)


def applications(problem: RelaxationProblem) -> int:
    """How often `predict` carries feedback through a projection."""
    network = problem.network
    outgoing = [len(network.outgoing[name]) for name in network.hidden]
    if problem.network.graph.is_chain:
        return sum(sum(outgoing[:m]) for m in range(1, len(outgoing) + 1))
    return (2 * len(outgoing) - 1) * sum(outgoing)


def _along_chain(problem: RelaxationProblem, integrator: Integrator, dt: float, steps: int) -> State:
    """x_l = sum_m C[l, m] B_{l->m} x_m(0): each source m carried down, hop by hop."""
    hidden = problem.network.hidden
    C = coefficients(integrator.transition, hop_matrix(problem), dt, steps)
    start = problem.initial_state()
    result = {name: C[level, level] * start[name] for level, name in enumerate(hidden)}
    sources = [*(start[name] for name in hidden), problem.clamped]
    for m in range(1, len(sources)):
        carried = sources[m]
        for level in reversed(range(m)):
            above = {hidden[level + 1]: carried} if level + 1 < len(hidden) else {}
            carried = problem.feedback(hidden[level], above)
            result[hidden[level]] = result[hidden[level]] + C[level, m] * carried
    return result


def _by_hops(problem: RelaxationProblem, integrator: Integrator, dt: float, steps: int) -> State:
    """x(n) = sum_k c_k A^k x(0), and the clamp's powers with the tails: l -> m is the number of hops."""
    hidden, start = problem.network.hidden, problem.initial_state()
    hops = len(hidden)  # at most, from the lowest population to the output
    C = coefficients(integrator.transition, hop_matrix(problem), dt, steps)
    unclamped = replace(problem, clamped=0 * problem.clamped)
    clamp = {name: problem.feedback(name, {v: 0 * x for v, x in start.items()}) for name in hidden}
    left = _series(unclamped, start, C[0, :hops])
    arrived = _series(unclamped, clamp, C[:hops, hops][::-1])
    return {name: left[name] + arrived[name] for name in hidden}


def _series(problem: RelaxationProblem, state: State, weights: Matrix) -> State:
    """sum_k weights[k] A^k state, with A the feedback among the hidden populations of an unclamped problem."""
    result = {name: weights[0] * x for name, x in state.items()}
    for weight in weights[1:]:
        state = {name: problem.feedback(name, state) for name in state}
        result = {name: x + weight * state[name] for name, x in result.items()}
    return result
