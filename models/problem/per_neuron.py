"""Time constants, noise and the like: shared, per population or per neuron."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from actrelax.models._names import is_number, known
from actrelax.models.errors import ActrelaxError

Value = float | Tensor

SMALLEST = 1e-30
"""The smallest valid divisor: quotients stay within float32's range."""


@dataclass(frozen=True)
class PerNeuron:
    """A quantity with one value for all, one per population or one per neuron.

    name     its name in error messages
    given    one number for all, or population -> a number or, one per neuron, a tensor of the population's shape
    default  value of populations that a mapping doesn't name
    shapes   population -> shape, for all valid populations
    """

    name: str
    given: Value | Mapping[str, Value]
    default: float
    shapes: Mapping[str, Sequence[int]]

    def of(self, population: str) -> Value:
        """Return a population's value as given: a tensor stays on its device."""
        if isinstance(self.given, Mapping):
            return self.given.get(population, self.default)
        return self.given

    def on(self, population: str, like: Tensor) -> Value:
        """Return a population's value; a tensor gets the dtype and device of `like`."""
        value = self.of(population)
        return value.to(like) if isinstance(value, Tensor) else value

    def extremes(self, population: str) -> tuple[float, float]:
        """Return the least and the largest value."""
        value = self.of(population)
        if not isinstance(value, Tensor):
            return float(value), float(value)
        return _extremes(value) if value.device.type == "cpu" or value.is_inference() else _known_extremes(value)

    def check(self, *, zero: bool) -> None:
        """Refuse unknown populations, wrong shapes, negative values and, unless allowed, zero."""
        names = list(self.given if isinstance(self.given, Mapping) else self.shapes)
        if isinstance(self.given, float | int):
            names = names[:1]
        for population in names:
            known("population", population, self.shapes, where=self.name)
            self._check_one(population, self.of(population), zero)

    def _check_one(self, population: str, value: Value, zero: bool) -> None:
        said, shape = f"{self.name} of {population!r}", tuple(self.shapes[population])
        is_tensor = isinstance(value, Tensor) and not value.is_complex() and value.dtype != torch.bool
        if not (is_tensor or is_number(value)):
            raise ActrelaxError(f"{said} must be a number or a tensor, got {value!r}.")
        if isinstance(value, Tensor) and value.dim() > 0 and value.shape != shape:
            raise ActrelaxError(f"{said} must be a number or of shape {shape}, got {tuple(value.shape)}.")
        least, largest = self.extremes(population)
        if not ((least >= 0 if zero else least > 0) and largest < math.inf):
            wanted = "0 or positive" if zero else "positive"
            raise ActrelaxError(f"{said} must be {wanted}, got {least:g}.")
        if not zero and least < SMALLEST:
            raise ActrelaxError(f"{said} must be {SMALLEST:g} or more, got {least:g}.")


_KNOWN: MutableMapping[Tensor, tuple[int, tuple[float, float]]] = WeakTensorKeyDictionary()
"""Tensor on an accelerator -> its version and extremes."""


def _known_extremes(value: Tensor) -> tuple[float, float]:
    """Return a tensor's extremes from a cache, which avoids waiting for the device unless the tensor has changed."""
    version, extremes = _KNOWN.get(value, (-1, (0.0, 0.0)))
    if version != value._version:
        extremes = _extremes(value)
        _KNOWN[value] = value._version, extremes
    return extremes


def _extremes(value: Tensor) -> tuple[float, float]:
    """Return the least and the largest value, computed by NumPy to stay out of kernel traces."""
    numbers = value.detach().cpu().double().numpy()
    return float(numbers.min()), float(numbers.max())


def brief(value: Value | Mapping[str, Value]) -> str:
    """Return a value in short, for reprs: the number, or "given" for a tensor."""
    if isinstance(value, Mapping):
        return f"of {', '.join(value)} given"
    return "given" if isinstance(value, Tensor) and value.dim() > 0 else f"{float(value):g}"
