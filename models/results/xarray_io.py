"""Trajectories as xarray Datasets, NetCDF files and Zarr stores."""

from __future__ import annotations

import json
import platform
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5netcdf
import h5py
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from actrelax.models._files import write_whole
from actrelax.models.errors import ActrelaxError, enough_memory
from actrelax.models.problem import InitialValueProblem, RelaxationProblem
from actrelax.models.results.problem_file import GROUP, problem_dataset

if TYPE_CHECKING:
    from actrelax.models.results.trajectory import Trajectory

Units = Mapping[str, Sequence[int] | None]
"""Recorded population -> indices of the recorded units into its flattened shape, or None for all units."""

_NAME = re.compile(r"[A-Za-z0-9_\u0080-\U0010ffff]([^\x00-\x1f\x7f/]*[^\x00-\x1f\x7f/ ])?")


@dataclass(frozen=True)
class Label:
    """The labels of one variable.

    dimensions   names of its dimensions, without time
    sizes        their lengths
    coordinates  dimension -> the values along it
    attributes   attributes of the variable
    """

    dimensions: tuple[str, ...]
    sizes: tuple[int, ...]
    coordinates: Mapping[str, NDArray[np.int64]]
    attributes: Mapping[str, Any]


def labels(problem: InitialValueProblem, units: Units, point: Mapping[str, Tensor]) -> dict[str, Label]:
    """Return name -> label of the variables recorded at one point in time.

    The activity of a population has the dimensions (sample, NAME_unit), the indices of its units into the flattened
    shape as a coordinate, and that shape as an attribute. Any other variable has the dimensions NAME_0, NAME_1, ...
    Refuses empty variables, names that NetCDF does not allow, and names of dimensions.
    """
    found = {name: _label(problem, units, name, tuple(x.shape)) for name, x in point.items()}
    taken = {"time", *(dimension for label in found.values() for dimension in label.dimensions)}
    for name, label in found.items():
        _check(name, label, taken)
    return found


def _label(problem: InitialValueProblem, units: Units, name: str, shape: tuple[int, ...]) -> Label:
    if name not in units:
        return Label(tuple(f"{name}_{i}" for i in range(len(shape))), shape, {}, {})
    population = problem.network.populations[problem.own_variables.get(name, name)].shape
    chosen = units[name]
    indices = np.asarray(range(int(np.prod(population))) if chosen is None else chosen, dtype=np.int64)
    along = f"{name}_unit"
    attributes = {"shape": np.asarray(population), "units": "1"}
    return Label(("sample", along), (shape[0], len(indices)), {along: indices}, attributes)


def _check(name: str, label: Label, taken: set[str]) -> None:
    if not _NAME.fullmatch(name):
        raise ActrelaxError(
            f"NetCDF does not allow the name {name!r}: begin with a letter, a digit or _, and use no slash, no control "
            "character and no space at the end."
        )
    if name in taken:
        raise ActrelaxError(f"{name!r} is also the name of a dimension: choose another name.")
    if 0 in label.sizes:
        raise ActrelaxError(f"{name!r} is empty, its shape is {label.sizes}: leave it out of the recording.")


def labelled(trajectory: Trajectory) -> xr.Dataset:
    """Return the recorded values as a Dataset; if nothing was recorded, the final state as its only point in time.

    Its dimensions are time and the ones that `labels` gives.
    """
    recorded, times, units = dict(trajectory.recorded), trajectory.times, trajectory.units
    if not times:
        recorded = {name: x[None] for name, x in trajectory.final.items()}
        times, units = (trajectory.time,), dict.fromkeys(recorded)
    found = labels(trajectory.problem, units, {name: x[0] for name, x in recorded.items()})
    return dataset_of(found, times, recorded, attributes(trajectory), trajectory.time_unit)


def dataset_of(
    found: Mapping[str, Label],
    times: Sequence[float],
    values: Mapping[str, Tensor],
    attributes: Mapping[str, Any],
    time_unit: str,
) -> xr.Dataset:
    """Return values, name -> (len(times), ...), as a Dataset with these labels."""
    variables = {}
    coordinates: dict[str, Any] = {"time": ("time", np.asarray(times, dtype=np.float64), {"units": time_unit})}
    for name, label in found.items():
        array = _as_array(values[name]).reshape(len(times), *label.sizes)
        variables[name] = (("time", *label.dimensions), array, label.attributes)
        coordinates |= {along: (along, indices) for along, indices in label.coordinates.items()}
    return xr.Dataset(variables, coordinates, attributes)


def _as_array(x: Tensor) -> NDArray[Any]:
    """Return a tensor as an array of a type known to NetCDF: half precision becomes single precision."""
    x = x.detach().cpu()
    if x.is_floating_point() and x.dtype not in (torch.float32, torch.float64):
        x = x.to(torch.float32)
    return x.resolve_conj().resolve_neg().numpy()


def about(
    problem: InitialValueProblem, integrator: str, engine: str, dt: float, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes known before a relaxation runs, without options that are None."""
    packages = ("actrelax", "numpy", "scipy", "torch", "brian2")
    assumed = {}
    if isinstance(problem, RelaxationProblem):
        assumed["assumptions"] = problem.assumptions.preset or json.dumps(asdict(problem.assumptions))
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {
        **{name: _plain(value) for name, value in options.items() if value is not None},
        "Conventions": "CF-1.11",
        "title": "activation relaxation",
        "problem": repr(problem),
        **assumed,
        "integrator": integrator,
        "engine": engine,
        "dt": dt,
        "versions": json.dumps(versions),
    }


def attributes(trajectory: Trajectory) -> dict[str, Any]:
    """Return the attributes of a finished relaxation: `about`, steps, status, feedback applications and products."""
    return {
        **about(trajectory.problem, trajectory.integrator, trajectory.engine, trajectory.dt, trajectory.options),
        "steps": trajectory.steps,
        "status": trajectory.status.value,
        "feedback_applications": trajectory.feedback_applications,
        **({} if trajectory.products is None else {"products": trajectory.products}),
    }


def _plain(value: object) -> str | int | float:
    """Convert an option's value to a type that attributes can hold."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    return int(value) if isinstance(value, Integral) else float(value)


def save(trajectory: Trajectory, path: Path) -> None:
    """Write `labelled`, and the problem as a group, to a NetCDF file; an existing one is replaced at the end.

    HDF5 writes to memory first: on a full disk it may end the process.
    """
    if path.suffix == ".zarr":
        raise ActrelaxError(f"save writes NetCDF, got {path}: end the path with .nc, or pass it to solve.")
    problem = problem_dataset(trajectory.problem, trajectory.arguments)
    dataset, content = labelled(trajectory), BytesIO()
    prepare(path)
    remedy = "record less, or pass solve a path that ends in .zarr"
    with enough_memory(f"the file {path}", remedy), h5netcdf.File(content, "w") as file:
        dataset.dump_to_store(xr.backends.H5NetCDFStore(file), unlimited_dims=["time"])
        problem.dump_to_store(xr.backends.H5NetCDFStore(file, group=GROUP, mode="a"))
    with writing(path):
        write_whole(path, content)


def prepare(path: Path) -> None:
    """Create the folder of a NetCDF file; refuse a path that is a folder."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into an ActrelaxError that names the path."""
    try:
        yield
    except OSError as error:
        raise ActrelaxError(f"can't write {path}: {error.strerror or error}.") from error


def open_trajectory(path: str | Path) -> xr.Dataset:
    """Open a trajectory's file: a NetCDF file, or a Zarr store written by `solve(..., path=...)`.

    Values are read from disk when used. A Zarr store can be opened while the relaxation runs or after the program was
    killed: its status is then "running", and it has all points in time that were completely written.

    Raises
    ------
    ActrelaxError
        If the path does not exist or is another kind of file.
    """
    is_store = Path(path).suffix == ".zarr"
    if is_store:
        require_zarr()
    try:
        if is_store:
            return _open_store(path)
        with h5py.File(path) as file:  # fail here first: h5netcdf leaves incomplete objects behind
            dict(file.attrs)
        return xr.open_dataset(path, engine="h5netcdf")
    except Exception as error:  # damaged files make h5netcdf raise nearly anything
        raise ActrelaxError(
            f"can't read {path} as a trajectory: it is missing, damaged or another kind of file."
        ) from error


def _open_store(path: str | Path) -> xr.Dataset:
    """Open the complete points in time of a Zarr store.

    Arrays are opened one by one, because an interrupted write leaves them with different lengths, which
    `xarray.open_zarr` refuses.
    """
    with warnings.catch_warnings():  # about files that a killed program had yet to rename
        warnings.filterwarnings("ignore", r"Object at .*\.partial is not recognized as a component of a Zarr hierarchy")
        store = xr.backends.ZarrStore.open_group(str(path), mode="r", consolidated=False, cache_members=False)
        attributes = dict(store.get_attrs())
        points, names = attributes.pop("points"), attributes.pop("variables")
        arrays = {name: store.open_store_variable(name) for name in names}
    whole = {name: x.isel(time=slice(points), missing_dims="ignore") for name, x in arrays.items()}
    return xr.decode_cf(xr.Dataset(whole, attrs=attributes))


def require_zarr() -> None:
    """Raise an `ActrelaxError` if zarr is not installed."""
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise ActrelaxError(
            'a path that ends in .zarr needs the package zarr: pip install "actrelax[zarr]".'
        ) from error
