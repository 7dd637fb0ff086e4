"""Pooling along the routes of the feedforward pass. Oracles: PyTorch's modules, autograd, values by hand."""

import pytest
import torch
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Projection
from actrelax.models.network.pooling import routing_stage

MODULES = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    nn.MaxPool2d(2, dilation=2),
    nn.AvgPool2d(2),
    nn.AvgPool2d((3, 2), stride=2, padding=1, count_include_pad=False),
    nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=(3, 2)),
    nn.Flatten(),
]


@pytest.mark.catches("max pooling's feedback spread as a mean")
@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_stage_is_pytorchs_and_its_adjoint_is_autograds(module, generator):
    x = torch.randn(2, 3, 8, 7, generator=generator, requires_grad=True)
    expected = module(x)
    y = torch.randn(expected.shape, generator=generator)
    stage = routing_stage(module)
    found, route = stage.find(x.detach())
    assert torch.equal(found, expected)
    assert torch.equal(stage.adjoint(y, route), *torch.autograd.grad(expected, x, y))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_along_a_route_a_stage_is_linear_and_one_matrix(module, generator):
    """<apply(x), y> = <x, adjoint(y)>, also for activities that did not choose the route."""
    first, x = torch.randn(2, 2, 3, 8, 7, generator=generator)
    stage = routing_stage(module)
    found, route = stage.find(first)
    y = torch.randn(found.shape, generator=generator)
    forward, backward = stage.apply(x, route), stage.adjoint(y, route)
    assert float((forward * y).sum()) == pytest.approx(float((x * backward).sum()), rel=1e-12)
    matrix = torch.tensor(stage.as_sparse(route).toarray())
    assert torch.allclose(matrix @ x.flatten(), forward.flatten(), rtol=0, atol=1e-14)
    assert torch.allclose(matrix.T @ y.flatten(), backward.flatten(), rtol=0, atol=1e-14)


def test_a_route_repeated_is_that_of_copies_of_the_batch(generator):
    stage = routing_stage(nn.MaxPool2d(2))
    x = torch.randn(3, 2, 4, 4, generator=generator)
    found, route = stage.find(x)
    y = torch.randn(2, *found.shape, generator=generator)
    together = stage.adjoint(y.flatten(0, 1), route.repeated(2))
    assert torch.equal(together, torch.cat([stage.adjoint(each, route) for each in y]))


@pytest.mark.catches("winners of the moment")
def test_max_pooling_keeps_the_winners_of_the_feedforward_pass():
    projection = Projection("a", "b", nn.MaxPool2d(2))
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    _, route = projection.find(x)
    turned = torch.tensor([[[[9.0, 8.0], [7.0, 6.0]]]])
    assert projection.drive(turned, route).item() == 6.0


@pytest.mark.parametrize("stage", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
def test_pooling_needs_channels(stage):
    with pytest.raises(ActrelaxError, match=r"take populations \(channels, height, width\), got shape \(8, 8\)\.$"):
        routing_stage(stage).find(torch.zeros(1, 8, 8))


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Flatten(2), r"use nn\.Flatten\(\) with its defaults\.$"),
        (nn.MaxPool2d(2, return_indices=True), r"leave return_indices out\.$"),
        (
            nn.AdaptiveAvgPool2d(2),
            r"^AdaptiveAvgPool2d can't be part of a projection; known: Linear, Conv2d",
        ),
        (
            nn.Upsample(scale_factor=1.5),
            r"a whole number of times, got Upsample\(scale_factor=1\.5.*: use nn\.Upsample\(",
        ),
        (nn.Upsample(scale_factor=2, mode="bilinear"), r"a whole number of times, got Upsample\(.*mode='bilinear'\)"),
        (nn.Upsample(size=8), r"a whole number of times, got Upsample\(size=8"),
    ],
)
def test_what_is_refused(module, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        routing_stage(module)
