"""Packed scenes, unpacked by NumPy."""

import base64
import json

import numpy as np
import pytest
import torch

from actrelax import RelaxationProblem, build, solve
from actrelax.analysis.view.pack import HALF, arrangement, codes, packed, rounding, scales
from actrelax.analysis.view.scene import scene_of


@pytest.fixture(scope="module")
def scene():
    network = build("digits-cnn", generator=0).double()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return scene_of(solve(RelaxationProblem.from_batch(network, x, torch.tensor([3, 4])), "euler", 6, record=True))


def unpacked(text, dtype, *shape):
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def values(found, scale, most):
    shares = (found.astype(float) - HALF) / HALF
    return scale * np.sinh(shares * np.arcsinh(most / scale))


def test_everything_comes_back(scene):
    found = json.loads(json.dumps(packed(scene)))
    assert (found["labels"], len(found["times"]), found["no_law"]) == ([3, 4], 7, None)
    for each, (name, shown) in zip(found["populations"], scene.populations.items(), strict=True):
        scale, most = np.array(each["scale"])[:, None], np.array(each["most"])[:, None]
        assert (each["name"], each["shape"], each["units"]) == (name, list(shown.shape), shown.gradient.shape[1])
        units = each["units"]
        activities = values(unpacked(each["activities"], "<u2", 2, 7, units), scale[..., None], most[..., None])
        gradient = values(unpacked(each["gradient"], "<u2", 2, units), scale, most)
        for back, true in ((activities, shown.activities), (gradient, shown.gradient)):
            bound = found["rounding"] * np.maximum(np.abs(true), scale.reshape(-1, *[1] * (true.ndim - 1)))
            assert (np.abs(back - true) <= bound * (1 + 1e-6)).all()
            assert np.ptp(true) > 10 * bound.max()
        for field in ("errors", "arrived"):
            assert unpacked(each[field], "<f4", 2, 7) == pytest.approx(getattr(shown, field), rel=1e-6)
        assert unpacked(each["predicted"], "<f4", 2, 7) == pytest.approx(shown.predicted, rel=1e-6)
    assert found["rounding"] < 1e-3


def test_zero_has_the_middle_code_and_the_largest_the_last():
    found = codes(np.array([0.0, 5.0, -5.0, 1e-3]), 0.01, 5.0)
    assert found.tolist()[:3] == [HALF, 2 * HALF, 0]
    assert values(found, 0.01, 5.0) == pytest.approx([0, 5, -5, 1e-3], abs=1e-5)


def test_silent_populations_keep_their_place(scene):
    shown = scene.populations["hidden1"]
    dead = type(shown)(**{**vars(shown), "gradient": 0 * shown.gradient, "activities": 0 * shown.activities})
    assert [x.tolist() for x in scales(dead)] == [[1, 1], [1, 1]]
    no_gradient = type(shown)(**{**vars(shown), "gradient": 0 * shown.gradient})
    largest = np.abs(shown.activities).max((1, 2))
    assert [x.tolist() for x in scales(no_gradient)] == [largest.tolist()] * 2
    assert rounding(dead) < 1e-4


@pytest.mark.parametrize("shape", [(3,), (64,), (300,), (1, 8, 8), (32, 4, 4), (5, 3, 7), (64, 2, 2)])
def test_every_unit_has_one_place(shape):
    places = arrangement(shape)
    found = places[places >= 0]
    assert sorted(found.tolist()) == list(range(int(np.prod(shape))))
    if len(shape) == 3:
        maps, height, width = shape
        for each in range(maps):
            rows, columns = np.nonzero((places >= each * height * width) & (places < (each + 1) * height * width))
            image = places[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert np.array_equal(image, each * height * width + np.arange(height * width).reshape(height, width))


@pytest.mark.parametrize(
    ("shape", "size"), [((64,), (8, 8, 1)), ((5,), (1, 5, 1)), ((1, 4, 6), (4, 6, 1)), ((3, 4, 6), (4, 6, 3))]
)
def test_stimuli_are_pictures(shape, size):
    network = build("mlp-3x6", input_shape=shape, generator=0)
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(2)) - 0.5
    problem = RelaxationProblem.from_batch(network, x, torch.tensor([0]))
    (found,) = packed(scene_of(solve(problem, "euler", 2, record=True)))["stimuli"]
    assert (found["rows"], found["columns"], found["channels"]) == size
    grey = unpacked(found["bytes"], "u1", *size) / 255 * (found["high"] - found["low"]) + found["low"]
    expected = x[0].movedim(0, -1) if len(shape) == 3 else x[0].reshape(size)
    assert grey == pytest.approx(expected.numpy(), abs=0.5 / 255)
