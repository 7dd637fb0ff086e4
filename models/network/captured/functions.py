"""The pointwise functions known by name as activations, with the formulas that Brian2 evaluates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from actrelax.models.network.activations import ACTIVATIONS, Activation, Formula, leaky_relu

_OPTIONS: dict[str, dict[str, Any]] = {
    "leaky_relu": {"negative_slope": 0.01},
    "softplus": {"beta": 1, "threshold": 20},
    "elu": {"alpha": 1.0},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "gelu": {"approximate": "none"},
}
"""Function -> its options with their defaults, in order."""


def activation_of(
    function: Callable[[Tensor], Tensor], called: Callable[..., Tensor], args: Sequence[Any], options: Mapping[str, Any]
) -> Activation:
    """Return the activation of a pointwise function known by name.

    Parameters
    ----------
    function : callable
        The function of its drive alone.
    called : callable
        PyTorch's function, or method, that the module called.
    args, options : sequence, mapping
        Positional and keyword arguments of that call, without the drive.
    """
    name = called.__name__.rstrip("_")
    given = _OPTIONS.get(name, {}) | dict(zip(_OPTIONS.get(name, {}), args, strict=False))
    given |= {key: value for key, value in options.items() if key in given}
    if name == "leaky_relu":
        return leaky_relu(given["negative_slope"])
    is_default = given == _OPTIONS.get(name, {})
    if name in ACTIVATIONS and is_default:
        return ACTIVATIONS[name]
    formula = _FORMULAS[name](*given.values())
    words = "" if is_default else f"({', '.join(f'{v:g}' if not isinstance(v, str) else v for v in given.values())})"
    return Activation(name + words, function, partial(_derivative, function), formula)


def _derivative(function: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """Return f'(a), with a graph where the drive requires a gradient."""
    with torch.enable_grad():
        drive = a if a.requires_grad else a.detach().requires_grad_()
        (gain,) = torch.autograd.grad(function(drive).sum(), drive, create_graph=a.requires_grad)
    return gain


def _silu() -> Formula:
    return Formula("a / (1 + exp(-a))", "(1 + a / (1 + exp(a))) / (1 + exp(-a))")


def _elu(alpha: float) -> Formula:
    below = f"{alpha!r} * int(a <= 0) * exp(clip(a, -700, 0))"
    return Formula(f"a * int(a > 0) + {below} - {alpha!r} * int(a <= 0)", f"(int(a > 0) + {below})")


def _hardtanh(least: float, most: float) -> Formula:
    return Formula(f"clip(a, {least!r}, {most!r})", f"int(a > {least!r}) * int(a < {most!r})")


def _softplus(beta: float, threshold: float) -> Formula:
    below, slope = f"int({beta!r} * a <= {threshold!r})", f"1 / (1 + exp(-{beta!r} * a))"
    curved = f"log1p(exp(clip({beta!r} * a, -700, {threshold!r}))) / {beta!r}"
    above = f"int({beta!r} * a > {threshold!r})"
    return Formula(f"a * {above} + {curved} * {below}", f"({above} + {below} * {slope})")


def _gelu(approximate: str) -> Formula | None:
    if approximate != "tanh":
        return None  # Brian2 has no error function
    squashed = "tanh(0.7978845608028654 * (a + 0.044715 * a**3))"
    slope = f"0.7978845608028654 * (1 + 0.134145 * a**2) * (1 - {squashed}**2)"
    return Formula(f"0.5 * a * (1 + {squashed})", f"0.5 * (1 + {squashed} + a * {slope})")


_FORMULAS: dict[str, Callable[..., Formula | None]] = {
    "silu": _silu,
    "elu": _elu,
    "hardtanh": _hardtanh,
    "relu6": partial(_hardtanh, 0.0, 6.0),
    "softplus": _softplus,
    "gelu": _gelu,
}
"""Function -> its formula, from its options."""

FORMULATED = [
    *(name for name, activation in ACTIVATIONS.items() if activation.formula),
    *(name for name in _FORMULAS if name not in ACTIVATIONS),
    'gelu(approximate="tanh")',
]
"""The pointwise functions of modules that have a formula."""
