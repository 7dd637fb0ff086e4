"""Find the best learning rate of each condition of a suite, by validation on a common grid of rates.

Every condition of a suite of `actrelax reproduce` is trained at every rate, with the same seeds, on nine tenths of the
training images; the accuracy on the remaining tenth decides. Runs are stored as by `actrelax reproduce`. The results
are in --out:

    rates.csv           best rate of each condition, used by `actrelax reproduce SUITE --own-rates OUT`
    sensitivity.png     validation accuracy against the learning rate
    table.json          the same as a table, shown by `actrelax analyze OUT`
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
    """Learning rates. Default: from an eighth to eight times the suite's rate, by factors of 2."""
    seeds: int = 3
    """Number of seeds (0, 1, ...); finished runs are not repeated."""
    out: Path | None = None
    """Folder of the results. Default: results/SUITE-rates."""
    work: Work = field(default_factory=Work)
    experiment: Experiment = field(default_factory=Experiment)
    execution: Execution = field(default_factory=Execution)


CONFIGS = {
    name: (suite.title, Config(name, experiment=suite.base, execution=suite.execution))
    for name, suite in SUITES.items()
}
"""Suite -> its question, and its default options."""


def main(config: Config) -> None:
    """Do the remaining runs, and print the best rates."""
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
