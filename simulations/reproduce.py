"""Run one of the papers' experiments over many seeds, or go on with it, and say what came out.

A suite is a set of runs that differ in one thing, over the same seeds: initial weights, order of the images and their
augmentation are paired. `actrelax reproduce list` names the suites. Each run is kept in --runs in a folder of its own,
is done once, and goes on where it was stopped or killed; what came out of all of them is in --out:

    runs.csv, curves.csv         every run, every epoch
    table.md, table.tex          accuracies, differences to backprop and AR, tests of difference and of equivalence
    learning-curves.png          means over seeds with 95 % intervals; angles.png, where angles were measured

Runs whose rows are in runs.csv already are not done again, wherever their folders are. Options of `actrelax train`
hold for all runs of the suite.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from actrelax.models.errors import ActrelaxError
from actrelax.models.registry import known
from actrelax.simulations.options import require
from actrelax.simulations.suites import report, results
from actrelax.simulations.suites.definitions import SUITES, Suite
from actrelax.simulations.suites.perform import perform
from actrelax.simulations.suites.store import Kept
from actrelax.simulations.training.experiment import Experiment


@dataclass(frozen=True)
class Config:
    """Options of a suite."""

    suite: Annotated[str, tyro.conf.Positional] = "list"
    """Which one; list: name them all."""
    seeds: int | None = None
    """Seeds 0 to this; the suite's own number unless given."""
    jobs: int | None = None
    """Runs at a time; as many as this machine has cores unless given."""
    scheduler: str | None = None
    """Address of a Dask scheduler, tcp://HOST:8786: its workers do the runs; they see the same folders."""
    runs: Path = Path("runs")
    """Folder of the runs' folders."""
    out: Path | None = None
    """Folder of what came out; results/SUITE unless given."""
    report_only: bool = False
    """Do no run: write tables and figures of what there is."""
    quiet: bool = False
    """Leave out the progress bar on standard error."""
    experiment: Experiment = field(default_factory=Experiment)


def defaults(arguments: Sequence[str]) -> Config:
    """Return what options have unless they are given: those of the suite that is named."""
    named = next((argument for argument in arguments if argument in SUITES), None)
    return Config(experiment=Experiment() if named is None else SUITES[named].base)


def main(config: Config) -> None:
    """Do what is not done, and say what came out."""
    if config.suite == "list":
        width = max(map(len, SUITES))
        print("\n".join(f"{name:{width}}  {suite.title}" for name, suite in SUITES.items()))
        return
    name = known("suite", config.suite, SUITES)
    suite = chosen(SUITES[name], config)
    out = config.out or Path("results") / name
    places = {}
    for case in suite.cases():
        kept = Kept(config.runs.absolute(), case.experiment.resolved())
        places[case.variant, case.condition, kept.hash] = case, kept
    found = results.read(out)
    left = [kept for key, (_, kept) in places.items() if key not in found]

    def collect(_: Kept | None = None) -> None:
        for key, (case, kept) in places.items():
            if key not in found and kept.state.is_final:
                found[key] = results.outcome_of(case, kept)
        results.write(out, found.values())

    if not config.report_only:
        jobs = config.jobs or os.cpu_count() or 1
        perform(left, jobs, scheduler=config.scheduler, quiet=config.quiet, ended=collect)
    collect()
    outcomes = [found[key] for key in places if key in found]
    if not outcomes:
        raise ActrelaxError(f"no run of {name} has ended yet: leave --report-only out.")
    print(report.write(out, name, suite, outcomes, f"actrelax reproduce {name}"))
    print(f"written to {out}")


def chosen(suite: Suite, config: Config) -> Suite:
    """Return the suite with the options that hold for all its runs.

    Raises
    ------
    ActrelaxError
        For options out of range, or that the suite varies.
    """
    require(seeds=(config.seeds, 1, math.inf), jobs=(config.jobs, 1, math.inf))
    suite = suite.based_on(config.experiment)
    suite = suite if config.seeds is None else replace(suite, seeds=config.seeds)
    for case in suite.cases():
        case.experiment.check()
    return suite


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("reproduce", sys.argv[1:]))
