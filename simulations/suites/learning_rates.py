"""Sweeps of the learning rate: a grid, validation accuracies, and the best rate of each condition."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actrelax.analysis import figures
from actrelax.analysis.reports import suite_report
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.tables import read_csv, write_csv
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites.shared import IMAGES
from actrelax.simulations.suites.suite import Options, Suite, varied

FILE, FIGURE = "rates.csv", "sensitivity.png"
GRID = tuple(2.0**power for power in range(-3, 4))
"""Default grid: factors of the suite's learning rate."""


@dataclass(frozen=True)
class Sweep:
    """Suite at several learning rates.

    suite   suite whose variants are the variants of `of`, each at every rate
    of      original suite
    labels  (variant of `of`, rate) -> variant of `suite`
    """

    suite: Suite
    of: Suite
    labels: Mapping[tuple[str, float], str]


def swept(suite: Suite, rates: Sequence[float] = ()) -> Sweep:
    """Return a suite at several learning rates, with a tenth of the training images held out for validation.

    `rates` defaults to the factors of `GRID` times the suite's rate. A validation split of the suite is kept.

    Raises
    ------
    ActrelaxError
        If the suite varies the learning rate itself, or has no validation split and its data set has an unknown size or
        fewer than ten images.
    """
    _refuse_rates(suite)
    usual = suite.base.optimisation.lr
    rates = sorted(set(rates)) or [float(f"{usual * factor:.3g}") for factor in GRID]
    images = suite.base.images
    if not images.validation:
        if images.dataset not in IMAGES:
            raise ActrelaxError(
                f"a sweep needs validation images, and the size of {images.dataset} is unknown: give --validation."
            )
        count = images.train_images or IMAGES[images.dataset]
        if count < 10:
            raise ActrelaxError(f"a sweep holds a tenth of the training images out, got {count}: train on 10 or more.")
        suite = replace(suite, base=varied(suite.base, {"validation": count // 10}))
    labels = {(variant, rate): f"{variant} lr {rate:g}".strip() for variant in suite.variants for rate in rates}
    variants = {label: {**suite.variants[variant], "lr": rate} for (variant, rate), label in labels.items()}
    return Sweep(replace(suite, variants=variants), suite, labels)


@dataclass(frozen=True)
class Response:
    """Results of one condition at all learning rates.

    accuracies  rate -> final validation accuracies of the finished seeds, in percent
    diverged    rate -> number of diverged seeds
    """

    variant: str
    condition: str
    accuracies: Mapping[float, Sequence[float]]
    diverged: Mapping[float, int]

    @property
    def best(self) -> float | None:
        """Rate with the highest mean accuracy, among rates without diverged seeds."""
        means = {rate: statistics.fmean(a) for rate, a in self.safe.items()}
        return max(means, key=means.__getitem__) if means else None

    @property
    def own(self) -> float:
        """The best rate, or the smallest if seeds diverged at all of them."""
        return min(self.accuracies) if self.best is None else self.best

    @property
    def safe(self) -> dict[float, Sequence[float]]:
        """Accuracies at rates without diverged seeds."""
        return {rate: a for rate, a in self.accuracies.items() if a and not self.diverged[rate]}

    def row(self) -> dict[str, Any]:
        """Return the row of the table: rate -> mean accuracy, number of diverged seeds, and "best"."""
        cells = {
            f"{rate:g}": {
                "accuracy": statistics.fmean(accuracies) if accuracies else None,
                "diverged": self.diverged[rate],
                "best": rate == self.best,
            }
            for rate, accuracies in self.accuracies.items()
        }
        return {"condition": self.condition, **cells}


def responses(sweep: Sweep, outcomes: Sequence[Outcome]) -> list[Response]:
    """Sort outcomes by variant and condition."""
    found = []
    for variant in sweep.of.variants:
        for condition in sweep.of.conditions:
            accuracies, diverged = {}, {}
            for (of, rate), label in sweep.labels.items():
                if of == variant:
                    mine = [o for o in outcomes if (o.variant, o.condition) == (label, condition)]
                    finished = [o for o in mine if o.state is State.FINISHED]
                    accuracies[rate] = [o.final_accuracy("validation") for o in finished]
                    diverged[rate] = len(mine) - len(finished)
            found.append(Response(variant, condition, accuracies, diverged))
    return found


def write(folder: Path, name: str, sweep: Sweep, outcomes: Sequence[Outcome], command: str) -> str:
    """Write rates.csv, table.json and sensitivity.png, and return the tables as Markdown."""
    found = responses(sweep, outcomes)
    base, seeds = sweep.suite.base, sweep.suite.seeds
    notes = [
        f"Final accuracy on {base.images.validation:,} validation images after {base.epochs} epochs:",
        f"{'seed 0' if seeds == 1 else f'mean over the finished ones of {seeds} seeds'}, for each condition.",
        "The figure leaves out rates at which a seed diverged; bold marks the best of the others for each condition.",
        *(
            f"The best rate of {r.condition}{f' ({r.variant})' if r.variant else ''} is at the end of the grid."
            for r in found
            if r.best in (min(r.accuracies), max(r.accuracies))
        ),
        *(
            f"{r.condition}{f' ({r.variant})' if r.variant else ''} diverged at all rates: it gets the smallest."
            for r in found
            if r.best is None
        ),
    ]
    if len(outcomes) < len(list(sweep.suite.cases())):
        notes.append(f"Some runs are not done yet: {FILE} will be written after the last.")
    else:
        own = [[name, r.variant, r.condition, f"{r.own:g}", command] for r in found]
        write_csv(folder / FILE, ["suite", "variant", "condition", "lr", "found_by"], own)
    _draw(folder, sweep, found)
    rows = {variant: [r.row() for r in found if r.variant == variant] for variant in sweep.of.variants}
    parts = [{"variant": variant, "rows": of_variant, "notes": []} for variant, of_variant in rows.items()]
    parts[-1]["notes"] = notes
    said = {"title": sweep.of.title, "command": command, "remark": ""}
    document = {"kind": "rates", "name": f"{name}, learning rates", **said, "parts": parts}
    return suite_report.write_document(folder, document)


def _draw(folder: Path, sweep: Sweep, found: Sequence[Response]) -> None:
    variants = list(sweep.of.variants)
    with figures.saved(folder / FIGURE, columns=len(variants), legend=True) as (_, axes):
        for ax, variant in zip(axes, variants, strict=True):
            mine = [r for r in found if r.variant == variant]
            figures.sensitivity(ax, {r.condition: r.safe for r in mine}, "learning rate")
            ax.set(ylabel="validation accuracy (%)", title=variant)


def _refuse_rates(suite: Suite) -> None:
    """Refuse a suite whose conditions or variants are learning rates: their names would no longer be true."""
    if "lr" in suite.varying():
        raise ActrelaxError("the runs of this suite differ in their learning rates already: it has none to choose.")


def own_rates(name: str, suite: Suite, folder: Path) -> Suite:
    """Return a suite with each condition at its best learning rate, from the sweep in `folder`.

    Raises
    ------
    ActrelaxError
        If the folder holds no complete sweep of this suite, or the suite varies the learning rate itself.
    """
    _refuse_rates(suite)
    try:
        rows = read_csv(folder / FILE, ("suite", "variant", "condition", "lr", "found_by"), "no sweep")
        own: dict[tuple[str, str], Options] = {
            (row["variant"], row["condition"]): {"lr": float(row["lr"])} for row in rows
        }
        swept, found_by = ({row[column] for row in rows} for column in ("suite", "found_by"))
    except ValueError as error:
        raise ActrelaxError(f"{folder} has no {FILE} of a sweep: name the --out of actrelax sweep.") from error
    if others := swept - {name}:
        raise ActrelaxError(f"{folder} is a sweep of {', '.join(others)}: sweep {name} for its rates.")
    for variant in suite.variants:
        for condition in suite.conditions:
            if (variant, condition) not in own:
                named = " of ".join(filter(None, (condition, variant)))
                raise ActrelaxError(f"{folder / FILE} has no rate for {named}: sweep this suite again.")
    remark = f"Each condition has its learning rate of best validation accuracy, found by `{', '.join(found_by)}`."
    return replace(suite, own=own, remark=remark)
