"""Activation functions, including kinks and large drives. Oracle: autograd."""

import pickle

import numpy as np
import pytest
import torch

from actrelax.models._names import look_up
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import ACTIVATIONS, Activation, leaky_relu
from actrelax.models.results import relative_error

DRIVES = torch.tensor([-30.0, -5.0, -1.0, -0.1, 0.0, 0.1, 1.0, 5.0, 19.9, 20.1, 30.0], dtype=torch.float64)


@pytest.mark.parametrize("activation", [*ACTIVATIONS.values(), leaky_relu(0.3)], ids=lambda a: a.name)
def test_derivative_is_autograds(activation):
    drive = DRIVES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(activation(drive).sum(), drive)
    assert relative_error(activation.derivative(DRIVES), expected) < 1e-14


@pytest.mark.parametrize("activation", [*ACTIVATIONS.values(), leaky_relu(0.3)], ids=lambda a: a.name)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
@pytest.mark.parametrize("shape", [(11,), (5, 11), (3, 4, 6, 6)], ids=str)
def test_amplified_is_the_product_with_the_derivative(activation, dtype, bound, shape):
    """Holds for one signal, a stack of signals, and images, by a fused kernel if there is one."""
    generator = torch.Generator().manual_seed(0)
    drive = DRIVES.expand(shape) if shape[-1] == 11 else 5 * torch.randn(shape, generator=generator)
    drive = drive.to(dtype).contiguous()
    activity = activation(drive)
    needed = drive if activation.needs_drive else None
    for stacked in ((), (1,), (4,)):
        signal = torch.randn(*stacked, *shape, generator=generator).to(dtype)
        before = signal.clone()
        found = activation.times_gain(signal, needed, activity)
        assert (found.shape, found.dtype) == (signal.shape, dtype)
        assert relative_error(found.double(), signal.double() * activation.derivative(drive.double())) < bound
        assert torch.equal(signal, before)


def test_an_activation_of_your_own_is_amplified_by_its_derivative():
    own = Activation("square", torch.square, lambda a: 2 * a)
    assert own.needs_drive
    assert torch.equal(own.times_gain(torch.ones(2, 11), DRIVES, DRIVES**2), (2 * DRIVES).expand(2, 11))


WITH_FORMULA = [a for a in (*ACTIVATIONS.values(), leaky_relu(0.3)) if a.formula is not None]


@pytest.mark.parametrize("activation", WITH_FORMULA, ids=lambda a: a.name)
def test_formula_says_the_same_as_the_functions(activation):
    names = {"exp": np.exp, "log1p": np.log1p, "tanh": np.tanh, "clip": np.clip, "abs": np.abs, "int": np.float64}
    a = DRIVES.numpy()
    for text, function in zip(activation.formula, (activation, activation.derivative), strict=True):
        value = torch.as_tensor(eval(text, names, {"a": a}) + 0 * a)
        assert relative_error(value, function(DRIVES)) < 1e-14


def test_every_activation_but_gelu_has_a_formula():
    assert {a.name for a in ACTIVATIONS.values()} - {a.name for a in WITH_FORMULA} == {"gelu"}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda a: a.name)
def test_survives_pickling(activation):
    copy = pickle.loads(pickle.dumps(activation))
    assert torch.equal(copy(DRIVES), activation(DRIVES))
    for twin in (copy, activation):
        twin.times_gain(DRIVES, DRIVES, activation(DRIVES))
    assert pickle.dumps(copy) == pickle.dumps(activation)


def test_relu_has_no_gain_at_zero():
    assert ACTIVATIONS["relu"].derivative(torch.zeros(1)) == 0


def test_by_name():
    own = Activation("square", torch.square, lambda a: 2 * a)
    assert look_up("activation", own, ACTIVATIONS) is own
    assert look_up("activation", "gelu", ACTIVATIONS) is ACTIVATIONS["gelu"]
    with pytest.raises(ActrelaxError, match=r"^unknown activation 'swish'; known: identity, tanh, relu, leaky-relu"):
        look_up("activation", "swish", ACTIVATIONS)
