"""Carrying a suite out: what is done already, doing the rest, and what came out of all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actrelax.analysis.reports import results_table
from actrelax.analysis.reports.results_table import Outcome
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites.run_store import Kept
from actrelax.simulations.suites.runner import perform
from actrelax.simulations.suites.suite import Suite
from actrelax.simulations.training.options import require


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


def carry_out(suite: Suite, out: Path, work: Work, report: Callable[[Sequence[Outcome]], str]) -> None:
    """Do those of a suite's runs that are not done, and report what came out of all of them.

    Parameters
    ----------
    suite : Suite
    out : Path
        Folder of the tables of all runs, to which each is added as it ends.
    work : Work
    report : callable
        Writes what is to be said of the runs that have ended into `out`, and returns it; it is printed.

    Raises
    ------
    ActrelaxError
        As `perform`, after the report; for options out of range, or no run at all.
    """
    require(jobs=(work.jobs, 1, math.inf))
    places = {}
    for case in suite.cases():
        experiment = case.experiment.resolved()
        kept = Kept(work.runs.absolute(), experiment, case.execution.resolved(experiment))
        places[case.variant, case.condition, kept.hash] = case, kept
    found = results_table.read(out)
    left = [kept for key, (_, kept) in places.items() if key not in found]

    def collect(_: Kept | None = None) -> None:
        found.update(
            results_table.add(
                out,
                {
                    key: results_table.outcome_of(
                        kept.folder, case.condition, kept.experiment.seed, kept.hash, case.variant
                    )
                    for key, (case, kept) in places.items()
                    if key not in found and kept.state.is_final
                },
            )
        )

    refused = None
    try:
        if not work.report_only:
            perform(left, work.jobs, scheduler=work.scheduler, quiet=work.quiet, ended=collect)
    except ActrelaxError as error:
        refused = error
    collect()
    ended = [found[key] for key in places if key in found]
    if ended:
        with results_table.held(out):
            print(report(ended))
    if refused is not None:
        raise refused
    if not ended:
        raise ActrelaxError("no run has ended yet: leave --report-only out.")
