"""Relax a network, and record the activity of every population from the feedforward pass to backprop's gradient.

One relaxation (Millidge, Tschantz, Buckley & Seth 2020, arXiv 2009.05359) of any network, images and assumptions, by
any engine and integrator, such as `--integrator euler`, `DOP853` or `brian2:rk4`. By default it takes 100 steps of
eta = 0.1. --noise and --delay need `--integrator euler`.

Writes two files to --out at the end: trajectory.nc, a NetCDF file of all recorded states, for xarray and other tools;
and relaxation.png, with the activities for the first image over time, and each population's error against backprop's
gradient, with the error predicted by the closed form if it applies. With --html FILE, it also writes a self-contained
page to watch the relaxation in a browser, which needs the package bokeh. Prints the final errors. The last line on
screen is the folder:

    trajectory and figure: runs/relax

On a network with cycles the rates settle first, for as many steps: forward.nc holds this phase, and the figure shows
both on one time axis. The gradient is then that of the loss at the rates which the relaxation holds.

trajectory.nc also contains the complete problem, including weights and noise: `actrelax relax --again FILE --out
FOLDER` repeats the relaxation from the file alone, on any machine.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from actrelax.analysis import figures
from actrelax.analysis.files import claimed, require_places
from actrelax.analysis.two_phases import RecordedForwardPhase, draw_phases
from actrelax.analysis.view.charts import require_bokeh
from actrelax.analysis.view.page import require_size, to_html
from actrelax.analysis.view.scene import gradients_of
from actrelax.models._names import known
from actrelax.models.closed_form import uncovered
from actrelax.models.engines import ENGINES, OPTIONS, Brian2Options, Steps, integrator_named, schedule, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Record, Trajectory, load_problem
from actrelax.simulations.data import random_stream
from actrelax.simulations.training.assemble import set_up
from actrelax.simulations.training.both_phases import forward_phase, print_forward
from actrelax.simulations.training.forward_phase import Settling
from actrelax.simulations.training.hardware import FullPrecision
from actrelax.simulations.training.idle import idle_in_one_relaxation
from actrelax.simulations.training.options import require
from actrelax.simulations.training.outcome import Outcome, measured
from actrelax.simulations.training.problem_options import (
    ProblemOptions,
    Sample,
    make_sample,
    of_run,
    without_continuous_plasticity,
)
from actrelax.simulations.training.relaxation import Relaxation

FILE, FORWARD, FIGURE = "trajectory.nc", "forward.nc", "relaxation.png"


@dataclass(frozen=True)
class Config:
    """Options of one relaxation."""

    out: Path = Path("runs/relax")
    """Folder for trajectory and figure, which replace earlier ones."""
    again: Path | None = None
    """File of a relaxation to repeat, trajectory.nc or .zarr; of the other options only --out, --html, --samples,
    --ledger and --json may be given."""
    problem: ProblemOptions = field(default_factory=ProblemOptions)
    relaxation: Relaxation = field(default_factory=Relaxation)
    settling: Settling = field(default_factory=Settling)
    engine: str | None = None
    """Engine: torch, scipy or brian2. Default: the engine of the integrator, or torch."""
    codegen: str | None = None
    """Code generation target of Brian2: numpy or cython. Default: numpy."""
    every: int = 1
    """Number of steps between recorded states."""
    html: Path | None = None
    """File of a self-contained page to watch the relaxation in a browser; needs bokeh. Default: no page."""
    samples: int | None = None
    """With --html: number of images on the page, from the first. Default: all."""
    ledger: bool = False
    """Also print what each weight update would use: weight transport, slopes, remembered values and more."""
    hardware: FullPrecision = field(default_factory=FullPrecision)
    json: bool = False
    """Print only the summary, as JSON, on standard output."""


def defaults(arguments: Sequence[str]) -> Config:
    """Return the default options, from the run given by --run if there is one."""
    found = of_run(arguments)
    return Config() if found is None else Config(problem=found[0], relaxation=found[1])


def main(config: Config) -> None:
    """Relax, draw the results, and print the errors."""
    check_outputs(config)
    if config.again is not None:
        with claimed(config.out):
            report(config, *repeated(config, config.again))
        return
    require(every=(config.every, 1, math.inf))
    config.relaxation.check_problem()
    config.settling.check()
    hardware = config.hardware.resolved()
    assumptions, remarks = without_continuous_plasticity(config.relaxation.knobs)
    sample = make_sample(config.problem, assumptions, hardware)
    forward = _forward(config, sample)
    passed = None if forward is None else forward.passed
    problem = sample.problem(config.relaxation, config.problem.seed, assumptions, passed)
    for remark in (*remarks, *idle_in_one_relaxation(config.relaxation)):
        print(remark, file=sys.stderr)
    with claimed(config.out):
        report(config, measured(relaxed(config, problem), sample.gradients(passed), forward), sample.source)


def report(config: Config, outcome: Outcome, source: str) -> None:
    """Draw a relaxation of images from `source`, and print its summary."""
    draw(config, outcome)
    if outcome.forward is not None:
        outcome.forward.trajectory.save(config.out / FORWARD)
    if config.html is not None:
        to_html(outcome.trajectory, config.html, samples=config.samples, source=source)
    if config.json:
        print(json.dumps(summary(config, outcome)))
    else:
        if outcome.forward is not None:
            print_forward(outcome.forward, source)
        print(f"{outcome.trajectory.problem} on {source}")
        print_summary(config, outcome)


def repeated(config: Config, path: Path) -> tuple[Outcome, str]:
    """Repeat the relaxation in a file; return the outcome, and the file as the origin of the images."""
    if replace(config, again=None, out=Config.out, html=None, samples=None, ledger=False, json=False) != Config():
        raise ActrelaxError(
            "--again takes all options from its file: give only --out, --html, --samples, --ledger and --json with it."
        )
    if (config.out / FILE).resolve() == path.resolve():
        raise ActrelaxError(f"--again would replace its own file {path}: give another --out.")
    problem, given = load_problem(path)
    if not isinstance(problem, RelaxationProblem):
        raise ActrelaxError(
            f"--again repeats a relaxation, and {path} holds a forward phase: give {FILE}, or use load_problem in "
            "Python."
        )
    scheme, steps = integrator_named(given["integrator"]), Steps(**given["steps"])
    if not scheme.takes_time:
        raise ActrelaxError(
            f'actrelax relax shows a relaxation over time, but "{scheme.name}" takes no time: use solve in Python.'
        )
    set_up(config.hardware.resolved(), 0)
    generator = torch.Generator()
    if "random_state" in given:
        generator.set_state(given["random_state"])
    options = OPTIONS[given["engine"]](**given["options"])
    trajectory = recorded(
        config, problem, scheme, steps, given["every"], engine=given["engine"], generator=generator, options=options
    )
    return measured(trajectory, gradients_of(problem)), str(path)


def _solver(config: Config) -> tuple[Integrator, str, Brian2Options | None]:
    """Return integrator, engine and the engine's options."""
    scheme = integrator_named(config.relaxation.integrator)
    engine = scheme.engine or "torch" if config.engine is None else known("engine", config.engine, ENGINES)
    if not scheme.takes_time:
        raise ActrelaxError(
            f'actrelax relax shows a relaxation over time, but "{scheme.name}" takes no time: '
            "give another --integrator."
        )
    if config.codegen is not None and engine != "brian2":
        raise ActrelaxError(f"--codegen is for Brian2, got engine {engine}: leave it out.")
    return scheme, engine, None if config.codegen is None else Brian2Options(codegen=config.codegen)


def _forward(config: Config, sample: Sample) -> RecordedForwardPhase | None:
    scheme, engine, options = _solver(config)
    seed, every = config.problem.seed, config.every
    config.settling.check_network(sample.network, config.problem.model.network)
    how = {"every": every, "options": options, "settling": config.settling}
    return forward_phase(sample, config.relaxation, seed, scheme, engine, **how)  # type: ignore[arg-type]


def relaxed(config: Config, problem: RelaxationProblem) -> Trajectory:
    """Relax as the options say."""
    scheme, engine, options = _solver(config)
    steps, noise = config.relaxation.as_steps, random_stream(config.problem.seed, "noise")
    return recorded(config, problem, scheme, steps, config.every, engine=engine, generator=noise, options=options)


def recorded(
    config: Config, problem: RelaxationProblem, scheme: Integrator, steps: Steps, every: int, **how: Any
) -> Trajectory:
    """Solve with a progress bar, and write every `every`-th state to disk; `how` are further arguments of `solve`."""
    grid = schedule(problem, scheme, steps).measured(problem, scheme)
    if config.again is None and grid.steps < every:
        raise ActrelaxError(f"--every must be at most {grid.steps}, the number of steps, got {every}.")
    check_size(config, problem, grid.steps // every + 1)
    with progress(grid.steps, every) as record:
        return solve(problem, scheme, steps, record=Record(record, every=every, path=config.out / FILE), **how)


def check_outputs(config: Config) -> None:
    """Raise an error if a file can't be made or written, before anything is computed."""
    require_places(*(config.out / name for name in (FILE, FORWARD, FIGURE)))
    if config.html is not None:
        require_places(config.html)
        require_bokeh("--html")
    elif config.samples is not None:
        raise ActrelaxError("--samples needs --html: give --html FILE, or leave --samples out.")


def check_size(config: Config, problem: RelaxationProblem, points: int) -> None:
    """Raise an error if a page would have more samples than the problem, or be too large."""
    if config.html is None:
        return
    batch = len(problem.clamped)
    require(samples=(config.samples, 1, batch))
    require_size(problem, points, config.samples or batch)


@contextmanager
def progress(steps: int, every: int) -> Iterator[Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]]:
    """Show a progress bar over the steps, and yield a function that records whole states and updates the bar."""
    with tqdm(total=steps, unit=" steps", leave=False, disable=None) as bar:

        def record(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            bar.update(min(every, steps - bar.n))
            return state

        yield record


def draw(config: Config, outcome: Outcome) -> None:
    """Draw the activities for the first image, and the errors."""
    trajectory = outcome.trajectory
    if outcome.forward is not None:
        draw_phases(config.out / FIGURE, outcome.forward, trajectory, outcome.errors)
        return
    activities = {name: trajectory[name][:, 0].flatten(1).cpu().numpy() for name in outcome.errors}
    with figures.saved(config.out / FIGURE, columns=2) as (_, (left, right)):
        figures.heat_map(left, trajectory.times, activities, unit=trajectory.time_unit)
        figures.approach(right, trajectory.times, outcome.errors, outcome.predicted, unit=trajectory.time_unit)


def summary(config: Config, outcome: Outcome) -> dict[str, Any]:
    """Return the content of --json, with final errors."""
    trajectory, predicted = outcome.trajectory, outcome.predicted
    return {
        "out": str(config.out),
        "html": None if config.html is None else str(config.html),
        "problem": repr(trajectory.problem),
        "engine": trajectory.engine,
        "integrator": trajectory.integrator,
        "dt": trajectory.dt,
        "steps": trajectory.steps,
        "status": trajectory.status.value,
        "feedback_applications": trajectory.feedback_applications,
        "forward": None if outcome.forward is None else outcome.forward.summary(),
        "error": dict(outcome.final),
        "predicted_error": None if predicted is None else {name: values[-1] for name, values in predicted[1].items()},
        "ledger": outcome.ledger.summary if config.ledger else None,
    }


def print_summary(config: Config, outcome: Outcome) -> None:
    """Print the trajectory's summary and the final errors."""
    trajectory, predicted = outcome.trajectory, outcome.predicted
    print(f"{trajectory}, {trajectory.feedback_applications:,} feedback passes through projections\n")
    width = max(10, *map(len, outcome.final))
    print(f"{'population':{width}}  error against backprop" + ("  predicted" if predicted else ""))
    for name, error in outcome.final.items():
        print(f"{name:{width}}  {error:22.3e}" + (f"  {predicted[1][name][-1]:9.3e}" if predicted else ""))
    if predicted is None:
        print(f"\nno prediction: {uncovered(trajectory.problem)}")
    if config.ledger:
        print(f"\n{outcome.ledger}")
    if config.html is not None:
        print(f"\npage, to open in a browser: {config.html}")
    print(f"\ntrajectory and figure: {config.out}")


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("relax", sys.argv[1:]))
