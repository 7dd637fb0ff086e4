"""Carrying a suite out: with which options, what is done already, doing the rest, and what came out."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actrelax.analysis.reports import outcomes
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.options import require
from actrelax.simulations.suites.definitions import Suite
from actrelax.simulations.suites.perform import perform
from actrelax.simulations.suites.store import Kept
from actrelax.simulations.training.experiment import Experiment, as_options, as_words


@dataclass(frozen=True)
class Work:
    """Options of how runs are done."""

    jobs: int | None = None
    """Runs at a time; as many as this machine has cores, or the scheduler's workers have threads, unless given."""
    scheduler: str | None = None
    """Address of a Dask scheduler, tcp://HOST:8786: its workers do the runs; they see the same folders."""
    runs: Path = Path("runs")
    """Folder of the runs' folders."""
    report_only: bool = False
    """Do no run: write tables and figures of what there is."""
    quiet: bool = False
    """Leave out the progress bar on standard error."""


def named_in(arguments: Sequence[str], names: Container[str]) -> str | None:
    """Return the first of some names among arguments that is no option's value; None if there is none."""
    before = ["", *arguments]
    named = (a for a, b in zip(arguments, before, strict=False) if a in names and (b in SWITCHES or b[:2] != "--"))
    return next(named, None)


SWITCHES = ("--quiet", "--no-quiet", "--report-only", "--no-report-only")
"""Options of a suite that take no value."""


def chosen(suite: Suite, experiment: Experiment, seeds: int | None) -> Suite:
    """Return a suite with the options that hold for all its runs.

    Raises
    ------
    ActrelaxError
        For options out of range, or that the suite varies.
    """
    suite = suite.based_on(experiment)
    suite = suite if seeds is None else replace(suite, seeds=seeds)
    for case in suite.cases():
        case.experiment.check()
    return suite


def command_of(program: str, name: str, suite: Suite, experiment: Experiment, seeds: int | None) -> str:
    """Return the command that carries a suite out with these options.

    Parameters
    ----------
    program : str
        "reproduce" or "sweep".
    name : str
    suite : Suite
        As it is defined.
    experiment, seeds
        What was asked for.
    """
    usual = as_options(suite.base)
    given = {"seeds": seeds} if seeds is not None else {}
    given |= {option: value for option, value in as_options(experiment).items() if value != usual[option]}
    return " ".join(["actrelax", program, name, *as_words({n: v for n, v in given.items() if n != "data_dir"})])


def carry_out(suite: Suite, out: Path, work: Work) -> list[outcomes.Outcome]:
    """Do those of a suite's runs that are not done, and return what came out of all of them.

    Parameters
    ----------
    suite : Suite
    out : Path
        Folder of the tables of all runs, to which each is added as it ends.
    work : Work

    Raises
    ------
    ActrelaxError
        As `perform`; for options out of range, or no run at all.
    """
    require(jobs=(work.jobs, 1, math.inf))
    places = {}
    for case in suite.cases():
        kept = Kept(work.runs.absolute(), case.experiment.resolved())
        places[case.variant, case.condition, kept.hash] = case, kept
    found = outcomes.read(out)
    left = [kept for key, (_, kept) in places.items() if key not in found]

    def collect(_: Kept | None = None) -> None:
        found.update(
            outcomes.add(
                out,
                {
                    key: outcomes.outcome_of(kept.folder, case.condition, kept.experiment.seed, kept.hash, case.variant)
                    for key, (case, kept) in places.items()
                    if key not in found and kept.state.is_final
                },
            )
        )

    if not work.report_only:
        perform(left, work.jobs, scheduler=work.scheduler, quiet=work.quiet, ended=collect)
    collect()
    ended = [found[key] for key in places if key in found]
    if not ended:
        raise ActrelaxError("no run has ended yet: leave --report-only out.")
    return ended
