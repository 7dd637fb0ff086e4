"""Compute the picture of a setting of the explorer: by the closed form where it applies, else step by step."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from actrelax.analysis.convergence import laws_at, spread_out, states_under
from actrelax.analysis.view.scene import Scene, scene_of
from actrelax.models.assumptions import Assumptions
from actrelax.models.closed_form import terms, uncovered
from actrelax.models.engines import integrator_named, schedule, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Status, Trajectory
from actrelax.simulations.data import random_stream
from actrelax.simulations.explorer.setting import Setting
from actrelax.simulations.training.hardware import FullPrecision, Hardware
from actrelax.simulations.training.idle import idle_in_one_relaxation
from actrelax.simulations.training.problem_options import (
    ProblemOptions,
    Sample,
    make_sample,
    without_continuous_plasticity,
)

POINTS = 101
"""Times that are shown, at most."""
MOST_STEPPED = 2_000
"""Steps beyond which a relaxation that must be stepped takes too long to be played with."""


@dataclass(frozen=True)
class Picture:
    """The picture of a setting.

    scene    activities, gradients, errors
    source   where the image is from
    remarks  sentences about the relaxation: warnings, and what was left out of it
    seconds  that it took
    """

    setting: Setting
    scene: Scene
    source: str
    remarks: Sequence[str]
    seconds: float


def pictured(setting: Setting) -> Picture:
    """Relax, and return the picture.

    Raises
    ------
    ActrelaxError
        For options that can't be met.
    """
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        sample, problem, remarks = _prepared(setting)
        remarks += idle_in_one_relaxation(setting.relaxation)
        scene = scene_of(_thinned(_relaxed(setting, problem)), sample.gradients())
    remarks += [str(each.message) for each in warned if issubclass(each.category, UserWarning)]
    return Picture(setting, scene, sample.source, remarks, time.perf_counter() - begin)


def relaxed(setting: Setting) -> Trajectory:
    """Relax; by the closed form only some of the steps are recorded, step by step all of them.

    Raises
    ------
    ActrelaxError
        For options that can't be met, and more than `MOST_STEPPED` steps without a closed form.
    """
    return _relaxed(setting, _prepared(setting)[1])


def _prepared(setting: Setting) -> tuple[Sample, RelaxationProblem, list[str]]:
    setting.relaxation.check_problem()
    assumptions, remarks = without_continuous_plasticity(setting.relaxation.knobs)
    sample = _sample(setting.problem, assumptions, FullPrecision().resolved())
    return sample, sample.problem(setting.relaxation, setting.problem.seed, assumptions), remarks


@lru_cache(maxsize=16)
def _sample(options: ProblemOptions, assumptions: Assumptions, hardware: Hardware) -> Sample:
    return make_sample(options, assumptions, hardware)


def _relaxed(setting: Setting, problem: RelaxationProblem) -> Trajectory:
    relaxation = setting.relaxation
    scheme, steps = integrator_named(relaxation.integrator), relaxation.as_steps
    if not scheme.takes_time:
        raise ActrelaxError(
            f'a relaxation over time is shown, and "{scheme.name}" takes none: name another integrator.'
        )
    grid = schedule(problem, scheme, steps).measured(problem, scheme)
    if scheme.engine is None and uncovered(problem) is None:
        return by_law(problem, scheme, grid.dt, grid.steps)
    if grid.steps > MOST_STEPPED:
        raise ActrelaxError(
            f"without a closed form at most {MOST_STEPPED:,} steps are taken here, got {grid.steps:,}: take fewer, or "
            "use actrelax relax."
        )
    noise = random_stream(setting.problem.seed, "noise")
    return solve(problem, scheme, steps, record=True, engine=scheme.engine, generator=noise)


def by_law(problem: RelaxationProblem, scheme: Integrator, dt: float, steps: int) -> Trajectory:
    """Return a relaxation with `POINTS` recorded times at most, by the closed form at each (docs/theory.md)."""
    with torch.no_grad():
        at = spread_out(steps, POINTS)
        laws = laws_at(problem, scheme, dt=dt, at=at)
        recorded = {
            name: torch.cat([*states_under(found, laws)]).reshape(len(at), *found[0].value.shape)
            for name, found in terms(problem).items()
        }
    recorded[problem.network.output] = problem.clamped.expand(len(at), *problem.clamped.shape)
    final = {name: states[-1] for name, states in recorded.items()}
    return Trajectory(
        problem,
        scheme.name,
        "torch",
        dt,
        steps,
        Status.COMPLETED,
        final,
        tuple(float(f"{step * dt:.12g}") for step in at),
        recorded,
        0,
        final,
        units=dict.fromkeys(recorded),
        evaluation="closed-form",
    )


def _thinned(trajectory: Trajectory) -> Trajectory:
    """Return a trajectory with `POINTS` recorded times at most, the first and the last among them."""
    kept = spread_out(len(trajectory.times) - 1, POINTS)
    recorded = {name: states[kept] for name, states in trajectory.recorded.items()}
    return replace(trajectory, times=tuple(trajectory.times[i] for i in kept), recorded=recorded)
