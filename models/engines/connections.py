"""The feedback between populations that move: what SciPy and Brian2 make matrices and synapses of.

On a hand-built network each connection is one projection. On a captured network it goes from one population to another
along all paths that pass relays alone: relays have no state, and their pieces become part of the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actrelax.models.assumptions import Gain
from actrelax.models.network import CapturedNetwork, CapturedPass, Population, Projection
from actrelax.models.problem import InitialValueProblem, RelaxationProblem

Path = tuple[Projection, ...]
"""Projections from the target of a connection down to its source."""


@dataclass(frozen=True)
class Connection:
    """Feedback from one population, the target of its projections, to another, their source.

    name    the projection's, or "source->target"
    gain    knob for the gain that multiplies the target's activity, transposed through pooling if pooling follows the
            target's function; "none" where the matrix contains the gain
    paths   the ways from target to source
    """

    name: str
    source: str
    target: str
    gain: Gain
    paths: Sequence[Path]

    def steps(self, delays: Mapping[str, int]) -> int:
        """Return the delay, the same along all paths, from projection -> delay in steps."""
        return sum(delays.get(projection.name, 0) for projection in self.paths[0])


def connections_of(problem: RelaxationProblem) -> dict[str, Connection]:
    """Return the connections of a relaxation by name."""
    if isinstance(problem.network, CapturedNetwork):
        return _between_populations(problem, problem.network)
    return {
        name: Connection(name, p.source, p.target, problem.activity_gain(p), [(p,)])
        for name, p in problem.feedback_projections.items()
    }


def connection_names(problem: InitialValueProblem) -> list[str]:
    """Return the names of all connections; on a hand-built network, of all projections."""
    if isinstance(problem.network, CapturedNetwork):
        assert isinstance(problem, RelaxationProblem)
        return list(connections_of(problem))
    return list(problem.network.projections)


@dataclass(frozen=True)
class CurrentFunction:
    """The pointwise function of a population whose gain is current.

    population  the function's units, which differ from the population's if pooling follows
    is_whole    whether they are the population's
    """

    population: Population
    is_whole: bool


def current_functions(problem: RelaxationProblem) -> dict[str, CurrentFunction]:
    """Return the pointwise function of each population whose feedback has the current gain."""
    targets = dict.fromkeys(c.target for c in connections_of(problem).values() if c.gain == "current")
    return {name: _function(problem, name) for name in targets}


def _function(problem: RelaxationProblem, name: str) -> CurrentFunction:
    passed = problem.feedforward
    if not isinstance(passed, CapturedPass):
        return CurrentFunction(problem.network.populations[name], True)
    current = passed.current(passed.path.names.index(name))
    return CurrentFunction(Population(name, current.shape[1:], current.activation), current.is_whole)


def _between_populations(problem: RelaxationProblem, network: CapturedNetwork) -> dict[str, Connection]:
    """Return one connection per pair of populations, per delay and per kind of gain."""
    paths: dict[tuple[str, str, float, Gain], list[Path]] = {}
    for target in network.populations:
        for path in _paths(network, target):
            delay = sum(problem.delay.times.get(p.name, 0.0) for p in path)
            gain = _own_gain(problem, path[0])
            paths.setdefault((path[-1].source, target, round(delay, 9), gain), []).append(path)
    found: dict[str, Connection] = {}
    for (source, target, _, gain), along in paths.items():
        name = between = f"{source}->{target}"
        number = 2
        while name in found:
            name, number = f"{between}#{number}", number + 1
        found[name] = Connection(name, source, target, gain, along)
    return found


def _own_gain(problem: RelaxationProblem, projection: Any) -> Gain:
    """Return "current" if a captured projection's matrix excludes the gain of its target's function, else "none"."""
    passed = problem.feedforward
    assert isinstance(passed, CapturedPass)
    if problem.activity_gain(projection) != "current":
        return "none"
    return "none" if passed.current(passed.path.names.index(projection.target)).is_linear else "current"


def _paths(network: CapturedNetwork, target: str) -> Iterator[Path]:
    """Yield the paths from a population or relay down to populations."""
    projections: list[Any] = network.incoming[target]
    for projection in projections:
        if projection.source in network.relays:
            for path in _paths(network, projection.source):
                yield (projection, *path)
        elif projection.source != network.input:
            yield (projection,)
