"""Trajectories as labelled data: xarray's Dataset, and the NetCDF file it comes from and goes to."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5netcdf
import h5py
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem

if TYPE_CHECKING:
    from actrelax.models.trajectory import Trajectory

TIME_UNIT = "the unit of tau"


def labelled(trajectory: Trajectory) -> xr.Dataset:
    """Return what was recorded as a Dataset; without a recording the final state, as the only point in time.

    Returns
    -------
    xarray.Dataset
        A population's activity is of dimensions (time, sample, NAME_unit), its units in the order of its flattened
        shape, which is an attribute; what a function recorded has dimensions NAME_0, NAME_1, ... after time.
        Coordinates: time, in the unit of tau. Attributes: see `attributes`.
    """
    recorded, times = trajectory.recorded, trajectory.times
    if not times:
        recorded = {name: x[None] for name, x in trajectory.final.items()}
        times = (trajectory.time,)
    variables = {}
    for name, x in recorded.items():
        dimensions, extra = _dimensions(trajectory.problem, name, tuple(x.shape[1:]))
        sizes = [len(times), *(size for _, size in dimensions)]
        values = x.detach().cpu().reshape(sizes).numpy()
        variables[name] = (["time", *(dimension for dimension, _ in dimensions)], values, extra)
    coordinates = {"time": ("time", np.asarray(times), {"units": TIME_UNIT})}
    return xr.Dataset(variables, coordinates, attributes(trajectory))


def attributes(trajectory: Trajectory) -> dict[str, Any]:
    """Return what a file says about the relaxation: problem, assumptions, integrator, engine, status, versions."""
    problem = trajectory.problem
    named = next((name for name, preset in PRESETS.items() if preset == problem.assumptions), None)
    packages = ("actrelax", "numpy", "scipy", "torch", "brian2")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {
        "Conventions": "CF-1.11",
        "title": "activation relaxation",
        "problem": repr(problem),
        "assumptions": named or json.dumps(asdict(problem.assumptions)),
        "integrator": trajectory.integrator,
        "engine": trajectory.engine,
        "dt": trajectory.dt,
        "steps": trajectory.steps,
        "status": trajectory.status.value,
        "feedback_applications": trajectory.feedback_applications,
        "versions": json.dumps(versions),
    }


def save(trajectory: Trajectory, path: Path) -> None:
    """Write `labelled` as NetCDF; the file is replaced as a whole or not at all.

    Raises
    ------
    ActrelaxError
        If it can't be written.
    """
    dataset = labelled(trajectory)
    beside = path.with_name(f".{path.name}.new")
    with _written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            dataset.to_netcdf(beside, engine="h5netcdf")
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


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

    After each point in time it is whole on the disk: if the program is killed between two points, what it wrote can
    be opened; within the writing of a point, it may be damaged. Until it is closed HDF5 locks other programs out.

    Parameters
    ----------
    path : pathlib.Path
        Replaced if it is there.
    problem : RelaxationProblem
    """

    def __init__(self, path: Path, problem: RelaxationProblem) -> None:
        self.path, self.problem, self.length = path, problem, 0
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._disk = h5py.File(path, "w", track_order=True)
        self._file = h5netcdf.File(self._disk, "w")
        self._shapes: dict[str, tuple[int, ...]] = {}

    def append(self, time: float, kept: Mapping[str, Tensor]) -> None:
        """Write one point in time."""
        with _written(self.path):
            if self.length == 0:
                self._begin(kept)
            self.length += 1
            self._file.resize_dimension("time", self.length)
            self._disk["time"][self.length - 1] = time  # by h5py: h5netcdf looks up every dimension first
            for name, x in kept.items():
                values = x.detach().cpu().numpy()
                self._disk[name][self.length - 1] = values.reshape(self._disk[name].shape[1:])
            self._file.flush()  # of what h5netcdf keeps
            self._disk.flush()

    def drop_last(self) -> None:
        """Take back the last point in time."""
        self.length -= 1
        self._file.resize_dimension("time", self.length)

    def close(self) -> Mapping[str, Tensor]:
        """Close the file, and return what is in it, read when it is asked for."""
        self._file.close()
        self._disk.close()
        return Stored(self.path, self._shapes)

    def _begin(self, kept: Mapping[str, Tensor]) -> None:
        self._file.dimensions["time"] = None
        self._file.create_variable("time", ("time",), np.float64, chunks=(1024,)).attrs["units"] = TIME_UNIT
        for name, x in kept.items():
            self._shapes[name] = tuple(x.shape)
            dimensions, extra = _dimensions(self.problem, name, tuple(x.shape))
            for dimension, size in dimensions:
                if dimension not in self._file.dimensions:
                    self._file.dimensions[dimension] = size
            sizes = [size for _, size in dimensions]
            variable = self._file.create_variable(
                name, ("time", *(d for d, _ in dimensions)), x.detach().cpu().numpy().dtype, chunks=(1, *sizes)
            )
            variable.attrs.update(extra)


class Stored(Mapping[str, Tensor]):
    """Name -> (times, ...) out of a file, read when it is asked for.

    path  of the file; shapes  name -> shape at one point in time
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.path, self.shapes = path, shapes

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        with h5py.File(self.path) as file:
            return torch.as_tensor(file[name][...]).reshape(-1, *shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def describe_file(path: Path, trajectory: Trajectory) -> None:
    """Write a trajectory's attributes into the file that it was appended to."""
    with h5netcdf.File(path, "a") as file:
        file.attrs.update(attributes(trajectory))


def _dimensions(
    problem: RelaxationProblem, name: str, shape: tuple[int, ...]
) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Return (dimension, size) of a variable at one point in time, and its attributes."""
    population = problem.network.populations.get(name)
    batch = len(problem.clamped)
    if population is None or shape != (batch, *population.shape):
        return [(f"{name}_{i}", size) for i, size in enumerate(shape)], {}
    units = int(np.prod(population.shape))
    return [("sample", batch), (f"{name}_unit", units)], {"shape": np.asarray(population.shape), "units": "1"}
