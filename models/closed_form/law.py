"""The exact law of a frozen relaxation: coefficients from one tiny matrix (THEORY.md section 4).

While gains are frozen every scheme is linear, and what population l holds after n steps is a sum over the populations
m above it, x_l = sum_m C[l, m] B_{l->m} x_m(0): B carries feedback from m down to l, and C = T^n is a power of the
scheme's one-step matrix T on a chain of single units, whatever the network's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator, Matrix, chain_matrix, coefficients
from actrelax.models.problem import RelaxationProblem, State


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
    >>> from actrelax import INTEGRATORS, RelaxationProblem, build, solve
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
