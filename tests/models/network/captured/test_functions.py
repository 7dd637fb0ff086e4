"""The pointwise functions known by name as activations. Oracle: autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax import Network
from actrelax.models.network import ACTIVATIONS
from actrelax.models.network.captured.functions import activation_of
from actrelax.models.network.captured.gains import POINTWISE
from actrelax.models.results import relative_error

DRIVES = torch.tensor([-800.0, -30.0, -5.0, -1.0, -0.3, 0.0, 0.1, 1.0, 5.0, 6.0, 19.9, 20.1, 30.0, 800.0]).double()
CALLS = {
    "silu": (F.silu, (), {}),
    "relu6": (F.relu6, (False,), {}),
    "elu": (F.elu, (), {"alpha": 0.7}),
    "hardtanh": (F.hardtanh, (-0.5,), {"max_val": 2.0}),
    "softplus": (F.softplus, (2.0, 5.0), {}),
    "leaky_relu": (F.leaky_relu, (0.2, True), {}),
    "gelu": (F.gelu, (), {"approximate": "tanh"}),
    "tanh": (torch.Tensor.tanh, (), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_formula_and_derivative_with_options(name):
    called, args, options = CALLS[name]
    drive = DRIVES.clone().requires_grad_()
    expected = called(drive.clone(), *args, **options)
    (slope,) = torch.autograd.grad(expected.sum(), drive)
    activation = activation_of(lambda a: called(a.clone(), *args, **options), called, args, options)
    assert relative_error(activation.derivative(DRIVES), slope) < 1e-14
    names = {"exp": np.exp, "log1p": np.log1p, "tanh": np.tanh, "clip": np.clip, "abs": np.abs, "int": np.float64}
    with np.errstate(over="ignore"):
        found = [torch.as_tensor(eval(text, names, {"a": DRIVES.numpy()})) for text in activation.formula]
    assert relative_error(found[0], expected.detach()) < 1e-14
    assert (found[1] - slope).abs().max() < 1e-13


def test_every_known_function_is_an_activation():
    """Only the exact GELU has no formula; functions that also have a name in the package are that activation."""
    without = set()
    for called in POINTWISE:
        activation = activation_of(called, called, (), {})
        without |= {activation.name} if activation.formula is None else set()
        if activation.name in ACTIVATIONS:
            assert torch.equal(activation(DRIVES), called(DRIVES.clone()))
    assert without == {"gelu"}


def test_derivatives_can_be_differentiated():
    drive = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    gain = activation_of(F.silu, F.silu, (), {}).derivative(drive)
    (curvature,) = torch.autograd.grad(gain.sum(), drive)
    s = torch.sigmoid(drive)
    assert torch.allclose(curvature, s * (1 - s) * (2 + drive * (1 - 2 * s)), atol=1e-14)


def test_a_module_says_with_which_options_it_calls():
    module = nn.Sequential(nn.Linear(4, 5), nn.Softplus(beta=3.0), nn.Linear(5, 3), nn.LeakyReLU(0.3, inplace=True))
    x = torch.randn(2, 4)
    passed = Network.from_module(module, x).feedforward(x)
    names = [passed.current(number).activation.name for number in range(2)]
    assert names == ["leaky-relu(0.3)", "softplus(3, 20)"]
