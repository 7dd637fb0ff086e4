"""A Zarr store that grows block by block while a relaxation runs, for recordings larger than memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
import zarr
from torch import Tensor

from actrelax.models._files import partial_of
from actrelax.models.problem import InitialValueProblem
from actrelax.models.results.problem_file import GROUP, problem_dataset
from actrelax.models.results.trajectory import time_unit_of
from actrelax.models.results.xarray_io import Units, about, attributes, dataset_of, labels, writing

if TYPE_CHECKING:
    from actrelax.models.results.trajectory import Trajectory

BLOCK_POINTS, BLOCK_BYTES = 64, 2**24
"""Largest block, in points in time and in bytes; a block has at least one point."""


class ZarrWriter:
    """A Zarr store to which points in time are appended; an existing store is replaced.

    The attribute ``points`` counts the complete points. It is updated after each block, by a rename, so a killed
    program loses only the current block. The last point stays in memory until the next one or the end, and can be
    removed. `run` holds the other arguments of `about`, `arguments` the arguments of `solve`; `point` has the names,
    shapes and types of every point.
    """

    def __init__(
        self,
        path: Path,
        problem: InitialValueProblem,
        run: Mapping[str, Any],
        units: Units,
        point: Mapping[str, Tensor],
        arguments: Mapping[str, Any],
    ) -> None:
        self.path, self.points, self._time_unit = path, 0, time_unit_of(problem, run.get("engine", ""))
        self._labels = labels(problem, units, point)
        self._attributes = {**about(problem, **run), "status": "running"}
        self._block: list[tuple[float, Mapping[str, Tensor]]] = []
        size = sum(x.numel() * x.element_size() for x in point.values())
        self._length = max(1, min(BLOCK_POINTS, BLOCK_BYTES // max(1, size)))
        self.recorded = StoredValues(path, {name: (tuple(x.shape), x.dtype) for name, x in point.items()})
        self._create(
            self._dataset([], {name: x[None][:0] for name, x in point.items()}), problem_dataset(problem, arguments)
        )

    def append(self, time: float, point: Mapping[str, Tensor]) -> None:
        """Add one point in time, after writing a full block."""
        if len(self._block) == self._length:
            self.flush()
        self._block.append((time, point))

    def pop(self) -> None:
        """Remove the last point in time."""
        self._block.pop()

    def flush(self) -> None:
        """Write the points in memory; after an incomplete block no more points may be appended."""
        block, self._block = self._block, []  # a block that can't be written is not retried
        if block:
            values = {name: torch.stack([point[name] for _, point in block]) for name in self._labels}
            dataset = self._dataset([time for time, _ in block], values)
            with writing(self.path):
                dataset.to_zarr(self.path, mode="a-", append_dim="time", consolidated=False)
                self.points += len(block)
                self._write_attributes()

    def finish(self, trajectory: Trajectory | None) -> None:
        """Write the points in memory and the final attributes; without a trajectory, the relaxation failed."""
        self._attributes |= {"status": "failed"} if trajectory is None else attributes(trajectory)
        self.flush()
        with writing(self.path):
            self._write_attributes()

    def _create(self, empty: xr.Dataset, problem: xr.Dataset) -> None:
        """Replace any store at the path with one without points."""
        self._attributes["variables"] = [*empty.variables]
        over_time = {name: x.shape[1:] for name, x in empty.variables.items() if "time" in x.dims}
        encoding = {name: {"chunks": (self._length, *sizes)} for name, sizes in over_time.items()}
        empty = empty.assign_attrs(self._attributes)
        with writing(self.path):
            path = self.path.resolve()  # keep a symbolic link
            partial, earlier = partial_of(path), partial_of(path)
            if self.path.is_file():
                raise FileExistsError("it is a file")
            if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "zarr.json").exists():
                raise FileExistsError("it is a folder with other files")
            try:  # readers find a complete store or none
                empty.to_zarr(partial, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
                problem.to_zarr(partial, group=GROUP, mode="a", zarr_format=3, consolidated=False)
                if path.is_dir():  # moved whole, so that a killed program leaves no partly deleted store
                    os.replace(path, earlier)
                os.replace(partial, path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(earlier, ignore_errors=True)

    def _dataset(self, times: Sequence[float], values: Mapping[str, Tensor]) -> xr.Dataset:
        return dataset_of(self._labels, times, values, {**self._attributes, "points": self.points}, self._time_unit)

    def _write_attributes(self) -> None:
        zarr.open_group(self.path, mode="r+").attrs.put({**self._attributes, "points": self.points})


class StoredValues(Mapping[str, Tensor]):
    """Name -> (times, ...) in a Zarr store, read when a name is looked up.

    path   path of the store
    forms  name -> (shape at one point in time, dtype)
    """

    def __init__(self, path: Path, forms: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        self.path, self.forms = path, forms

    def __getitem__(self, name: str) -> Tensor:
        shape, dtype = self.forms[name]
        points = zarr.open_group(self.path, mode="r").attrs["points"]
        values = zarr.open_array(self.path, path=name, mode="r")[:points]
        return torch.as_tensor(values).reshape(-1, *shape).to(dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)
