"""Find the learning rate of each condition of a suite: a grid, the same for all, and images held out to judge by.

Every condition of one of the suites of `actrelax reproduce` is trained at every rate, with the same seeds, on the
training images but for a tenth; the accuracy of that tenth decides. Runs are kept as `actrelax reproduce` keeps them.
In --out:

    rates.csv           each condition's best rate; `actrelax reproduce SUITE --own-rates OUT` takes it from there
    sensitivity.png     accuracy of the images that were held out, against the rate
    table.json          the same as a table; `actrelax analyze OUT` shows it
    runs.csv, curves.csv
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from actrelax.simulations.suites import learning_rates
from actrelax.simulations.suites.commands import command_of
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.runner import Work, carry_out
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.idle import idle_in_all
from actrelax.simulations.training.options import LARGEST, POSITIVE, require


@dataclass(frozen=True)
class Config:
    """Options of a sweep."""

    suite: tyro.conf.Suppress[str]
    rates: tuple[float, ...] = ()
    """Learning rates; from an eighth to eight times the suite's own, by factors of 2, unless given."""
    seeds: int = 3
    """How many seeds (0, 1, ...); runs of those that were swept before are not done again."""
    out: Path | None = None
    """Folder of what came out; results/SUITE-rates unless given."""
    work: Work = field(default_factory=Work)
    experiment: Experiment = field(default_factory=Experiment)
    execution: Execution = field(default_factory=Execution)


CONFIGS = {
    name: (suite.title, Config(name, experiment=suite.base, execution=suite.execution))
    for name, suite in SUITES.items()
}
"""Suite -> what it asks, and its options unless they are given."""


def main(config: Config) -> None:
    """Do what is not done, and say which rates are best."""
    require(seeds=(config.seeds, 1, 10_000))
    for rate in config.rates:
        require(rates=(rate, POSITIVE, LARGEST))
    name, suite = config.suite, replace(SUITES[config.suite], seeds=config.seeds)
    sweep = learning_rates.swept(suite.based_on(config.experiment, config.execution), config.rates)
    out = config.out or Path("results") / f"{name}-rates"
    for sentence in idle_in_all([case.experiment for case in sweep.suite.cases()], SUITES[name].base):
        print(sentence, file=sys.stderr)
    usual, given = (SUITES[name].base, SUITES[name].execution), (config.experiment, config.execution)
    command = command_of("sweep", name, usual, given, config.seeds, rates=config.rates)
    carry_out(sweep.suite, out, config.work, lambda found: learning_rates.write(out, name, sweep, found, command))
    print(f"written to {out}")


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("sweep", sys.argv[1:]))
