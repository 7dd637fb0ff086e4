"""Mazes: distances by SciPy's shortest paths, and parts that can't be reached."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data.connected import APART, EMPTY
from actrelax.simulations.data.mazes import mazes


def shortest(passages, origin):
    """Return the steps from the seed to each pixel, infinite where there is no path."""
    side = len(passages)
    at = np.arange(side * side).reshape(side, side)
    pairs = [(at[:, :-1], at[:, 1:]), (at[:-1], at[1:])]
    edges = [(a, b) for one, other in pairs for a, b in zip(one.flat, other.flat, strict=True)]
    open_edges = [(a, b) for a, b in edges if passages.flat[a] and passages.flat[b]]
    rows, columns = zip(*open_edges, strict=True)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(side * side, side * side)).tocsr()
    return dijkstra(graph, directed=False, indices=int(origin.argmax())).reshape(side, side)


def test_distances_are_shortest_paths():
    images, distance = mazes(20, 5, seed=0)
    assert images.shape == (20, 2, 9, 9)
    for (passages, origin), found in zip(images.numpy(), distance.numpy(), strict=True):
        assert origin.sum() == 1
        assert (passages * origin).sum() == 1
        steps = shortest(passages > 0, origin)
        expected = np.where(passages > 0, np.where(np.isinf(steps), APART, steps), EMPTY)
        assert np.array_equal(found, expected)
        assert label(passages)[1] == 3  # two cuts of a tree
        assert passages.sum() == 25 + 24 - 2


def test_a_seed_fixes_the_mazes():
    one, again, other = mazes(3, 4, seed=1), mazes(3, 4, seed=1), mazes(3, 4, seed=2)
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    assert int(mazes(1, 2, seed=0, cuts=0).distance.min()) == EMPTY  # all cells are connected
    assert (mazes(1, 2, seed=0, cuts=3).distance == 0).sum() == (mazes(1, 2, seed=0, cuts=3).distance >= 0).sum() == 1


def test_a_tree_has_a_number_of_passages():
    with pytest.raises(ActrelaxError, match=r"^mazes of 3 x 3 cells have 8 passages, got cuts=9\.$"):
        mazes(1, 3, seed=0, cuts=9)
