"""The command that does a suite again."""

from __future__ import annotations

import shlex

from actrelax.analysis.reports.load_runs import as_words
from actrelax.simulations.training.configuration import as_options
from actrelax.simulations.training.experiment import Experiment


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
    changed = {option: given[option] for option in usual if given[option] != usual[option]}
    asked = {option: value for option, value in further.items() if value not in (None, ())}
    words = as_words(({} if seeds is None else {"seeds": seeds}) | changed | asked)
    return shlex.join(["actrelax", program, name, *words])
