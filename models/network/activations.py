"""Activation functions f of a population and their derivatives f', by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Fused(NamedTuple):
    """The product signal * f'(a) in one kernel, as autograd computes it.

    kernel  (signal, activity or drive) -> signal times gain; the signal may have extra leading dimensions
    reads   the kernel's second argument: the activity f(a) or the drive a
    """

    kernel: Callable[[Tensor, Tensor], Tensor]
    reads: Literal["activity", "drive"]


class Formula(NamedTuple):
    """f and f' as expressions in the drive `a`, for simulators, with exp, log1p, tanh, abs, clip and int."""

    function: str
    derivative: str


@dataclass(frozen=True)
class Activation:
    """An element-wise function of the drive and its derivative: x = f(a), gain = f'(a).

    Parameters
    ----------
    name : str
    function, derivative : callable
        f and f': drives -> activities or gains of the same shape. Define them at module level, so that networks can
        be pickled. At a kink of f, f' must agree with autograd.
    formula : Formula, optional
        f and f' as text, for simulators that evaluate them at run time.
    fused : Fused, optional
        The product of a signal and the gain; by default ``signal * derivative(drive)``.

    Examples
    --------
    >>> ACTIVATIONS["tanh"].derivative(torch.zeros(2))
    tensor([1., 1.])
    """

    name: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    formula: Formula | None = None
    fused: Fused | None = None

    def __call__(self, drive: Tensor) -> Tensor:
        return self.function(drive)

    @property
    def needs_drive(self) -> bool:
        """Return whether the gain needs the drive, not only the activity."""
        return self.fused is None or self.fused.reads == "drive"

    def times_gain(self, signal: Tensor, drive: Tensor | None, activity: Tensor) -> Tensor:
        """Return signal (..., *activity.shape) times f'(drive); the drive may be None unless `needs_drive`."""
        if self.fused is not None and self.fused.reads == "activity":
            return self.fused.kernel(signal, activity)
        assert drive is not None
        return signal * self.derivative(drive) if self.fused is None else self.fused.kernel(signal, drive)


@lru_cache  # four times as fast as looking up the attributes
def _overload(name: str) -> Callable[..., Tensor]:
    overload: Callable[..., Tensor] = getattr(torch.ops.aten, name).default
    return overload


@dataclass(frozen=True)
class _Kernel:
    """A PyTorch backward kernel, stored by name so that it can be pickled."""

    name: str
    options: tuple[float, ...] = ()

    def __call__(self, signal: Tensor, reads: Tensor) -> Tensor:
        product: Tensor = _overload(self.name)(signal, reads, *self.options)
        return product


def _of_activity(kernel: str, *options: float) -> Fused:
    return Fused(_Kernel(kernel, options), "activity")


def _of_drive(kernel: str, *options: float) -> Fused:
    return Fused(_Kernel(kernel, options), "drive")


def _unchanged(signal: Tensor, activity: Tensor) -> Tensor:
    return signal


def _identity(a: Tensor) -> Tensor:
    return a


def _tanh_derivative(a: Tensor) -> Tensor:
    return 1 - torch.tanh(a) ** 2


def _relu_derivative(a: Tensor) -> Tensor:
    return (a > 0).to(a.dtype)


def _sigmoid_derivative(a: Tensor) -> Tensor:
    s = torch.sigmoid(a)
    return s * (1 - s)


def _softplus_derivative(a: Tensor) -> Tensor:
    # torch's softplus is the identity above 20, with derivative 1
    return torch.where(a > 20, torch.ones_like(a), torch.sigmoid(a))


def _gelu_derivative(a: Tensor) -> Tensor:
    distribution: Tensor = torch.special.ndtr(a)
    density = torch.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    return distribution + a * density


def _leaky_relu(a: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(a, slope)


def _leaky_relu_derivative(a: Tensor, slope: float) -> Tensor:
    return torch.where(a > 0, torch.ones_like(a), torch.full_like(a, slope))


def leaky_relu(slope: float = 0.01) -> Activation:
    """Return the leaky ReLU: f(a) = a for a > 0, else slope * a.

    Examples
    --------
    >>> leaky_relu(0.2).name
    'leaky-relu(0.2)'
    """
    name = "leaky-relu" if slope == 0.01 else f"leaky-relu({slope:g})"
    gain = f"({slope!r} + {1 - slope!r} * int(a > 0))"
    return Activation(
        name,
        partial(_leaky_relu, slope=slope),
        partial(_leaky_relu_derivative, slope=slope),
        Formula(f"a * {gain}", gain),
        _of_drive("leaky_relu_backward", slope, False),
    )


_TANH = Formula("tanh(a)", "(1 - tanh(a)**2)")
_RELU = Formula("a * int(a > 0)", "int(a > 0)")
_LOGISTIC = "1 / (1 + exp(-a))"
_SIGMOID = Formula(_LOGISTIC, "exp(-abs(a)) / (1 + exp(-abs(a)))**2")
_SOFTPLUS = Formula(
    "a * int(a > 20) + log1p(exp(clip(a, -700, 20))) * int(a <= 20)", f"(int(a > 20) + int(a <= 20) * {_LOGISTIC})"
)

ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("identity", _identity, torch.ones_like, Formula("a", "1"), Fused(_unchanged, "activity")),
        Activation("tanh", torch.tanh, _tanh_derivative, _TANH, _of_activity("tanh_backward")),
        Activation("relu", torch.relu, _relu_derivative, _RELU, _of_activity("threshold_backward", 0)),
        leaky_relu(),
        Activation("sigmoid", torch.sigmoid, _sigmoid_derivative, _SIGMOID, _of_activity("sigmoid_backward")),
        Activation("softplus", F.softplus, _softplus_derivative, _SOFTPLUS, _of_drive("softplus_backward", 1, 20)),
        # gelu's kernel doesn't accept signals with extra leading dimensions
        Activation("gelu", F.gelu, _gelu_derivative),
    )
}
