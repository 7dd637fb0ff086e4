"""The first paper's figure 1: convergence of activities to gradients, by layer and eta, without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actrelax.analysis import figures
from actrelax.analysis.convergence import predicted_errors, stays_below
from actrelax.analysis.reports import suite_report
from actrelax.analysis.tables import write_csv
from actrelax.models.closed_form import uncovered
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import relative_error
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.configuration import as_options
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, protocol
from actrelax.simulations.training.problem_options import ProblemOptions, make_sample
from actrelax.simulations.training.relaxation import Relaxation

TITLE = "Do activities become gradients, in every layer and at every eta? (first paper, figure 1)"
ETAS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
SHOWN = 0.1
"""The eta for which all layers are drawn."""
TOLERANCE = 0.01
SEEDS = 5
BASE = varied(
    protocol("paper-mlp"),
    {"network": "mlp-figure1", "integrator": "euler", "steps": 200, "precision": "fp64"},
)
EXECUTION = Execution(threads=1)
RELAXING = {"dataset", "data_dir", "batch_size", "precision", *asdict(BASE.model), *asdict(BASE.relaxation)}
RELAXING |= {"device", "threads"}
"""Options of a relaxation; all others concern training."""
VARIED = {"eta", "dt", "duration", "tolerance", "tolerance_of", "max_steps"}


@dataclass(frozen=True)
class Curve:
    """Errors of one network's populations over the steps.

    squared    population -> (steps + 1,), sum of squared errors over units, mean over images; drawn in the paper
    relative   population -> (steps + 1,), max |x - gradient| / max |gradient|
    predicted  population -> (steps + 1,), `relative` by the closed form; empty if it does not apply
    """

    seed: int
    eta: float
    squared: dict[str, NDArray[np.floating]]
    relative: dict[str, NDArray[np.floating]]
    predicted: dict[str, NDArray[np.floating]]


def check(experiment: Experiment, execution: Execution) -> None:
    """Refuse options of training, and options that determine eta.

    Raises
    ------
    ActrelaxError
        If such an option differs from its default.
    """
    experiment.check()
    given = as_options(experiment) | as_options(execution)
    usual = as_options(BASE) | as_options(EXECUTION)
    for name in given:
        option = f"--{name.replace('_', '-')}"
        if name not in RELAXING and given[name] != usual[name]:
            raise ActrelaxError(f"{option} has no effect on gradients, which trains nothing: leave it out.")
        if name in VARIED and given[name] != usual[name]:
            raise ActrelaxError(f"{option} sets the step size, which gradients varies itself: leave it out.")
    if experiment.precision not in ("fp32", "fp64"):
        raise ActrelaxError(f"gradients needs --precision fp32 or fp64, got {experiment.precision}.")
    if not isinstance(experiment.relaxation.steps, int):
        raise ActrelaxError(f"gradients needs --steps as a number, got {experiment.relaxation.steps}.")


def curves(experiment: Experiment, execution: Execution, seeds: int) -> Iterator[Curve]:
    """Relax the network of each seed with each eta."""
    relaxation = experiment.relaxation
    for seed in range(seeds):
        options = ProblemOptions(
            dataset=experiment.images.dataset,
            data_dir=execution.data_dir,
            batch_size=experiment.batch_size,
            seed=seed,
            model=experiment.model,
        )
        sample = make_sample(options, relaxation.knobs, execution.hardware(experiment.precision))
        problem, gradients = sample.problem(relaxation, seed, relaxation.knobs), sample.gradients()
        for eta in ETAS:
            yield _curve(problem, gradients, relaxation, seed, eta)


def _curve(
    problem: RelaxationProblem, gradients: Mapping[str, Tensor], relaxation: Relaxation, seed: int, eta: float
) -> Curve:
    hidden, steps = problem.network.hidden, relaxation.steps
    assert isinstance(steps, int)

    def errors(state: State) -> dict[str, Tensor]:
        squares = {f"squared {n}": (state[n] - gradients[n]).square().flatten(1).sum(1).mean() for n in hidden}
        largest = {n: relative_error(state[n], gradients[n]) for n in hidden}
        return squares | {n: torch.tensor(error, dtype=torch.float64) for n, error in largest.items()}

    found = solve(problem, relaxation.integrator, eta=eta, steps=steps, record=errors).recorded
    law: Mapping[str, Sequence[float]] = {}
    if uncovered(problem) is None:
        at = range(steps + 1)
        law = predicted_errors(problem, gradients, relaxation.integrator, dt=eta * relaxation.tau, at=at)
    return Curve(
        seed,
        eta,
        {name: found[f"squared {name}"].numpy() for name in hidden},
        {name: found[name].numpy() for name in hidden},
        {name: np.array(errors) for name, errors in law.items()},
    )


def write(folder: Path, experiment: Experiment, execution: Execution, seeds: int, command: str) -> str:
    """Relax; write errors.csv, table.json, layers.png and rates.png; and return the table as Markdown.

    Raises
    ------
    ActrelaxError
        For the reasons of `check`, or if the images are missing.
    """
    check(experiment, execution)
    found = list(curves(experiment, execution, seeds))
    folder.mkdir(parents=True, exist_ok=True)
    names = list(found[0].relative)
    head = ["seed", "eta", "step", *(f"squared {name}" for name in names), *names]
    write_csv(folder / "errors.csv", head, _points(found))
    _draw(folder, found)
    said = {"title": TITLE, "command": command, "remark": ""}
    return suite_report.write_document(folder, {"kind": "steps", "name": "gradients", **said, "parts": [_part(found)]})


def _part(found: Sequence[Curve]) -> dict[str, Any]:
    """Return the table: for each eta and population, the steps until the error stays small, one per seed."""
    names = list(found[0].relative)
    rows: list[dict[str, Any]] = []
    for eta in ETAS:
        mine = [curve for curve in found if curve.eta == eta]
        cells = {
            name: {
                "measured": [stays_below(c.relative[name], TOLERANCE) for c in mine],
                "predicted": [stays_below(c.predicted[name], TOLERANCE) for c in mine if c.predicted],
            }
            for name in names
        }
        rows.append({"eta": eta, **cells})
    steps, seeds = len(found[0].relative[names[0]]) - 1, len({c.seed for c in found})
    notes = [
        "Steps after which a population's error, max |x - gradient| / max |gradient|, stays below",
        f"{TOLERANCE:g}: range over {seeds} seeds; a dash means more than {steps} steps.",
    ]
    apart = [
        relative_error(*map(torch.from_numpy, (c.relative[n], c.predicted[n]))) for c in found for n in c.predicted
    ]
    if apart:
        notes.append(
            f"Predicted and measured errors differ by at most {max(apart):.0e}, relative to the largest error."
        )
    heads = {name: f"{name}: measured (predicted)" for name in names}
    return {"variant": "", "heads": heads, "rows": rows, "law_error": max(apart, default=None), "notes": notes}


def _points(found: Sequence[Curve], every: int = 5) -> Iterator[list[object]]:
    """Yield one row per seed, eta and `every` steps."""
    for c in found:
        for step in range(0, len(next(iter(c.relative.values()))), every):
            values = [float(errors[step]) for of in (c.squared, c.relative) for errors in of.values()]
            yield [c.seed, f"{c.eta:g}", step, *(f"{value:.4g}" for value in values)]


def _draw(folder: Path, found: Sequence[Curve]) -> None:
    """Draw all layers at one eta, and the highest and the lowest layer at every eta."""
    names = list(found[0].relative)
    shown = [curve for curve in found if curve.eta == SHOWN]
    with figures.saved(folder / "layers.png", columns=2, legend=True) as (_, (left, right)):
        for number, name in enumerate(names):
            figures.band(left, name, _by_step([c.squared[name] for c in shown]), number=number, log=True)
            figures.band(right, name, _by_step([c.relative[name] for c in shown]), number=number, log=True)
            if shown[0].predicted:
                law = _by_step([c.predicted[name] for c in shown])
                at = list(law)[:: max(1, len(law) // 25)]
                means = [float(np.exp(np.mean(np.log(law[step])))) for step in at]
                figures.circles(right, at, means, color=right.lines[-1].get_color())
        left.set(xlabel=f"step (eta = {SHOWN:g})", ylabel="squared error against backprop")
        right.set(xlabel=f"step (eta = {SHOWN:g})", ylabel="error against backprop\n(largest, relative)")
        if shown[0].predicted:
            figures.circles(right, [], [], label="predicted")
    with figures.saved(folder / "rates.png", columns=2, legend=True) as (_, axes):
        for ax, name in zip(axes, (names[-1], names[0]), strict=True):
            for number, eta in enumerate(ETAS):
                mine = [curve.squared[name] for curve in found if curve.eta == eta]
                figures.band(ax, f"eta {eta:g}", _by_step(mine), number=number, log=True)
            ax.set(xlabel="step", ylabel=f"squared error of {name}")


def _by_step(errors: Sequence[NDArray[np.floating]]) -> dict[float, list[float]]:
    """Return step -> values of the seeds, without steps at which an error is 0, for a log axis."""
    together = np.array(errors).T
    return {step: values.tolist() for step, values in enumerate(together) if (values > 0).all()}
