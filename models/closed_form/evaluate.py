"""The closed form in PyTorch: populations delivered from the output down, each as soon as it is known.

What a plan says (`carrying`), done to tensors: the vectors of a stack travel in the batch dimension, so a hop costs one
feedback map however many there are. Nothing is kept: weights can learn from a population, and it can be freed, before
the next one arrives (THEORY.md section 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from actrelax.models.assumptions import Gain
from actrelax.models.closed_form.law import hop_taus, uncovered
from actrelax.models.closed_form.plan import (
    ByHops,
    ByLevel,
    Plan,
    Station,
    exact_plan,
    settled_plan,
)
from actrelax.models.integrators import Integrator, chain_matrix, coefficients
from actrelax.models.network import Graph, Network, Projection
from actrelax.models.problem import RelaxationProblem, State


@dataclass(frozen=True, eq=False)
class PopulationState:
    """One population at the end of a relaxation, or some together.

    names      of the populations
    state      variable -> (batch, *population.shape), as a problem's states have them
    amplified  activity gain -> gain times activity, where it was made on the way
    """

    names: tuple[str, ...]
    state: State
    amplified: Mapping[Gain, Tensor]


def why_not(problem: RelaxationProblem, integrator: Integrator) -> str | None:
    """Return None where the closed form gives what the integrator's steps would, else one sentence that says why."""
    if integrator.takes_time:
        return uncovered(problem)
    if problem.dynamics or problem.delay.times:
        return "the equilibrium of units with dynamics or delays of their own is more than activities: step to it."
    return integrator.unsupported(problem)


def plan_of(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> Plan:
    """Return what is carried through the problem's network so that it gives the same as so many steps."""
    graph = problem.network.graph
    if not integrator.takes_time:
        return settled_plan(graph)
    return _exact_plan(graph, integrator, hop_taus(problem), dt, steps, problem.start == "zero")


def sizes(problem: RelaxationProblem) -> tuple[list[float], list[float]]:
    """Return how large hidden populations and the output are, from the lowest up, at the start and at equilibrium.

    As largest magnitudes; by one sweep, which waits for the device.
    """
    network = problem.network
    start = problem.initial_state() | {network.output: problem.clamped}
    settled = evaluate_all(problem, settled_plan(network.graph))
    largest = [[state[v].abs().amax() for v in (*network.hidden, network.output)] for state in (start, settled)]
    begun, ended = torch.stack([torch.stack(each) for each in largest]).tolist()
    return begun, ended


def applications(plan: Plan, network: Network) -> int:
    """How often a plan carries feedback through a projection."""
    return sum(
        len(station.places.get(projection.source, ()))
        for name, station in plan.items()
        for projection in network.incoming[name]
    )


@lru_cache(maxsize=64)
def _exact_plan(
    graph: Graph, integrator: Integrator, taus: tuple[float, ...], dt: float, steps: int, silent: bool
) -> Plan:
    C = coefficients(integrator.transition, chain_matrix(taus), dt, steps)
    return exact_plan(graph, ByLevel(C) if graph.is_chain else ByHops(C), silent=silent)


def stream(problem: RelaxationProblem, plan: Plan) -> Iterator[PopulationState]:
    """Yield the output and the hidden populations of a frozen problem at its end, from the top down.

    To be run without gradients enabled, as `evaluate_all` does: a generator can't see to that cheaply by itself.

    Parameters
    ----------
    problem : RelaxationProblem
    plan : mapping
        As `plan_of` returns it.
    """
    network, arrived = problem.network, dict[str, Tensor]()
    for name, station in plan.items():
        # a start that was given has the precision of states, feedback that of the weights
        own = problem.initial_activity(name).to(problem.clamped) if station.own else None
        made = _made(station, own, arrived.pop(name, None))
        amplified: dict[Gain, Tensor] = {}
        for projection in network.incoming[name]:
            places = station.places.get(projection.source)
            if not places:
                continue
            gain = problem.activity_gain(projection)
            if gain not in amplified:
                amplified[gain] = problem.frozen_amplified(name, gain, made)
            sent = amplified[gain]
            if not station.is_copy:
                sent = sent[1] if len(places) == 1 else sent[1 : 1 + len(places)]
            _add(arrived, projection.source, _carried(problem, projection, sent, len(places)), places, plan)
        if not station.is_copy:
            made, amplified = made[0], {gain: product[0] for gain, product in amplified.items()}
        yield PopulationState((name,), {name: made}, amplified)


@torch.no_grad()
def evaluate_all(problem: RelaxationProblem, plan: Plan) -> State:
    """Return population -> activity, (batch, *population.shape), of all that `stream` yields."""
    return {name: x for relaxed in stream(problem, plan) for name, x in relaxed.state.items()}


def _made(station: Station, own: Tensor | None, arrived: Tensor | None) -> Tensor:
    """Return (1 + k, batch, ...), the population's activity and what it sends; just (batch, ...) where that is one."""
    if station.is_copy:
        made = arrived if own is None else own
        assert made is not None
        return made
    like = arrived if own is None else own
    assert like is not None
    shape = own.shape if own is not None else like.shape if station.arriving == 1 else like.shape[1:]
    matrix = _on(station, like.dtype, like.device)
    if arrived is None:
        return (matrix @ like.reshape(1, -1)).view(-1, *shape)
    made = matrix[:, int(station.own) :] @ arrived.reshape(station.arriving, -1)
    if own is not None:
        made.addr_(matrix[:, 0], own.flatten())  # no copy of everything into one stack
    return made.view(-1, *shape)


def _carried(problem: RelaxationProblem, projection: Projection, sent: Tensor, rows: int) -> Tensor:
    """Return what comes out below: (rows, batch, ...), of one row just (batch, ...)."""
    route, weight = problem.feedforward.routes[projection.name], problem.feedback_weight(projection)
    if rows == 1:
        return projection.feedback_signal(sent, route, weight)
    signal = projection.feedback_signal(sent.flatten(0, 1), route.repeated(rows), weight)
    return signal.view(rows, -1, *signal.shape[1:])


def _add(arrived: dict[str, Tensor], source: str, signal: Tensor, places: tuple[int, ...], plan: Plan) -> None:
    """Add what came along one projection to what has arrived at its source."""
    rows, there = plan[source].arriving, arrived.get(source)
    # never in place: along a copy without weights, what arrives is the very tensor that was sent
    if places == tuple(range(rows)):
        arrived[source] = signal if there is None else there + signal
        return
    if len(places) == 1:
        signal = signal[None]
    room = signal.new_zeros(rows, *signal.shape[1:]) if there is None else there
    arrived[source] = room.index_add(0, _index(places, signal.device), signal)


@lru_cache(maxsize=1024)
def _on(station: Station, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what the station makes of its stack, as a matrix there; without numbers too small to be normal."""
    matrix = torch.from_numpy(station.matrix).to(dtype)
    return torch.where(matrix.abs() < torch.finfo(dtype).tiny, 0.0, matrix).to(device)


@lru_cache(maxsize=1024)
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(places, device=device)
