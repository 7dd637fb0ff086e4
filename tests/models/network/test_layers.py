"""Weighted maps. Oracles: PyTorch's modules, and autograd for adjoint and weight gradient."""

import copy

import pytest
import torch
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Projection
from actrelax.models.network.layers import linear_map
from actrelax.models.network.pooling import Route
from actrelax.models.results import relative_error

CASES = [
    (nn.Linear(5, 3), (5,)),
    (nn.Conv2d(4, 6, 3), (4, 7, 6)),
    (nn.Conv2d(4, 6, (2, 3), stride=2, padding=(1, 2), dilation=(2, 1), groups=2), (4, 7, 6)),
]


@pytest.mark.catches("transpose forgotten in the update")
@pytest.mark.catches("bias gradient skipped")
@pytest.mark.parametrize(("module", "shape"), CASES, ids=str)
def test_drive_feedback_and_plasticity_are_autograds(module, shape, generator):
    module = copy.deepcopy(module).double()
    x = torch.randn(3, *shape, generator=generator, requires_grad=True)
    drive = module(x)
    y = torch.randn(drive.shape, generator=generator)
    feedback, weight, bias = torch.autograd.grad(drive, [x, module.weight, module.bias], y)
    layer = linear_map(module)
    with torch.no_grad():
        assert torch.equal(layer.apply(x, module.weight, module.bias), drive)
        assert relative_error(layer.adjoint(y, module.weight, Route(x.shape)), feedback) < 1e-14
        updates = layer.hebbian(x, y, module.weight, module.bias, 0.3)
        for update, gradient in zip(updates, (weight, bias), strict=True):
            assert relative_error(update, 0.3 * gradient) < 1e-14
        assert layer.hebbian(x, y, module.weight, None, 0.3)[1] is None


@pytest.mark.parametrize(("module", "shape"), CASES, ids=str)
def test_one_matrix_says_the_same(module, shape, generator):
    x = torch.randn(2, *shape, generator=generator)
    weight = module.weight.detach().double()
    expected = linear_map(module).apply(x, weight, None)
    matrix = torch.tensor(linear_map(module).as_sparse(weight, x.shape).toarray())
    assert relative_error(matrix @ x.flatten(), expected.flatten()) < 1e-14


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_named_padding(padding):
    conv = nn.Conv2d(2, 3, 3, padding=padding)
    x = torch.randn(2, 2, 5, 5)
    with torch.no_grad():
        assert torch.equal(Projection("a", "b", conv).find(x)[0], conv(x))


def test_images_need_channels():
    with pytest.raises(ActrelaxError, match=r"take populations \(channels, height, width\), got shape \(8, 8\)\.$"):
        Projection("a", "b", nn.Conv2d(1, 6, 3)).find(torch.zeros(1, 8, 8))


def test_linear_needs_a_flat_population():
    with pytest.raises(ActrelaxError, match=r"^Linear takes a flat population, got shape \(2, 3\): flatten before it"):
        Projection("a", "b", nn.Linear(3, 4)).find(torch.zeros(1, 2, 3))


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), r"got padding_mode 'circular': use 'zeros'\.$"),
        (nn.Conv2d(2, 2, 2, padding="same"), r"padding 'same' needs an odd kernel: pad by a number instead\.$"),
    ],
)
def test_what_is_refused(module, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        linear_map(module)
