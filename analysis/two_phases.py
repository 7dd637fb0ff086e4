"""Both phases of a network with cycles on one time axis: rates that settle, then the relaxation from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actrelax.analysis import figures
from actrelax.models.network import FeedforwardPass
from actrelax.models.results import Trajectory, relative_error

Errors = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class RecordedForwardPhase:
    """A recorded forward phase, with its errors against the settled rates.

    errors  population -> max |r - settled r| / max |settled r| at each recorded time
    final   population -> the error at the end
    """

    trajectory: Trajectory
    errors: Errors
    final: Mapping[str, float]

    @classmethod
    def of(cls, trajectory: Trajectory, rates: FeedforwardPass) -> RecordedForwardPhase:
        """Compare a recorded forward phase with the settled rates of the same batch."""
        settled = {name: rates.activities[name].cpu() for name in trajectory.problem.relaxing}
        errors = {name: error.tolist() for name, error in trajectory.error(settled).items()}
        final = {name: relative_error(trajectory.final[name].cpu(), x) for name, x in settled.items()}
        return cls(trajectory, errors, final)

    @property
    def passed(self) -> FeedforwardPass:
        """What a relaxation holds: the rates at the end, and drives, gains and routes there."""
        held: FeedforwardPass = self.trajectory.problem.feedforward_pass(self.trajectory.state)
        return held

    def summary(self) -> dict[str, Any]:
        """Return steps, status and final errors, for JSON."""
        trajectory = self.trajectory
        how = {"engine": trajectory.engine, "integrator": trajectory.integrator, "steps": trajectory.steps}
        return {**how, "status": trajectory.status.value, "error": dict(self.final)}


def draw_phases(path: Path, forward: RecordedForwardPhase, backward: Trajectory, errors: Errors) -> None:
    """Draw the activities for the first sample and the errors of both phases, with a line between them.

    Parameters
    ----------
    path : pathlib.Path
        Image file.
    forward : RecordedForwardPhase
    backward : Trajectory
        Recorded relaxation from its rates.
    errors : mapping
        Hidden population -> error of the relaxation against the gradient at each recorded time.
    """
    before, end = forward.trajectory.times, forward.trajectory.time
    after = [end + t for t in backward.times]
    activities = {  # the relaxation's first state stands for the end of the forward phase
        name: np.concatenate([forward.trajectory[name][:-1, 0].flatten(1).cpu(), backward[name][:, 0].flatten(1).cpu()])
        for name in errors
    }
    apart = {name: [*forward.errors[name], math.nan, *values] for name, values in errors.items()}
    with figures.saved(path, columns=2) as (_, (left, right)):
        figures.heat_map(left, [*before[:-1], *after], activities, unit=backward.time_unit)
        figures.approach(right, [*before, end, *after], apart, unit=backward.time_unit)
        right.set_ylabel("error of rates, then of gradients\n(largest, relative)")
        for ax in (left, right):
            ax.axvline(end, color="0.3", linewidth=0.8)
            for label, middle in (("forward phase", end / 2), ("relaxation", end + backward.times[-1] / 2)):
                ax.text(middle, 1.02, label, transform=ax.get_xaxis_transform(), ha="center", fontsize="small")
