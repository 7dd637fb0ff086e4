"""A suite: runs that differ in their conditions, over the same seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import as_options, changed
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment

Options = Mapping[str, Any]
"""Options of an experiment by their names in config.json; a callable value is a function of the experiment."""


@dataclass(frozen=True)
class Case:
    """One of a suite's runs."""

    variant: str
    condition: str
    experiment: Experiment
    execution: Execution


@dataclass(frozen=True)
class Suite:
    """Runs that differ in their conditions, over the same seeds.

    title       what is asked, one line
    base        what all runs have in common
    conditions  name -> options that make the difference; the first two are what the others are compared with
    variants    name -> options of a whole table: every condition is run under each
    own         (variant, condition) -> options of these runs alone: a learning rate of their own
    seeds       their number (0, 1, ...), unless told otherwise
    remark      what a reader of its tables has to know besides
    execution   how the runs are computed and measured
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
        """Yield all runs, seed by seed: a suite that is broken off has whole pairs."""
        for seed in range(self.seeds):
            for variant, common in self.variants.items():
                for condition, options in self.conditions.items():
                    own = self.own.get((variant, condition), {})
                    experiment = varied(self.base, {**common, **options, **own, "seed": seed})
                    yield Case(variant, condition, experiment, self.execution.measuring(experiment))

    def varying(self) -> set[str]:
        """Options that differ between its runs, which are not to be set for all of them."""
        return {"seed"}.union(*self.conditions.values(), *self.variants.values(), *self.own.values())

    def based_on(self, experiment: Experiment, execution: Execution | None = None) -> Suite:
        """Return the same with other options for all runs.

        Raises
        ------
        ActrelaxError
            For an option that the suite varies, or one out of range.
        """
        before, after = as_options(self.base), as_options(experiment)
        for name in sorted(self.varying()):
            if before[name] != after[name]:
                option = name.replace("_", "-")
                raise ActrelaxError(f"--{option} is what the runs of this suite differ in: leave it out.")
        suite = replace(self, base=experiment, execution=execution or self.execution)
        for case in suite.cases():
            case.experiment.check()
            case.execution.check(case.experiment)
        return suite


def varied(experiment: Experiment, options: Options) -> Experiment:
    """Return an experiment with some of its options changed; those that follow from others come last."""
    fixed = changed(experiment, {name: value for name, value in options.items() if not callable(value)})
    return changed(fixed, {name: value(fixed) for name, value in options.items() if callable(value)})
