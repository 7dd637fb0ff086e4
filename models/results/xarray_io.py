"""Trajectories as labelled data: xarray's Dataset, and the NetCDF file it comes from and goes to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5netcdf
import h5py
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results.files import beside
from actrelax.models.results.labels import Units, as_array, labels
from actrelax.models.results.versions import installed

if TYPE_CHECKING:
    from actrelax.models.results.trajectory import Trajectory

TIME_UNIT = "the unit of tau"


def labelled(trajectory: Trajectory) -> xr.Dataset:
    """Return what was recorded as a Dataset; without a recording the final state, as the only point in time.

    Returns
    -------
    xarray.Dataset
        A population's activity is of dimensions (time, sample, NAME_unit), with the indices of its units into the
        flattened shape as the coordinate NAME_unit, and that shape as an attribute; what else a function recorded
        has dimensions NAME_0, NAME_1, ... after time. Coordinate: time, in the unit of tau. Attributes: see
        `attributes`.

    Raises
    ------
    ActrelaxError
        For names that clash, or that NetCDF can't hold.
    """
    recorded, times, units = dict(trajectory.recorded), trajectory.times, trajectory.units
    if not times:
        recorded = {name: x[None] for name, x in trajectory.final.items()}
        times, units = (trajectory.time,), dict.fromkeys(recorded)
    found = labels(trajectory.problem, units, {name: x[0] for name, x in recorded.items()})
    variables, coordinates = {}, {"time": ("time", np.asarray(times), {"units": TIME_UNIT})}
    for name, label in found.items():
        values = as_array(recorded[name]).reshape(len(times), *label.sizes)
        variables[name] = (("time", *label.dimensions), values, label.attributes)
        coordinates |= {along: (along, indices, {}) for along, indices in label.coordinates.items()}
    return xr.Dataset(variables, coordinates, attributes(trajectory))


def about(
    problem: RelaxationProblem, *, integrator: str, engine: str, dt: float, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is known of a relaxation before it runs: problem, assumptions, integrator, engine, options, versions.

    Options that were not given are not among them.
    """
    return {
        **{name: _plain(value) for name, value in options.items() if value is not None},
        "Conventions": "CF-1.11",
        "title": "activation relaxation",
        "problem": repr(problem),
        "assumptions": problem.assumptions.preset or json.dumps(asdict(problem.assumptions)),
        "integrator": integrator,
        "engine": engine,
        "dt": dt,
        "versions": json.dumps(installed("actrelax", "numpy", "scipy", "torch", "brian2")),
    }


def attributes(trajectory: Trajectory) -> dict[str, Any]:
    """Return what a file says about a relaxation that has ended: `about`, and how it ended."""
    return {
        **about(
            trajectory.problem,
            integrator=trajectory.integrator,
            engine=trajectory.engine,
            dt=trajectory.dt,
            options=trajectory.options,
        ),
        "steps": trajectory.steps,
        "status": trajectory.status.value,
        "feedback_applications": trajectory.feedback_applications,
    }


def _plain(value: object) -> str | int | float:
    """Return an option as what an attribute can be."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    return int(value) if isinstance(value, Integral) else float(value)


def save(trajectory: Trajectory, path: Path) -> None:
    """Write `labelled` as NetCDF; the file is replaced as a whole or not at all.

    Raises
    ------
    ActrelaxError
        If it can't be written.
    """
    dataset = labelled(trajectory)
    with _written(path), beside(path) as place:
        dataset.to_netcdf(place, engine="h5netcdf")


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Say what it was that could not be written."""
    try:
        yield
    except OSError as error:
        raise ActrelaxError(f"can't write {path}: {error.strerror or error}.") from error


def open_trajectory(path: str | Path) -> xr.Dataset:
    """Open what `Trajectory.save` or `solve(..., path=)` wrote; its values are read when they are needed.

    Raises
    ------
    ActrelaxError
        If there is no such file, or it is something else.
    """
    try:
        with h5py.File(path) as file:  # h5netcdf leaves half-made objects behind where this fails
            dict(file.attrs)
        return xr.open_dataset(path, engine="h5netcdf")
    except Exception as error:  # damaged files make h5netcdf raise nearly anything
        raise ActrelaxError(
            f"{path} can't be read as a trajectory: it is missing, still being written, damaged or something else."
        ) from error


class Appender:
    """A NetCDF file that grows with a relaxation.

    After each point in time it is whole on the disk, with the status "running" until the relaxation has ended: if the
    program is killed between two points, what it wrote can be opened; within the writing of a point, it may be
    damaged. Until then HDF5 locks other programs out. One that has HDF5_USE_FILE_LOCKING=FALSE in its environment can
    look all the same, by ``open_trajectory(path).load()``, at once and between two points: values that it reads later,
    or while a point is written, can be wrong.

    Parameters
    ----------
    path : pathlib.Path
        Replaced if it is there.
    problem : RelaxationProblem
    run : mapping
        The other arguments of `about`.
    units : mapping
        Population -> indices, None for all, of what is a population's activity.
    kept : mapping
        What will be appended first; the file is not touched if it can't be labelled.
    """

    def __init__(
        self, path: Path, problem: RelaxationProblem, run: Mapping[str, Any], units: Units, kept: Mapping[str, Tensor]
    ) -> None:
        self.path, self.length = path, 0
        self._labels = labels(problem, units, kept)
        self._attributes = {**about(problem, **run), "status": "running"}
        self.stored = Stored(path, {name: (tuple(x.shape), x.dtype) for name, x in kept.items()})
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_in_use(path)
            self._disk = h5py.File(path, "w", track_order=True)
        self._file = h5netcdf.File(self._disk, "w")

    def append(self, time: float, kept: Mapping[str, Tensor]) -> None:
        """Write one point in time."""
        with _written(self.path):
            if self.length == 0:
                self._begin(kept)
            self.length += 1
            self._file.resize_dimension("time", self.length)
            self._disk["time"][self.length - 1] = time  # by h5py: h5netcdf looks up every dimension first
            for name, x in kept.items():
                self._disk[name][self.length - 1] = as_array(x).reshape(self._labels[name].sizes)
            self._file.flush()  # of what h5netcdf keeps
            self._disk.flush()

    def drop_last(self) -> None:
        """Take back the last point in time."""
        self.length -= 1
        self._file.resize_dimension("time", self.length)

    def finish(self, trajectory: Trajectory) -> None:
        """Write how it ended, and close the file."""
        with _written(self.path):
            self._file.attrs.update(attributes(trajectory))
            self.close()

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()
        self._disk.close()

    def _begin(self, kept: Mapping[str, Tensor]) -> None:
        file = self._file
        file.attrs.update(self._attributes)
        file.dimensions["time"] = None
        file.create_variable("time", ("time",), np.float64, chunks=(1024,)).attrs["units"] = TIME_UNIT
        for name, label in self._labels.items():
            for dimension, size in zip(label.dimensions, label.sizes, strict=True):
                if dimension not in file.dimensions:
                    file.dimensions[dimension] = size
            for along, indices in label.coordinates.items():
                file.create_variable(along, (along,), indices.dtype, data=indices)
            dtype, extra = as_array(kept[name]).dtype, dict(label.attributes)
            if dtype.kind == "b":  # as xarray writes it, and reads it again
                dtype, extra["dtype"] = np.dtype(np.int8), "bool"
            variable = file.create_variable(name, ("time", *label.dimensions), dtype, chunks=(1, *label.sizes))
            variable.attrs.update(extra)


def _refuse_in_use(path: Path) -> None:
    """Raise an OSError for a file that another process has open: to replace it HDF5 truncates first, then locks."""
    if path.is_file():
        try:
            h5py.File(path, "r+").close()
        except BlockingIOError as error:
            raise OSError(error.errno, "another process has it open") from None
        except OSError:
            pass  # no HDF5: replaced


class Stored(Mapping[str, Tensor]):
    """Name -> (times, ...) out of a file, read when it is asked for.

    path  of the file; forms  name -> shape at one point in time, and type
    """

    def __init__(self, path: Path, forms: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        self.path, self.forms = path, forms

    def __getitem__(self, name: str) -> Tensor:
        shape, dtype = self.forms[name]
        with h5py.File(self.path) as file:
            return torch.as_tensor(file[name][...]).reshape(-1, *shape).to(dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)
