"""Conversion of NumPy and Brian2 arguments to plain numbers, tensors and torch generators."""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping
from numbers import Real
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError

GeneratorLike = torch.Generator | np.random.Generator | np.random.RandomState | int
"""A generator, or a seed for a new one."""

MS = "ms"
"""The unit of times given as Brian2 quantities."""

_PLAIN = (float, int, str, NoneType, Tensor)
"""Types of values that need no conversion; checked first, because every batch makes a problem."""


def as_generator(given: GeneratorLike | None) -> torch.Generator | None:
    """Return a torch generator: the given one, or a new one seeded by a number or a NumPy generator.

    Examples
    --------
    >>> torch.rand(1, generator=as_generator(7)) == torch.rand(1, generator=torch.Generator().manual_seed(7))
    tensor([True])
    """
    if given is None or isinstance(given, torch.Generator):
        return given
    if isinstance(given, np.random.Generator):
        return torch.Generator().manual_seed(int(given.integers(2**63)))
    if isinstance(given, np.random.RandomState):
        return torch.Generator().manual_seed(given.randint(2**31))
    try:
        seed = -1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        seed = -1
    if not 0 <= seed < 2**63:
        raise ActrelaxError(
            f"generator must be a torch.Generator, a np.random.Generator or a seed, 0 or more, got {given!r}: pass "
            "torch.Generator().manual_seed(0)."
        )
    return torch.Generator().manual_seed(seed)


def as_number(value: Any) -> Any:
    """Return a NumPy number or a 0-dimensional array or tensor as a Python number, anything else unchanged.

    Examples
    --------
    >>> as_number(np.array(0.5)), as_number(torch.tensor(3)), as_number("a")
    (0.5, 3, 'a')
    """
    if type(value) in (float, int):
        return value
    if is_quantity(value):
        return np.asarray(value).item() if _is_dimensionless(value) and np.ndim(value) == 0 else value
    if isinstance(value, np.number) or (isinstance(value, np.ndarray | Tensor) and value.ndim == 0):
        if isinstance(value, np.float16 | np.float32 | np.ndarray) and value.dtype in (np.float16, np.float32):
            return float(str(value))  # np.float32(0.1) is 0.1: times are counted in steps
        found = value.item()
        return found if isinstance(found, Real) else value
    return value


def as_values(value: Any) -> Any:
    """Return NumPy arrays as tensors and scalars as Python numbers; convert a mapping value by value."""
    if type(value) in _PLAIN or isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        return {name: as_values(each) for name, each in value.items()}
    if is_quantity(value) and _is_dimensionless(value):
        value = np.asarray(value)
    if type(value) is np.ndarray and value.ndim > 0 and value.dtype.kind in "iuf":
        keeps_type = value.dtype in (np.float32, np.float64)
        return torch.from_numpy(np.array(value, dtype=None if keeps_type else np.float64, order="C"))
    return as_number(value)


def is_quantity(value: object) -> bool:
    """Return whether a value is a Brian2 quantity, without importing Brian2."""
    if type(value) in _PLAIN:
        return False
    brian2 = sys.modules.get("brian2")
    return brian2 is not None and isinstance(value, getattr(brian2, "Quantity", ()))


def without_unit(**times: Any) -> tuple[dict[str, Any], str | None]:
    """Return times as plain numbers or tensors, and their unit: "ms" or None.

    Each time is a number, an array or a mapping of these. Brian2 quantities become numbers in ms. A mix of quantities
    and numbers is refused, except for 0 and None, which need no unit.
    """
    units: dict[str, str | None] = {}
    plain = {name: _in_ms(name, value, units) for name, value in times.items()}
    if len(set(units.values())) > 1:
        having, bare = (next(name for name, unit in units.items() if unit == which) for which in (MS, None))
        raise ActrelaxError(
            f"{having} is a Brian2 quantity and {bare} is a number: give all times as quantities, or all as numbers."
        )
    return plain, next(iter(units.values()), None)


def _in_ms(name: str, value: Any, units: dict[str, str | None]) -> Any:
    if isinstance(value, Mapping):
        return {key: _in_ms(f"{name} of {key!r}", each, units) for key, each in value.items()}
    if not is_quantity(value) or _is_dimensionless(value):
        value = as_values(value)
        if value is not None and not (isinstance(value, Real) and value == 0):
            units[name] = None
        return value
    brian2 = sys.modules["brian2"]
    if not brian2.have_same_dimensions(value, brian2.ms):
        raise ActrelaxError(f"{name} must be a time, got {value!r}: give 10 * ms, or 10.0 in the unit of tau.")
    units[name] = MS
    return as_values(_rounded(np.asarray(value / brian2.ms)))


_rounded = np.vectorize(lambda x: float(f"{x:.15g}"), otypes=[np.float64])
"""Rounding to 15 digits, so that 0.3 * ms becomes 0.3."""


def _is_dimensionless(quantity: Any) -> bool:
    return bool(sys.modules["brian2"].is_dimensionless(quantity))
