"""Graphs of populations. Oracles: graphs by hand, graphlib, reachability by powers of the adjacency matrix."""

import itertools
import pickle
from graphlib import TopologicalSorter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import graph_case, mlp_case

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Graph, Projection
from actrelax.models.network.graph import topological_order

CHAIN = Graph(("output", "b", "a"), (("b",), ("a",), ()))
SKIP = Graph(("output", "c", "b", "a"), (("c", "a"), ("b", "a"), ("a",), ()))
APART = Graph(("output", "b", "a"), (("b", "a"), (), ()))
"""Two hidden populations in parallel."""


@pytest.mark.parametrize(
    ("graph", "above", "below", "is_chain"),
    [
        (CHAIN, {"output": 0, "b": 1, "a": 2}, {"output": 2, "b": 1, "a": 0}, True),
        (SKIP, {"output": 0, "c": 1, "b": 2, "a": 3}, {"output": 3, "c": 2, "b": 1, "a": 0}, False),
        (APART, {"output": 0, "b": 1, "a": 1}, {"output": 1, "b": 0, "a": 0}, False),
    ],
    ids=["chain", "skip", "apart"],
)
def test_longest_paths_count(graph, above, below, is_chain):
    assert graph.above == above
    assert graph.below == below
    assert graph.is_chain is is_chain


def test_of_a_network():
    assert mlp_case().network.graph == Graph(
        ("output", "hidden3", "hidden2", "hidden1"), (("hidden3",), ("hidden2",), ("hidden1",), ())
    )
    network = graph_case().network
    for target, sources in network.graph.sources.items():
        fed = {p.source for p in network.projections.values() if p.target == target and p.source != "input"}
        assert set(sources) == fed


def test_a_copy_is_equal_and_as_small():
    """Plans are cached by graph, and graphs are sent between processes."""
    before = len(pickle.dumps(SKIP))
    assert SKIP.is_chain is False  # computed once, then cached
    assert len(pickle.dumps(SKIP)) == before
    assert pickle.loads(pickle.dumps(SKIP)) == SKIP
    assert hash(pickle.loads(pickle.dumps(SKIP))) == hash(SKIP)


LOOPS = Graph(("output", "d", "c", "b", "a"), (("d",), ("c", "d"), ("b",), ("a", "c"), ()))
"""Input -> a -> b <-> c -> d, with a connection from d to itself."""


def test_cycles_have_names_and_no_longest_paths():
    assert LOOPS.is_recurrent
    assert LOOPS.cycles == (("b", "c"), ("d",))
    assert LOOPS.cycles_in_words == "cycles of b, c and of d"
    for graph in (LOOPS, Graph(("output", "a"), (("a",), ("a",)))):
        assert not graph.is_chain
        for paths in ("above", "below"):
            with pytest.raises(
                ActrelaxError, match=r"^longest paths need a network without cycles, got (a )?cycles? of"
            ):
                getattr(graph, paths)
    assert not SKIP.is_recurrent
    assert SKIP.cycles == ()


def connections(pairs):
    return [Projection(source, target, name=f"{i}") for i, (source, target) in enumerate(pairs)]


@st.composite
def wirings(draw, acyclic):
    """Draw pairs of populations: each is driven by an earlier one, and feeds a later one; in any order."""
    size = draw(st.integers(1, 7))
    names = draw(st.permutations([f"p{i}" for i in range(size)]))
    line = ["input", *draw(st.permutations(names)), "output"]
    pairs = {(line[draw(st.integers(0, i - 1))], line[i]) for i in range(1, len(line))}
    pairs |= {(line[i], line[draw(st.integers(i + 1, len(line) - 1))]) for i in range(1, len(line) - 1)}
    inside = st.tuples(st.integers(1, size), st.integers(1, size)).filter(lambda ij: not acyclic or ij[0] < ij[1])
    extra = draw(st.lists(inside, max_size=8)) if size > 1 or not acyclic else []
    pairs |= {(line[i], line[j]) for i, j in extra}
    return [*names, "output"], draw(st.permutations(sorted(pairs)))


@given(wirings(acyclic=True))
def test_without_cycles_the_order_is_graphlibs(wiring):
    """Weights drawn from a seed, plans and files depend on it."""
    names, pairs = wiring
    parents = {name: [source for source, target in pairs if target == name] for name in ["input", *names]}
    expected = [name for name in TopologicalSorter(parents).static_order() if name != "output"]
    assert topological_order("input", names, connections(pairs)) == [*expected, "output"]


@given(wirings(acyclic=False))
def test_cycles_are_entered_from_below_one_after_another(wiring):
    names, pairs = wiring
    order = topological_order("input", names, connections(pairs))
    assert sorted(order) == sorted(["input", *names])
    assert (order[0], order[-1]) == ("input", "output")
    place = {name: i for i, name in enumerate(order)}
    for name in order[1:]:  # shapes are inferred, and sweeps read new values, along these projections
        assert any(place[source] < place[name] for source, target in pairs if target == name)
    adjacency = np.eye(len(order), dtype=bool)
    for source, target in pairs:
        adjacency[place[source], place[target]] = True
    reaches = np.linalg.matrix_power(adjacency.astype(float), len(order)) > 0
    together = reaches & reaches.T
    for i, j in itertools.combinations(range(len(order)), 2):
        assert not reaches[j, i] or together[i, j]  # back only inside a cycle
        assert not together[i, j] or together[i, i : j + 1].all()  # which is in one piece
    graph = Graph(
        tuple(order[:0:-1]),
        tuple(tuple(s for s, t in pairs if t == name and s != "input") for name in order[:0:-1]),
    )
    loops = {frozenset(order[j] for j in np.flatnonzero(row)) for row in together if row.sum() > 1}
    loops |= {
        frozenset([source]) for source, target in pairs if source == target and together[place[source]].sum() == 1
    }
    assert set(map(frozenset, graph.cycles)) == loops
    assert graph.is_recurrent == bool(loops)


def test_a_hierarchy_keeps_its_order_whatever_the_order_of_declaration():
    """Input -> a -> b -> c with a connection from c to a: a sweep upwards reads new values along a -> b -> c."""
    pairs = [("input", "a"), ("a", "b"), ("b", "c"), ("a", "c"), ("c", "a"), ("a", "a"), ("c", "output")]
    for names in itertools.permutations(["a", "b", "c", "output"]):
        assert topological_order("input", names, connections(pairs)) == ["input", "a", "b", "c", "output"]
