"""Command line that repeats a suite."""

from __future__ import annotations

import shlex

from actrelax.analysis.reports.load_runs import as_words
from actrelax.simulations.training.configuration import as_options
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment


def command_of(
    program: str,
    name: str,
    usual: tuple[Experiment, Execution],
    given: tuple[Experiment, Execution],
    seeds: int | None,
    **further: object,
) -> str:
    """Return the command line that repeats a suite.

    Parameters
    ----------
    program : str
        "reproduce" or "sweep".
    name : str
    usual, given : tuple of Experiment and Execution
        Default options and actual options; only those that differ are written.
    seeds, **further
        Further options; None and () are left out.
    """
    before, after = ({**as_options(one), **as_options(other)} for one, other in (usual, given))
    changed = {name: after[name] for name in before if after[name] != before[name] and name != "data_dir"}
    asked = {option: value for option, value in further.items() if value not in (None, ())}
    words = as_words(({} if seeds is None else {"seeds": seeds}) | changed | asked)
    return shlex.join(["actrelax", program, name, *words])
