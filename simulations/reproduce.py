"""Run or resume one of the papers' experiments over many seeds, and print the results.

A suite is a set of conditions over the same seeds, with paired initial weights, order and augmentation of the images.
`actrelax reproduce list` lists the suites. Each run has a separate folder in --runs, is done once, and resumes after an
interruption. The results are in --out:

    runs.csv, curves.csv         all runs, all epochs
    table.json                   accuracies, differences from backprop and AR, tests of difference and of equivalence
    learning-curves.png          means over seeds with 95 % intervals; also angles.png if angles were measured

Runs with rows in runs.csv are not repeated, even if their folders are missing. Options of `actrelax train` apply to all
runs of the suite. Two names involve no training: `gradients` is the first paper's figure 1, and takes half a minute;
`map` compares the results of all suites in the parent folder of --out, and draws the cost of each rule against depth.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from actrelax.analysis.statistics import require_statsmodels
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites import figure1, report, summary_map
from actrelax.simulations.suites.commands import command_of
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.learning_rates import own_rates
from actrelax.simulations.suites.runner import Work, carry_out
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.idle import idle_in_all
from actrelax.simulations.training.options import require


@dataclass(frozen=True)
class Config:
    """Options of a suite."""

    suite: tyro.conf.Suppress[str]
    seeds: int | None = None
    """Number of seeds (0, 1, ...). Default: the suite's."""
    own_rates: Path | None = None
    """Folder of a sweep (`actrelax sweep`), whose best learning rate each condition uses. Default: the suite's rate."""
    out: Path | None = None
    """Folder of the results. Default: results/SUITE, or results/SUITE-own-rates with --own-rates."""
    work: Work = field(default_factory=Work)
    experiment: Experiment = field(default_factory=Experiment)
    execution: Execution = field(default_factory=Execution)


LIST, GRADIENTS, MAP = "list", "gradients", "map"


def _configs() -> dict[str, tuple[str, Config]]:
    found = {GRADIENTS: (figure1.TITLE, Config(GRADIENTS, experiment=figure1.BASE, execution=figure1.EXECUTION))}
    for name, suite in SUITES.items():
        found[name] = suite.title, Config(name, experiment=suite.base, execution=suite.execution)
    return {LIST: ("list all suites", Config(LIST)), **found, MAP: (summary_map.TITLE, Config(MAP))}


CONFIGS = _configs()
"""Suite -> its question, and its default options."""


def main(config: Config) -> None:
    """Do the remaining runs, and print the results."""
    name, own = config.suite, config.own_rates
    if name == LIST:
        if config != Config(LIST):
            raise ActrelaxError("list takes no options: leave them out.")
        titles = {name: title for name, (title, _) in CONFIGS.items() if name != LIST}
        width = max(map(len, titles))
        print("\n".join(f"{name:{width}}  {title}" for name, title in titles.items()))
        return
    require(seeds=(config.seeds, 1, 10_000))
    out = config.out or Path("results") / (name if own is None else f"{name}-own-rates")
    usual, given = ((c.experiment, c.execution) for c in (CONFIGS[name][1], config))
    command = command_of("reproduce", name, usual, given, config.seeds, own_rates=own)
    if name == MAP:
        if replace(config, out=None) != Config(MAP):
            raise ActrelaxError("map takes only --out: leave other options out.")
        print(summary_map.write(out, out.absolute().parent, "actrelax reproduce map"))
    elif name == GRADIENTS:
        if own is not None or config.work.report_only or config.work.conditions:
            unused = "--own-rates, --report-only and --conditions"
            raise ActrelaxError(f"gradients has no training runs: leave {unused} out.")
        print(figure1.write(out, config.experiment, config.execution, config.seeds or figure1.SEEDS, command))
    else:
        suite = SUITES[name] if own is None else own_rates(name, SUITES[name], own)
        suite = replace(suite, seeds=config.seeds or suite.seeds).based_on(config.experiment, config.execution)
        require_statsmodels()
        for sentence in idle_in_all([case.experiment for case in suite.cases()], SUITES[name].base):
            print(sentence, file=sys.stderr)
        carry_out(suite, out, config.work, lambda found: report.write(out, name, suite, found, command))
    print(f"written to {out}")


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("reproduce", sys.argv[1:]))
