"""Layers of named networks draw nothing from torch's global generator, and images have the shape that they need."""

import pytest
import torch
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import ACTIVATIONS
from actrelax.models.network.parts import conv, flatten, image_shape, linear, populations


def test_layers_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    dense, maps = linear(3, 4, bias=False), conv(2, 5, 3, stride=2, padding=1)
    assert torch.equal(torch.rand(3), expected)
    assert (dense.weight.shape, dense.bias) == ((4, 3), None)
    assert (maps.weight.shape, maps.stride, maps.padding) == ((5, 2, 3, 3), (2, 2), (1, 1))
    assert maps.bias is not None


def test_the_output_is_linear():
    assert populations(["a", "output"], ACTIVATIONS["relu"]) == {"a": ACTIVATIONS["relu"], "output": "identity"}


def test_images():
    assert image_shape((3, 8, 9), at_least=8) == (3, 8, 9)
    assert [type(stage) for stage in flatten((3, 8, 9))] == [nn.Flatten]
    assert flatten((20,)) == []
    with pytest.raises(ActrelaxError, match=r"of at least 9 x 9, got shape \(3, 8, 9\)\.$"):
        image_shape((3, 8, 9), at_least=9)
