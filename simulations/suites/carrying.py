"""Carrying a suite out: with which options, what is done already, doing the rest, and what came out."""

from __future__ import annotations

import math
import shlex
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from actrelax.analysis.reports import outcomes
from actrelax.analysis.reports.gathered import as_words
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.options import require
from actrelax.simulations.suites.definitions import Suite
from actrelax.simulations.suites.perform import perform
from actrelax.simulations.suites.store import Kept
from actrelax.simulations.training.experiment import Experiment, as_options


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
    takes_next = [b.startswith("--") and "=" not in b and b not in SWITCHES for b in before]
    return next((a for a, taken in zip(arguments, takes_next, strict=False) if a in names and not taken), None)


SWITCHES = {
    f"--{prefix}{name.replace('_', '-')}"
    for name, value in (asdict(Work()) | as_options(Experiment())).items()
    if isinstance(value, bool)
    for prefix in ("", "no-")
}
"""Options that take no value."""


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


def command_of(
    program: str, name: str, base: Experiment, experiment: Experiment, seeds: int | None, **further: object
) -> str:
    """Return the command that does this again.

    Parameters
    ----------
    program : str
        "reproduce" or "sweep".
    name : str
    base : Experiment
        What options are unless they are given.
    experiment, seeds, **further
        What was asked for; None or nothing stands for what was not.
    """
    usual, given = as_options(base), as_options(experiment)
    changed = {option: given[option] for option in usual if given[option] != usual[option] and option != "data_dir"}
    asked = {option: value for option, value in further.items() if value not in (None, ())}
    words = as_words(({} if seeds is None else {"seeds": seeds}) | changed | asked)
    return shlex.join(["actrelax", program, name, *words])


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
