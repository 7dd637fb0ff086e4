"""The exact law of a frozen relaxation: coefficients from one tiny matrix (THEORY.md section 4).

While gains are frozen every scheme is linear, and what population l holds after n steps is a sum over the populations
m above it, x_l = sum_m C[l, m] B_{l->m} x_m(0): B carries feedback from m down to l, and C = T^n is a power of the
scheme's one-step matrix T on a chain of single units, whatever the network's width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actrelax.models.errors import ActrelaxError

if TYPE_CHECKING:
    from torch import Tensor

    from actrelax.models.integrators.schemes import Integrator
    from actrelax.models.problem.problem import RelaxationProblem, State

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
    >>> from actrelax.models.network.architectures import build
    >>> from actrelax.models.engines.solve import solve
    >>> from actrelax.models.integrators.schemes import INTEGRATORS
    >>> from actrelax.models.problem.problem import RelaxationProblem
    >>> network = build("mlp-4x5", input_shape=(6,), generator=torch.Generator().manual_seed(0)).double()
    >>> problem = RelaxationProblem.from_batch(network, torch.ones(1, 6).double(), torch.tensor([3]))
    >>> stepped = solve(problem, "euler", steps=50, eta=0.1).final["hidden1"]
    >>> torch.allclose(predict(problem, INTEGRATORS["euler"], dt=0.1, steps=50)["hidden1"], stepped, rtol=1e-12)
    True
    """
    by_population = terms(problem)
    C = coefficients(integrator.transition, hop_matrix(problem), dt, steps)
    return {name: added_up(of_population, C) for name, of_population in by_population.items()}


class Term(NamedTuple):
    """What one source is to a population: C[row, column] of `value` is in its activity after n steps.

    value     (batch, *population.shape), an initial activity or the clamp, carried down
    is_clamp  whether it is the clamp: what a relaxation is to come to; the others are what is left of where it began
    """

    row: int
    column: int
    value: Tensor
    is_clamp: bool


def terms(problem: RelaxationProblem) -> dict[str, list[Term]]:
    """Return hidden population -> what it is the sum of, at any time and by any scheme: the law without its C.

    Carries feedback through a projection `applications` times.

    Raises
    ------
    ActrelaxError
        Where `uncovered` gives a reason.
    """
    reason = uncovered(problem)
    if reason is not None:
        raise ActrelaxError(reason)
    return _along_chain(problem) if problem.network.graph.is_chain else _by_hops(problem)


def added_up(terms: Sequence[Term], law: Matrix) -> Tensor:
    """Return a population's activity under a law's C, (batch, *population.shape)."""
    first, *others = (float(law[term.row, term.column]) * term.value for term in terms)
    return sum(others, first)


def applications(problem: RelaxationProblem) -> int:
    """How often `predict` carries feedback through a projection."""
    network = problem.network
    outgoing = [len(network.outgoing[name]) for name in network.hidden]
    if problem.network.graph.is_chain:
        return sum(sum(outgoing[:m]) for m in range(1, len(outgoing) + 1))
    return (2 * len(outgoing) - 1) * sum(outgoing)


def _along_chain(problem: RelaxationProblem) -> dict[str, list[Term]]:
    """x_l = sum_m C[l, m] B_{l->m} x_m(0): each source m carried down, hop by hop."""
    hidden, start = problem.network.hidden, problem.initial_state()
    found = {name: [Term(level, level, start[name], False)] for level, name in enumerate(hidden)}
    sources = [*(start[name] for name in hidden), problem.clamped]
    for m in range(1, len(sources)):
        carried = sources[m]
        for level in reversed(range(m)):
            above = {hidden[level + 1]: carried} if level + 1 < len(hidden) else {}
            carried = problem.feedback(hidden[level], above)
            found[hidden[level]].append(Term(level, m, carried, m == len(hidden)))
    return found


def _by_hops(problem: RelaxationProblem) -> dict[str, list[Term]]:
    """x(n) = sum_k c_k A^k x(0), and the clamp's powers with the tails: l -> m is the number of hops."""
    hidden, start = problem.network.hidden, problem.initial_state()
    hops = len(hidden)  # at most, from the lowest population to the output
    unclamped = replace(problem, clamped=0 * problem.clamped)
    clamp = {name: problem.feedback(name, {v: 0 * x for v, x in start.items()}) for name in hidden}
    found: dict[str, list[Term]] = {name: [] for name in hidden}
    for k, (left, arrived) in enumerate(zip(_powers(unclamped, start), _powers(unclamped, clamp), strict=True)):
        for name in hidden:
            found[name] += [Term(0, k, left[name], False), Term(hops - 1 - k, hops, arrived[name], True)]
    return found


def _powers(problem: RelaxationProblem, state: State) -> Iterator[State]:
    """Yield A^k state for each k < L, with A the feedback among the L hidden populations of an unclamped problem."""
    yield state
    for _ in range(len(state) - 1):
        state = {name: problem.feedback(name, state) for name in state}
        yield state
