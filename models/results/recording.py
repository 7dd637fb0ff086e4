"""What a relaxation leaves on its way: kept in memory, or appended to a NetCDF file while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, State

if TYPE_CHECKING:
    from actrelax.models.results.trajectory import Trajectory
    from actrelax.models.results.xarray_io import Appender

Function = Callable[[State], Mapping[str, Any]]
Record = bool | str | Iterable[str] | Mapping[str, Sequence[int]] | Function


@dataclass(frozen=True)
class Recorder:
    """What is kept of a state.

    function  population -> activities, to name -> tensor, NumPy array or number
    chosen    population -> indices into its flattened shape, where only some units are kept
    """

    function: Function
    chosen: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __call__(self, state: State) -> dict[str, Tensor]:
        """Return name -> tensor.

        Raises
        ------
        ActrelaxError
            If the function returned something else.
        """
        kept = self.function(state)
        if not isinstance(kept, Mapping):
            raise ActrelaxError(
                f"a function to record must return a mapping, name -> tensor, got one of type {type(kept).__name__}."
            )
        return {name: _as_tensor(name, x) for name, x in kept.items()}


@dataclass
class Recording:
    """What is kept of the states that pass by.

    problem   whose populations these are
    recorder  what is kept of each; None keeps nothing
    every     keep the start and every so many steps
    path      a file to append to, in place of memory
    about     what the file says about the run from its beginning: integrator, engine, dt, options
    times     of what was kept
    units     population -> indices, None for all, of what was kept as a population's activity
    """

    problem: RelaxationProblem
    recorder: Recorder | None
    every: int = 1
    path: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    units: dict[str, Sequence[int] | None] = field(default_factory=dict)
    _kept: list[Mapping[str, Tensor]] = field(default_factory=list)
    _first: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _file: Appender | None = None

    def is_due(self, step: int) -> bool:
        """Whether this step is kept."""
        return self.recorder is not None and step % self.every == 0

    def keep(self, time: float, state: State) -> None:
        """Keep what is asked for of a state.

        Raises
        ------
        ActrelaxError
            If it is nothing that can be kept, or of another form than what was kept first.
        """
        assert self.recorder is not None
        kept = self.recorder(populations(self.problem, state))
        self._check_form(time, kept)
        if self.path is None:
            self._kept.append(kept)
        else:
            if self._file is None:
                from actrelax.models.results.xarray_io import Appender  # xarray takes a second to load

                self._file = Appender(self.path, self.problem, self.about, self.units, kept)
            self._file.append(time, kept)
        self.times.append(time)

    def forget(self) -> None:
        """Forget everything, to begin anew."""
        self.times.clear()
        self._kept.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def forget_last(self) -> None:
        """Forget what was kept last."""
        self.times.pop()
        if self._file is None:
            self._kept.pop()
        else:
            self._file.drop_last()

    def release(self) -> None:
        """Close the file, if it is still open because something went wrong."""
        if self._file is not None:
            self._file.close()

    def finish(self, trajectory: Trajectory) -> None:
        """Write into the file how the relaxation ended, and close it."""
        if self._file is not None:
            self._file.finish(trajectory)

    def kept(self) -> Mapping[str, Tensor]:
        """Return name -> (len(times), ...): what was kept; out of a file it can be read once that is finished."""
        if self._file is not None:
            return self._file.stored
        names = self._kept[0] if self._kept else {}
        return {name: torch.stack([kept[name] for kept in self._kept]) for name in names}

    def _check_form(self, time: float, kept: Mapping[str, Tensor]) -> None:
        """Take the form of what is kept first, and hold everything later against it."""
        form: dict[str, tuple[object, ...]] = {name: (tuple(x.shape), x.dtype) for name, x in kept.items()}
        if not self.times:
            assert self.recorder is not None
            chosen = self.recorder.chosen
            activities = [name for name, x in kept.items() if name in chosen or self._is_activity(name, x)]
            self._first, self.units = form, {name: chosen.get(name) for name in activities}
        if form.keys() != self._first.keys():
            before, now = (", ".join(map(repr, names)) or "nothing" for names in (self._first, form))
            raise ActrelaxError(f"recorded was {before} at first and {now} at time {time:g}: return the same names.")
        for name, (shape, dtype) in form.items():
            if (shape, dtype) != self._first[name]:
                then, of = self._first[name]
                raise ActrelaxError(
                    f"{name!r} was recorded with shape {then} in {of} at first and with shape {shape} in {dtype} at "
                    f"time {time:g}: return the same shape and type."
                )

    def _is_activity(self, name: str, x: Tensor) -> bool:
        population = self.problem.network.populations.get(name)
        return population is not None and tuple(x.shape) == (len(self.problem.clamped), *population.shape)


def populations(problem: RelaxationProblem, state: State) -> State:
    """Return activities of hidden populations and the clamped output, in topological order and the state's type."""
    activities = problem.activities(state)
    like = next(iter(state.values()), problem.clamped)
    return {name: activities[name].to(like) for name in [*problem.network.hidden, problem.network.output]}


def recorder_of(problem: RelaxationProblem, record: Record) -> Recorder | None:
    """Return what `record` means of a state.

    Raises
    ------
    ActrelaxError
        For an unknown population, a unit that it has not, or something else altogether.
    """
    if record is False:
        return None
    if callable(record):
        return Recorder(record)
    everything = [*problem.network.hidden, problem.network.output]
    if isinstance(record, Mapping):
        names = [known("population", name, everything, where="record") for name in record]
        units = {name: _units(problem, name, record[name]) for name in names}
        return Recorder(lambda state: {name: state[name].flatten(1)[:, units[name]] for name in units}, units)
    if record is True:
        names = everything
    else:
        names = [known("population", name, everything, where="record") for name in _listed(record)]
    return Recorder(lambda state: {name: state[name] for name in names})


def _listed(record: str | Iterable[str]) -> list[str]:
    if isinstance(record, str):
        return [record]
    try:
        return list(record)
    except TypeError:
        raise ActrelaxError(
            f"record must be True or False, names of populations, population -> units, or a function, got {record!r}."
        ) from None


def _units(problem: RelaxationProblem, name: str, chosen: Sequence[int]) -> list[int]:
    """Return the chosen units of a population as plain numbers."""
    size = math.prod(problem.network.populations[name].shape)
    try:
        indices = np.asarray(chosen)
    except (TypeError, ValueError):  # of different lengths, on a GPU
        indices = np.empty(0)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ActrelaxError(
            f"units of {name!r} are chosen by a list of whole numbers, 0 to {size - 1}, got {chosen!r}."
        )
    for unit in indices.tolist():
        if not 0 <= unit < size:
            raise ActrelaxError(f"population {name!r} has units 0 to {size - 1}, got {unit}.")
    return [int(unit) for unit in indices]


def _as_tensor(name: object, x: object) -> Tensor:
    """Return what a function returned under a name as a tensor; what is none yet is copied."""
    if not isinstance(name, str):
        raise ActrelaxError(f"a function to record must return a mapping, name -> tensor, got the name {name!r}.")
    if isinstance(x, Tensor):
        return x
    try:
        return torch.from_numpy(np.array(x, order="C"))
    except (TypeError, ValueError):
        raise ActrelaxError(
            f"a function to record must return tensors, arrays or numbers, got for {name!r} one of type "
            f"{type(x).__name__}."
        ) from None
