"""What a suite is: runs that differ in their conditions, over the same seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.experiment import Experiment, as_options, from_options

Options = Mapping[str, Any]
"""Options of `actrelax train` by the names that config.json has; a callable value is one of the experiment's others."""


WATCHING = "measure_alignment"
"""How often updates are compared with backprop's, which changes no result and which backprop itself leaves out."""


@dataclass(frozen=True)
class Case:
    """One of a suite's runs."""

    variant: str
    condition: str
    experiment: Experiment


@dataclass(frozen=True)
class Suite:
    """Runs that differ in their conditions, over the same seeds.

    title       what is asked, one line
    base        what all runs have in common
    conditions  name -> options that make the difference; the first two are what the others are compared with
    variants    name -> options of a whole table: every condition is run under each
    own         (variant, condition) -> options of these runs alone: a learning rate of their own
    seeds       how many (0, 1, ...), unless told otherwise
    remark      what a reader of its tables has to know besides
    """

    title: str
    base: Experiment
    conditions: Mapping[str, Options]
    variants: Mapping[str, Options] = field(default_factory=lambda: {"": {}})
    own: Mapping[tuple[str, str], Options] = field(default_factory=dict)
    seeds: int = 5
    remark: str = ""

    def cases(self) -> Iterator[Case]:
        """Yield all runs, seed by seed: a suite that is broken off has whole pairs."""
        for seed in range(self.seeds):
            for variant, common in self.variants.items():
                for condition, options in self.conditions.items():
                    own = self.own.get((variant, condition), {})
                    yield Case(variant, condition, varied(self.base, {**common, **options, **own, "seed": seed}))

    def varying(self) -> set[str]:
        """Options that differ between its runs, which are not to be set for all of them."""
        named = [*self.conditions.values(), *self.variants.values(), *self.own.values()]
        return {"seed"}.union(*named) - {WATCHING}

    def based_on(self, experiment: Experiment) -> Suite:
        """Return the same with other options for all runs.

        Raises
        ------
        ActrelaxError
            For an option that the suite varies.
        """
        before, after = as_options(self.base), as_options(experiment)
        for name in sorted(self.varying()):
            if before[name] != after[name]:
                option = name.replace("_", "-")
                raise ActrelaxError(f"--{option} is what the runs of this suite differ in: leave it out.")
        return replace(self, base=experiment)


def varied(experiment: Experiment, options: Options) -> Experiment:
    """Return an experiment with some of its options changed; those that follow from others come last."""
    fixed = {name: value for name, value in options.items() if not callable(value)}
    changed = from_options(as_options(experiment) | fixed)
    following = {name: value(changed) for name, value in options.items() if callable(value)}
    return from_options(as_options(changed) | following)
