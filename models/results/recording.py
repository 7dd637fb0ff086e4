"""Recording during a relaxation: the choice of values, and the values recorded so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from actrelax.models._names import known, whole_number
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import InitialValueProblem, State

if TYPE_CHECKING:
    from actrelax.models.results.trajectory import Trajectory
    from actrelax.models.results.zarr_store import ZarrWriter

Function = Callable[[State], Mapping[str, Any]]
Recordable = bool | str | Iterable[str] | Mapping[str, Sequence[int]] | Function


@dataclass(frozen=True)
class Record:
    """Values to record during a relaxation, the interval, and the file.

    Parameters
    ----------
    what : bool, str, sequence of str, mapping, or callable, default True
        Values to record. True: all hidden populations and the output; False: nothing; names: these populations; a
        mapping, population -> indices into its flattened shape: these units, as (batch, indices); a function of the
        state: its result. Names may also be variables NAME.0, NAME.1, ... of units with dynamics. A function gets
        population or variable -> (batch, *shape), which it must not change, and returns name -> tensor, NumPy array
        or number, with the same names, shapes and types each time. If the relaxation diverges, the steps are repeated
        to find the first non-finite one, and the function is called again.
    every : int, default 1
        Record the start and every `every`-th step.
    path : str or pathlib.Path, optional
        File for the recorded values; `open_trajectory` reads it. A path that ends in .zarr is a Zarr store, which needs
        the package zarr. It grows while the relaxation runs, in blocks of up to 64 points in time or 16 MiB, of which
        memory holds one at most; an existing store is replaced at the start. Any other path is a NetCDF file, written
        or replaced when the relaxation has ended or diverged.

    Raises
    ------
    ActrelaxError
        If `every` is below 1, or `path` is given without values to record.
    """

    what: Recordable = True
    every: int = 1
    path: str | Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", whole_number("every", self.every, least=1))
        if self.path is not None and self.what is False:
            raise ActrelaxError("path needs values to record, got what=False: pass what=True.")


@dataclass(frozen=True)
class RecordSpec:
    """The choice of values to record.

    function  (population -> activities) -> (name -> tensor, NumPy array or number)
    chosen    population -> indices into its flattened shape, if only some of its units are recorded
    """

    function: Function
    chosen: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __call__(self, state: State) -> dict[str, Tensor]:
        """Return name -> tensor; refuse a function that returns anything else."""
        values = self.function(state)
        if not isinstance(values, Mapping):
            raise ActrelaxError(
                f"a function to record must return a mapping, name -> tensor, got {type(values).__name__}."
            )
        return {name: _as_tensor(name, x) for name, x in values.items()}


@dataclass
class History:
    """The values recorded so far, in memory or in a Zarr store.

    problem    the relaxation problem
    record     values to record, interval and file
    about      the file's attributes known at the start: integrator, engine, dt, options
    arguments  the arguments of `solve`
    times      times of the records
    units      recorded population -> indices of the recorded units, or None for all units
    """

    problem: InitialValueProblem
    record: Record
    about: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    units: dict[str, Sequence[int] | None] = field(default_factory=dict)
    _points: list[Mapping[str, Tensor]] = field(default_factory=list)
    _first: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _store: ZarrWriter | None = None

    def __post_init__(self) -> None:
        self.spec = record_spec(self.problem, self.record.what)
        self.every, self.path = self.record.every, None if self.record.path is None else Path(self.record.path)

    def is_due(self, step: int) -> bool:
        """Return whether this step is recorded."""
        return self.spec is not None and step % self.every == 0

    def keep(self, time: float, state: State) -> None:
        """Record a state; refuse values with other names, shapes or types than the first ones."""
        assert self.spec is not None
        point = self.spec(recordable(self.problem, state))
        self._check_form(time, point)
        if not self.times and self.path is not None:
            self._prepare(self.path, point)
        if self._store is None:
            self._points.append(point)
        else:
            self._store.append(time, point)
        self.times.append(time)

    def forget(self) -> None:
        """Discard all records, to start again."""
        self.times.clear()
        self._points.clear()
        self._store = None

    def forget_last(self) -> None:
        """Discard the last record."""
        self.times.pop()
        if self._store is None:
            self._points.pop()
        else:
            self._store.pop()

    def finish(self, trajectory: Trajectory | None) -> None:
        """Write the file, if any; without a trajectory the relaxation has failed, and no NetCDF file is written."""
        if self._store is not None:
            self._store.finish(trajectory)
        elif self.path is not None and trajectory is not None:
            trajectory.save(self.path)

    def recorded(self) -> Mapping[str, Tensor]:
        """Return name -> (len(times), ...); values in a Zarr store are read when a name is looked up."""
        if self._store is not None:
            return self._store.recorded
        names = self._points[0] if self._points else {}
        return {name: torch.stack([point[name] for point in self._points]) for name in names}

    def _prepare(self, path: Path, point: Mapping[str, Tensor]) -> None:
        """Create the Zarr store, or refuse values and paths that NetCDF could not write at the end."""
        from actrelax.models.results import xarray_io  # xarray takes a second to load

        if path.suffix == ".zarr":
            xarray_io.require_zarr()
            from actrelax.models.results.zarr_store import ZarrWriter

            self._store = ZarrWriter(path, self.problem, self.about, self.units, point, self.arguments)
        else:
            xarray_io.labels(self.problem, self.units, point)
            xarray_io.prepare(path)

    def _check_form(self, time: float, point: Mapping[str, Tensor]) -> None:
        """Remember the names, shapes and types of the first record; refuse later ones that differ."""
        form: dict[str, tuple[object, ...]] = {name: (tuple(x.shape), x.dtype) for name, x in point.items()}
        if not self.times:
            assert self.spec is not None
            chosen = self.spec.chosen
            activities = [name for name, x in point.items() if name in chosen or self._is_activity(name, x)]
            self._first, self.units = form, {name: chosen.get(name) for name in activities}
        if form.keys() != self._first.keys():
            before, now = (", ".join(map(repr, names)) or "nothing" for names in (self._first, form))
            raise ActrelaxError(
                f"the recorded names were {before} at first, got {now} at time {time:g}: return the same names."
            )
        for name, (shape, dtype) in form.items():
            if (shape, dtype) != self._first[name]:
                then, of = self._first[name]
                raise ActrelaxError(
                    f"{name!r} was recorded with shape {then} in {of} at first and with shape {shape} in {dtype} at "
                    f"time {time:g}: return the same shape and type."
                )

    def _is_activity(self, name: str, x: Tensor) -> bool:
        populations, owner = self.problem.network.populations, self.problem.own_variables.get(name, name)
        population = populations.get(owner)
        return population is not None and tuple(x.shape) == (len(self.problem.like), *population.shape)


def populations(problem: InitialValueProblem, state: State) -> State:
    """Return copies of the activities that a problem knows, without the input, in topological order.

    They have the state's dtype.
    """
    activities = problem.activities(state)
    like = next(iter(state.values()), problem.like)
    names = [name for name in [*problem.network.hidden, problem.network.output] if name in activities]
    return {name: activities[name].to(like, copy=True) for name in names}


def recordable(problem: InitialValueProblem, state: State) -> State:
    """Return `populations`, and the variables of units with dynamics."""
    return {**populations(problem, state), **{name: state[name] for name in problem.own_variables}}


def record_spec(problem: InitialValueProblem, record: Recordable) -> RecordSpec | None:
    """Return the spec of `Record.what`; None for False."""
    if record is False:
        return None
    if callable(record):
        return RecordSpec(record)
    everything = [*problem.network.hidden, problem.network.output]
    names_known = [*everything, *problem.own_variables]
    if isinstance(record, Mapping):
        names = [known("population", name, names_known, where="record") for name in record]
        units = {name: _units(problem, name, record[name]) for name in names}
        return RecordSpec(lambda state: {name: state[name].flatten(1)[:, units[name]] for name in units}, units)
    if record is True:
        names = everything
    else:
        names = [known("population", name, names_known, where="record") for name in _listed(record)]
    return RecordSpec(lambda state: {name: state[name] for name in names})


def _listed(record: str | Iterable[str]) -> list[str]:
    if isinstance(record, str):
        return [record]
    try:
        return list(record)
    except TypeError:
        raise ActrelaxError(
            f"record must be True or False, names of populations, population -> units, or a function, got {record!r}."
        ) from None


def _units(problem: InitialValueProblem, name: str, chosen: Sequence[int]) -> list[int]:
    population = problem.network.populations[problem.own_variables.get(name, name)]
    return chosen_units(name, chosen, math.prod(population.shape))


def chosen_units(name: str, chosen: Sequence[int], size: int) -> list[int]:
    """Return the chosen ones of a population's `size` units as a list of integers."""
    try:
        indices = np.asarray(chosen)
    except (TypeError, ValueError):  # lists of different lengths, or a tensor on a GPU
        indices = np.empty(0)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ActrelaxError(f"units of {name!r} must be a list of whole numbers, 0 to {size - 1}, got {chosen!r}.")
    for unit in indices.tolist():
        if not 0 <= unit < size:
            raise ActrelaxError(f"population {name!r} has units 0 to {size - 1}, got {unit}.")
    return [int(unit) for unit in indices]


def _as_tensor(name: object, x: object) -> Tensor:
    """Return a value of a recording function as a tensor; arrays and numbers are copied."""
    if not isinstance(name, str):
        raise ActrelaxError(f"a function to record must return a mapping, name -> tensor, got the name {name!r}.")
    if isinstance(x, Tensor):
        return x
    try:
        return torch.from_numpy(np.array(x, order="C"))
    except (TypeError, ValueError):
        raise ActrelaxError(
            f"a function to record must return tensors, arrays or numbers, got {type(x).__name__} for {name!r}."
        ) from None
