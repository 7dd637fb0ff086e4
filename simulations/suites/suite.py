"""Suites: runs of several conditions over the same seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import as_options, changed
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment

Options = Mapping[str, Any]
"""Option -> value, with the names of config.json; a callable value is computed from the experiment."""


@dataclass(frozen=True)
class Case:
    """One run of a suite."""

    variant: str
    condition: str
    experiment: Experiment
    execution: Execution


@dataclass(frozen=True)
class Suite:
    """Runs of several conditions over the same seeds.

    title       question of the suite, in one line
    base        options shared by all runs
    conditions  name -> options of the condition; the first two conditions are the references of the others
    variants    name -> options of one table, which contains all conditions
    own         (variant, condition) -> additional options of these runs, such as a learning rate
    seeds       number of seeds, 0 to `seeds` - 1
    remark      additional paragraph for readers of the tables
    execution   options of computation and measurement
    """

    title: str
    base: Experiment
    conditions: Mapping[str, Options]
    variants: Mapping[str, Options] = field(default_factory=lambda: {"": {}})
    own: Mapping[tuple[str, str], Options] = field(default_factory=dict)
    seeds: int = 5
    remark: str = ""
    execution: Execution = field(default_factory=lambda: Execution(threads=1, measure_alignment=100))

    def cases(self) -> Iterator[Case]:
        """Yield all runs, seed by seed, so that an interrupted suite has complete pairs."""
        for seed in range(self.seeds):
            for variant, common in self.variants.items():
                for condition, options in self.conditions.items():
                    own = self.own.get((variant, condition), {})
                    experiment = varied(self.base, {**common, **options, **own, "seed": seed})
                    yield Case(variant, condition, experiment, self.execution.measuring(experiment))

    def varying(self) -> set[str]:
        """Return the options that differ between the runs of the suite."""
        return {"seed"}.union(*self.conditions.values(), *self.variants.values(), *self.own.values())

    def based_on(self, experiment: Experiment, execution: Execution | None = None) -> Suite:
        """Return the suite with other options for all runs.

        Raises
        ------
        ActrelaxError
            If the suite itself varies an option, or a value is out of range.
        """
        before, after = as_options(self.base), as_options(experiment)
        for name in sorted(self.varying()):
            if before[name] != after[name]:
                option = name.replace("_", "-")
                raise ActrelaxError(f"--{option} differs between the runs of this suite: leave it out.")
        suite = replace(self, base=experiment, execution=execution or self.execution)
        for case in suite.cases():
            case.experiment.check()
            case.execution.check(case.experiment)
        return suite


def varied(experiment: Experiment, options: Options) -> Experiment:
    """Return an experiment with changed options; callable values are computed after all others."""
    fixed = changed(experiment, {name: value for name, value in options.items() if not callable(value)})
    return changed(fixed, {name: value(fixed) for name, value in options.items() if callable(value)})
