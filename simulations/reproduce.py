"""Run one of the papers' experiments over many seeds, or go on with it, and say what came out.

A suite is a set of runs that differ in one thing, over the same seeds: initial weights, order of the images and their
augmentation are paired. `actrelax reproduce list` names the suites. Each run is kept in --runs in a folder of its own,
is done once, and goes on where it was stopped or killed; what came out of all of them is in --out:

    runs.csv, curves.csv         every run, every epoch
    table.json                   accuracies, differences to backprop and AR, tests of difference and of equivalence
    learning-curves.png          means over seeds with 95 % intervals; angles.png, where angles were measured

Runs whose rows are in runs.csv already are not done again, wherever their folders are. Options of `actrelax train`
hold for all runs of the suite. Two names train nothing: `gradients` is the first paper's figure 1, and takes half a
minute; `map` sets the results of all suites in the folder of --out beside each other.
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
    """How many seeds (0, 1, ...); the suite's own number unless given."""
    own_rates: Path | None = None
    """Folder of a sweep (`actrelax sweep`): each condition learns at the rate that is best for it."""
    out: Path | None = None
    """Folder of what came out; results/SUITE unless given, results/SUITE-own-rates with --own-rates."""
    work: Work = field(default_factory=Work)
    experiment: Experiment = field(default_factory=Experiment)
    execution: Execution = field(default_factory=Execution)


LIST, GRADIENTS, MAP = "list", "gradients", "map"


def _configs() -> dict[str, tuple[str, Config]]:
    found = {GRADIENTS: (figure1.TITLE, Config(GRADIENTS, experiment=figure1.BASE, execution=figure1.EXECUTION))}
    for name, suite in SUITES.items():
        found[name] = suite.title, Config(name, experiment=suite.base, execution=suite.execution)
    return {LIST: ("name them all", Config(LIST)), **found, MAP: (summary_map.TITLE, Config(MAP))}


CONFIGS = _configs()
"""Suite -> what it asks, and its options unless they are given."""


def main(config: Config) -> None:
    """Do what is not done, and say what came out."""
    name, own = config.suite, config.own_rates
    if name == LIST:
        if config != Config(LIST):
            raise ActrelaxError("list trains nothing: it takes no options.")
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
            raise ActrelaxError("map trains nothing: it takes --out alone.")
        print(summary_map.write(out, out.absolute().parent, "actrelax reproduce map"))
    elif name == GRADIENTS:
        if own is not None or config.work.report_only or config.work.conditions:
            unused = "--own-rates, --report-only and --conditions"
            raise ActrelaxError(f"gradients trains nothing and keeps no runs: leave {unused} out.")
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
