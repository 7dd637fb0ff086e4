"""How what was recorded is labelled: dimensions and coordinates, under names that NetCDF can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem

Units = Mapping[str, Sequence[int] | None]
"""Population -> indices into its flattened shape, None for all; of what was recorded as a population's activity."""

_NAME = re.compile(r"[A-Za-z0-9_\u0080-\U0010ffff]([^\x00-\x1f\x7f/]*[^\x00-\x1f\x7f/ ])?")


@dataclass(frozen=True)
class Label:
    """What labels one variable.

    dimensions   their names after time
    sizes        theirs
    coordinates  dimension -> what stands along it
    attributes   of the variable
    """

    dimensions: tuple[str, ...]
    sizes: tuple[int, ...]
    coordinates: Mapping[str, NDArray[np.int64]]
    attributes: Mapping[str, Any]


def labels(problem: RelaxationProblem, units: Units, kept: Mapping[str, Tensor]) -> dict[str, Label]:
    """Return the label of each variable; `kept` is what was kept at one point in time.

    A population's activity has dimensions (sample, NAME_unit), with the indices of its units into the flattened shape
    as a coordinate, and that shape as an attribute; anything else NAME_0, NAME_1, ...

    Raises
    ------
    ActrelaxError
        For a name that NetCDF can't hold or that is a dimension's, or an empty dimension.
    """
    found = {name: _label(problem, units, name, tuple(x.shape)) for name, x in kept.items()}
    taken = {"time", *(dimension for label in found.values() for dimension in label.dimensions)}
    for name, label in found.items():
        _check(name, label, taken)
    return found


def as_array(x: Tensor) -> NDArray[Any]:
    """Return a tensor in NumPy's memory and in a type that NetCDF has: it knows no floats below single precision."""
    x = x.detach().cpu()
    if x.is_floating_point() and x.dtype not in (torch.float32, torch.float64):
        x = x.to(torch.float32)
    return x.resolve_conj().resolve_neg().numpy()


def _label(problem: RelaxationProblem, units: Units, name: str, shape: tuple[int, ...]) -> Label:
    if name not in units:
        return Label(tuple(f"{name}_{i}" for i in range(len(shape))), shape, {}, {})
    population, chosen = problem.network.populations[name].shape, units[name]
    indices = np.asarray(range(int(np.prod(population))) if chosen is None else chosen, dtype=np.int64)
    along = f"{name}_unit"
    attributes = {"shape": np.asarray(population), "units": "1"}
    return Label(("sample", along), (shape[0], len(indices)), {along: indices}, attributes)


def _check(name: str, label: Label, taken: set[str]) -> None:
    if not _NAME.fullmatch(name):
        raise ActrelaxError(
            f"NetCDF can't hold the name {name!r}: begin with a letter, a digit or _, without slashes, control "
            "characters or a space at the end."
        )
    if name in taken:
        raise ActrelaxError(f"{name!r} can't be labelled, a dimension is called so: choose another name.")
    if 0 in label.sizes:
        raise ActrelaxError(f"{name!r} can't be labelled, it is empty, of shape {label.sizes}: leave it out.")
