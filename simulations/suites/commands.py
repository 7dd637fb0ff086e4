"""A suite's command line: which suite it names, with which options, and the command that does it again."""

from __future__ import annotations

import shlex
from collections.abc import Container, Sequence
from dataclasses import asdict, replace

from actrelax.analysis.reports.load_runs import as_words
from actrelax.simulations.suites.execution import Work
from actrelax.simulations.suites.suite import Suite
from actrelax.simulations.training.experiment import Experiment, as_options


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
