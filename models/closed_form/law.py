"""The closed form of a frozen relaxation: a sum over the populations above (docs/theory.md).

With frozen gains every scheme is linear. After n steps the activity of population l is a sum over the populations m
from l up to the clamp, x_l = sum_m C[l, m] B_{l<-m} x_m(0), where B carries feedback from m down to l. The
coefficients C = T^n are a power of the scheme's one-step matrix T on a chain of single units: they don't depend on
weights, widths or data. This module computes the sum term by term, as the reference; `evaluate` needs less feedback.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from actrelax.models.closed_form.walks import sum_over_walks
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator, Matrix, chain_matrix, coefficients
from actrelax.models.problem import InitialValueProblem, RelaxationProblem, State


def uncovered(problem: InitialValueProblem) -> str | None:
    """Return None if the closed form covers the problem, else one sentence with the condition that is not met."""
    if not isinstance(problem, RelaxationProblem):
        return "the forward phase is nonlinear and has no closed form: step it."
    if problem.network.is_recurrent:
        cycles = problem.network.graph.cycles_in_words
        return f"the closed form needs a network without cycles, got {cycles}: step the relaxation."
    return uncovered_by_walks(problem)


def uncovered_by_walks(problem: RelaxationProblem) -> str | None:
    """Return None if `predict` covers the problem, whose network may have cycles, else one sentence with the reason."""
    if not problem.is_frozen:
        return "the closed form needs frozen gains: a current activity gain makes the relaxation nonlinear."
    if problem.assumptions.is_continuous:
        return "the closed form needs constant weights: continuous plasticity changes them during the relaxation."
    if problem.clip is not None:
        return "the closed form needs a linear relaxation: leave clip out, or step the relaxation."
    if problem.dynamics:
        return "the closed form needs leaky units: leave dynamics out, or step the relaxation."
    if problem.delay.times:
        return "the closed form needs feedback without delays: leave delays out, or step the relaxation."
    if problem.is_noisy:
        return "the closed form needs a relaxation without noise: leave noise out, or step the relaxation."
    taus = [problem.taus.of(name) for name in problem.relaxing]
    if any(getattr(tau, "ndim", 0) > 0 for tau in taus):
        return "the closed form needs one tau per population, got one per neuron: pass numbers, or step the relaxation."
    several = len({float(tau) for tau in taus})
    if several > 1 and not problem.network.graph.is_chain:
        wiring = "cycles" if problem.network.is_recurrent else "skip connections"
        return (
            f"the closed form needs one tau when the network has {wiring}, got {several}: pass one tau, or step the "
            "relaxation."
        )
    return None


def hop_taus(problem: RelaxationProblem) -> tuple[float, ...]:
    """Return tau of each hidden population, from the lowest up; with skip connections the common tau, once per hop."""
    return tuple(float(problem.taus.of(name)) for name in problem.network.hidden)


def hop_matrix(problem: RelaxationProblem) -> Matrix:
    """Return M (`integrators.chain_matrix`) for the longest possible path: one unit per hidden population."""
    return chain_matrix(hop_taus(problem))


def predict(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> State:
    """Return the state of a relaxation after `steps` steps of `dt`, without taking them.

    Exact to rounding, at the same cost for any number of steps; on a network with cycles, where signals walk along as
    many projections as there are steps, at the cost of the steps.

    Returns
    -------
    dict
        Hidden population -> (batch, *population.shape).

    Raises
    ------
    ActrelaxError
        If `uncovered_by_walks` gives a reason.
    """
    if problem.network.is_recurrent:
        reason = uncovered_by_walks(problem)
        if reason is not None:
            raise ActrelaxError(reason)
        return sum_over_walks(problem, integrator, dt=problem.time("dt", dt), steps=steps)
    by_population = terms(problem)
    C = coefficients(integrator.transition, hop_matrix(problem), problem.time("dt", dt), steps)
    return {name: weighted_sum(of_population, C) for name, of_population in by_population.items()}


class Term(NamedTuple):
    """One term of a population's activity: `value`, weighted by C[row, column].

    value     (batch, *population.shape), an initial activity or the clamp, carried down by feedback
    is_clamp  whether it comes from the clamp; these terms add up to the equilibrium, the others decay
    """

    row: int
    column: int
    value: Tensor
    is_clamp: bool


def terms(problem: RelaxationProblem) -> dict[str, list[Term]]:
    """Return the terms of each hidden population's activity, which are the same for any time and any scheme."""
    found: dict[str, list[Term]] = {name: [] for name in problem.network.hidden}
    for name, term in each_term(problem):
        found[name].append(term)
    return found


def each_term(problem: RelaxationProblem) -> Iterator[tuple[str, Term]]:
    """Yield each population's terms one at a time, so that they need not be in memory together."""
    reason = uncovered(problem)
    if reason is not None:
        raise ActrelaxError(reason)
    yield from _along_chain(problem) if problem.network.graph.is_chain else _by_hops(problem)


def weighted_sum(terms: Sequence[Term], coefficients: Matrix) -> Tensor:
    """Return the sum of a population's terms, each times its coefficient: (batch, *population.shape)."""
    first, *others = (float(coefficients[term.row, term.column]) * term.value for term in terms)
    return sum(others, first)


def predict_applications(problem: RelaxationProblem) -> int:
    """Return the number of feedback applications in `predict`, summed over projections."""
    network = problem.network
    outgoing = [len(network.outgoing[name]) for name in network.hidden]
    if problem.network.graph.is_chain:
        return sum(sum(outgoing[:m]) for m in range(1, len(outgoing) + 1))
    return (2 * len(outgoing) - 1) * sum(outgoing)


def _along_chain(problem: RelaxationProblem) -> Iterator[tuple[str, Term]]:
    """Carry each initial activity, and the clamp, down the chain: the terms C[l, m] B_{l<-m} x_m(0)."""
    hidden, start = problem.network.hidden, problem.initial_state()
    for level, name in enumerate(hidden):
        yield name, Term(level, level, start[name], False)
    sources = [*(start[name] for name in hidden), problem.clamped]
    for m in range(1, len(sources)):
        carried = sources[m]
        for level in reversed(range(m)):
            above = {hidden[level + 1]: carried} if level + 1 < len(hidden) else {}
            carried = problem.feedback(hidden[level], above)
            yield hidden[level], Term(level, m, carried, m == len(hidden))


def _by_hops(problem: RelaxationProblem) -> Iterator[tuple[str, Term]]:
    """Apply feedback to all populations at once: x(n) = sum_k c_k A^k x(0), and the same for the clamp."""
    hidden, start = problem.network.hidden, problem.initial_state()
    hops = len(hidden)  # the longest possible path
    unclamped = replace(problem, clamped=0 * problem.clamped)
    from_clamp = {name: problem.feedback(name, {v: 0 * x for v, x in start.items()}) for name in hidden}
    powers = zip(_powers(unclamped, start), _powers(unclamped, from_clamp), strict=True)
    for k, (initial, clamp) in enumerate(powers):
        for name in hidden:
            yield name, Term(0, k, initial[name], False)
            yield name, Term(hops - 1 - k, hops, clamp[name], True)


def _powers(problem: RelaxationProblem, state: State) -> Iterator[State]:
    """Yield A^k state for k = 0, 1, ... up to the longest path; A is the feedback without the clamp's part."""
    yield state
    for _ in range(len(state) - 1):
        state = {name: problem.feedback(name, state) for name in state}
        yield state
