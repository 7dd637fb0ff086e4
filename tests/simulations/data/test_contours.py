"""Contours: read off the pixels, followed by SciPy's shortest paths."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components, dijkstra

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data.connected import APART, EMPTY
from actrelax.simulations.data.contours import contours


def dashes(figure):
    """Return the direction (down, right) of each dash in an image, by the middle of its square."""
    found = {}
    for i, j in product(range(0, len(figure), 4), repeat=2):
        pixels = np.argwhere(figure[i : i + 3, j : j + 3] > 0)
        if len(pixels):
            assert len(pixels) == 3
            assert pixels.mean(0).tolist() == [1, 1]
            found[i // 4, j // 4] = pixels[-1] - pixels[0]
    return found


def angle(a, b):
    """Return the angle between two lines, in degrees."""
    return math.degrees(math.acos(min(1, abs(np.dot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))))


def graph(found):
    """Return which dashes continue each other: 1 if one points to its neighbour and they turn by <= 45 degrees."""
    places = list(found)
    links = np.zeros((len(places), len(places)))
    for (m, one), (n, other) in product(enumerate(places), repeat=2):
        step = np.subtract(other, one)
        if np.abs(step).max() == 1 and angle(found[one], found[other]) < 46:
            links[m, n] = min(angle(found[one], step), angle(found[other], step)) < 1
    return links


def test_contours_are_what_continues():
    images, distance = contours(20, 7, longest=8, seed=1)
    assert images.shape == (20, 2, 27, 27)
    lengths = set()
    for (figure, mark), steps in zip(images.numpy(), distance.numpy(), strict=True):
        found = dashes(figure)
        assert mark.sum() == 9
        start = tuple(np.argwhere(mark)[0] // 4)
        links = graph(found)
        away = dijkstra(links, indices=list(found).index(start))
        expected = np.full((7, 7), EMPTY)
        _, labels = connected_components(links)
        for place, at, size in zip(found, away, np.bincount(labels)[labels], strict=True):
            if size > 1:
                expected[place] = APART if np.isinf(at) else at
        assert np.array_equal(steps, expected)
        assert sorted(np.bincount(labels))[-3:-1] == [1, (steps >= 0).sum()]  # two contours of equal length
        assert (steps == APART).sum() == (steps >= 0).sum() == steps.max() + 1
        lengths.add(int(steps.max()) + 1)
    assert lengths <= set(range(3, 9))
    assert len(lengths) > 3


def test_a_seed_fixes_the_contours():
    one, again, other = (contours(3, 6, longest=6, seed=seed) for seed in (1, 1, 2))
    assert one.images.equal(again.images)
    assert not one.images.equal(other.images)
    assert int(contours(3, 6, 6, seed=1, shortest=6, density=0).images[:, 0].sum()) == 3 * 2 * 6 * 3


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((4, 5), r"^contours need 2 <= shortest <= longest, got shortest=5 and longest=4\.$"),
        ((1, 1), r"^contours need 2 <= shortest <= longest, got shortest=1 and longest=1\.$"),
        ((8, 8), r"^two contours of 8 dashes hardly fit into 3 x 3 places: pass a smaller longest or more cells\.$"),
    ],
)
def test_contours_must_fit(lengths, message):
    longest, shortest = lengths
    with pytest.raises(ActrelaxError, match=message):
        contours(1, 3, longest, seed=0, shortest=shortest)
