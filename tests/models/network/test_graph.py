"""Graphs of populations. Oracle: graphs by hand."""

import pickle

import pytest
from networks import graph_case, mlp_case

from actrelax.models.network import Graph

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
