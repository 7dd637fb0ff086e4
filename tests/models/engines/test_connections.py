"""Connections: one per projection of a hand-built network; past relays, and per delay, on a captured one."""

import itertools

import torch
from modules import MODULES
from networks import graph_case

from actrelax import Network, RelaxationProblem
from actrelax.models.engines.connections import connection_names, connections_of


def captured(name, **fields):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli(), output=case.output, paths=case.paths)
    return RelaxationProblem.from_batch(network, case.stimuli(3), torch.tensor([0, 1, 2]), **fields)


def test_one_per_projection():
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions="unfrozen-relaxation")
    found = connections_of(problem)
    assert list(found) == list(problem.feedback_projections)
    assert {c.gain for c in found.values()} == {"current"}
    for name, c in found.items():
        (path,) = c.paths
        assert [p.name for p in path] == [name]
        assert (c.source, c.target) == (path[0].source, path[0].target)
    assert connection_names(problem) == list(case.network.projections)


def test_past_relays():
    """A block x + conv2(norm(conv1(norm(x)))): two relays, of which connections know nothing."""
    problem = captured("pre-activation")
    found = connections_of(problem)
    assert not {end for c in found.values() for end in (c.source, c.target)} & {*problem.network.relays}
    assert {(c.source, c.target) for c in found.values()} == {
        (source, target) for target in problem.network.graph.order for source in problem.network.graph.sources[target]
    }
    through = [path for c in found.values() for path in c.paths if len(path) > 1]
    assert through
    assert all(a.source == b.target for path in through for a, b in itertools.pairwise(path))
    assert connection_names(problem) == list(found)


def test_paths_with_other_delays_are_other_connections():
    plain = captured("shifted")
    pair = next(c for c in connections_of(plain).values() if len(c.paths) > 1)
    first = pair.paths[0][0].name
    delayed = captured("shifted", delays={first: 0.3})
    found = [c for c in connections_of(delayed).values() if (c.source, c.target) == (pair.source, pair.target)]
    assert sorted(c.steps({first: 3}) for c in found) == [0, 3]
    assert sum(len(c.paths) for c in found) == len(pair.paths)
    assert len({c.name for c in found}) == 2
