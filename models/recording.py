"""What a relaxation leaves on its way: kept in memory, or appended to a NetCDF file while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.registry import known

if TYPE_CHECKING:
    from actrelax.models.netcdf import Appender

Record = bool | str | Sequence[str] | Mapping[str, Sequence[int]] | Callable[[State], Mapping[str, Tensor]]
Recorder = Callable[[State], Mapping[str, Tensor]]


@dataclass
class Recording:
    """What is kept of the states that pass by.

    problem   whose populations these are
    recorder  population -> activities, to what is kept of them; None keeps nothing
    every     keep the start and every so many steps
    path      a file to append to, in place of memory
    """

    problem: RelaxationProblem
    recorder: Recorder | None
    every: int = 1
    path: Path | None = None
    times: list[float] = field(default_factory=list)
    _kept: list[Mapping[str, Tensor]] = field(default_factory=list)
    _file: Appender | None = None

    def is_due(self, step: int) -> bool:
        """Whether this step is kept."""
        return self.recorder is not None and step % self.every == 0

    def keep(self, time: float, state: State) -> None:
        """Keep what is asked for of a state."""
        assert self.recorder is not None
        kept = self.recorder(populations(self.problem, state))
        if self.path is None:
            self._kept.append(kept)
        else:
            if self._file is None:
                from actrelax.models.netcdf import Appender  # xarray takes a second to load

                self._file = Appender(self.path, self.problem)
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

    def close(self) -> Mapping[str, Tensor]:
        """Return name -> (len(times), ...): what was kept."""
        if self._file is not None:
            return self._file.close()
        names = self._kept[0] if self._kept else {}
        return {name: torch.stack([kept[name] for kept in self._kept]) for name in names}


def populations(problem: RelaxationProblem, state: State) -> State:
    """Return activities of hidden populations and the clamped output, in topological order and the state's type."""
    activities = problem.activities(state)
    like = next(iter(state.values()), problem.clamped)
    return {name: activities[name].to(like) for name in [*problem.network.hidden, problem.network.output]}


def recorder_of(problem: RelaxationProblem, record: Record) -> Recorder | None:
    """Return the function of a state that `record` means.

    Raises
    ------
    ActrelaxError
        For an unknown population, or a unit that it has not.
    """
    if record is False:
        return None
    if callable(record):
        return record
    everything = [*problem.network.hidden, problem.network.output]
    if isinstance(record, Mapping):
        units = {known("recorded population", name, everything): list(chosen) for name, chosen in record.items()}
        _check_units(problem, units)
        return lambda state: {name: state[name].flatten(1)[:, chosen] for name, chosen in units.items()}
    if record is True:
        names = everything
    else:
        asked = [record] if isinstance(record, str) else record
        names = [known("recorded population", name, everything) for name in asked]
    return lambda state: {name: state[name] for name in names}


def _check_units(problem: RelaxationProblem, units: Mapping[str, Sequence[int]]) -> None:
    for name, chosen in units.items():
        size = math.prod(problem.network.populations[name].shape)
        for unit in chosen:
            if not 0 <= unit < size:
                raise ActrelaxError(f"population {name!r} has units 0 to {size - 1}, got {unit}.")
