"""A setting of the explorer: options of `actrelax relax`, written as a command line and as Python."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from actrelax.analysis.reports.load_runs import as_words
from actrelax.models.network import ARCHITECTURES
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.problem_options import ProblemOptions, of_run
from actrelax.simulations.training.relaxation import Relaxation

SHOWN = [name for name, architecture in ARCHITECTURES.items() if not architecture.is_recurrent]
"""Networks that the explorer offers."""


@dataclass(frozen=True)
class Setting:
    """One image, one network, and the options of its relaxation."""

    problem: ProblemOptions = field(default_factory=lambda: ProblemOptions(batch_size=1, model=Model("digits-cnn")))
    relaxation: Relaxation = field(default_factory=lambda: Relaxation(integrator="euler", steps=100))

    @classmethod
    def of_run(cls, run: Path, *, trust: bool = False, accept_changes: bool = False) -> Setting:
        """Return the setting of a run's network with the run's assumptions, relaxed by Euler's method.

        Raises
        ------
        ActrelaxError
            If there is no run, or its options can't be read.
        """
        found = of_run(["--run", str(run)])
        assert found is not None
        problem = replace(found[0], run=run, batch_size=1, trust=trust, accept_changes=accept_changes)
        return cls(problem, replace(found[1], integrator="euler", steps=100))

    def command(self) -> str:
        """Return the command that relaxes the same: `actrelax relax` with the options that are not its defaults."""
        usual: tuple[ProblemOptions, Relaxation] | None = None
        words = []
        if self.problem.run is not None:
            usual = of_run(["--run", str(self.problem.run)])
            words = ["--run", str(self.problem.run)]
        before, after = (
            {**flat(problem), **flat(relaxation)}
            for problem, relaxation in (usual or (ProblemOptions(), Relaxation()), (self.problem, self.relaxation))
        )
        changed = {name: after[name] for name in before if name != "run" and after[name] != before[name]}
        return shlex.join(["actrelax", "relax", *words, *as_words(changed)])

    def python(self) -> str:
        """Return the same relaxation as a Python program, whose `trajectory` has all times."""
        continuous = self.relaxation.is_continuous
        paths = "from pathlib import Path\n\n" if "Path(" in as_call(self.problem) else ""
        held = ", without_continuous_plasticity" if continuous else ""
        return f"""\
{paths}\
from actrelax import solve
from actrelax.simulations.data import random_stream
from actrelax.simulations.training.experiment import Model
from actrelax.simulations.training.hardware import FullPrecision
from actrelax.simulations.training.problem_options import ProblemOptions, make_sample{held}
from actrelax.simulations.training.relaxation import Relaxation

options = {as_call(self.problem)}
relaxation = {as_call(self.relaxation)}
assumptions = {"without_continuous_plasticity(relaxation.knobs)[0]" if continuous else "relaxation.knobs"}

sample = make_sample(options, assumptions, FullPrecision().resolved())
problem = sample.problem(relaxation, options.seed, assumptions)
noise = random_stream(options.seed, "noise")
trajectory = solve(problem, relaxation.integrator, relaxation.as_steps, record=True, generator=noise)
print(trajectory.error(sample.gradients()))
"""


def flat(options: Any) -> dict[str, Any]:
    """Return option -> value of a dataclass of options, those of the groups in it among them."""
    found: dict[str, Any] = {}
    for each in fields(options):
        value = getattr(options, each.name)
        value = list(value) if isinstance(value, tuple) else value
        found |= flat(value) if is_dataclass(value) else {each.name: value}
    return found


def as_call(options: Any) -> str:
    """Return a dataclass of options as the Python call that makes it, without fields that have their defaults.

    Examples
    --------
    >>> as_call(Relaxation(steps=3))
    'Relaxation(steps=3)'
    """
    if isinstance(options, Path):
        return f"Path({str(options)!r})"
    if not is_dataclass(options):
        return repr(options)
    usual = type(options)()  # type: ignore[misc]
    given = {each.name: getattr(options, each.name) for each in fields(options)}
    changed = [f"{name}={as_call(value)}" for name, value in given.items() if value != getattr(usual, name)]
    return f"{type(options).__name__}({', '.join(changed)})"


@dataclass(frozen=True)
class Lesson:
    """A training that can be watched: a digits network and the rule by which it learns."""

    network: str = "digits-cnn"
    rule: str = "ar"
    """A name of assumptions, or "backprop"."""
    epochs: int = 10
    lr: float = 0.1
    seed: int = 0

    def experiment(self) -> Experiment:
        """Return the training as `actrelax train` does it."""
        backprop = self.rule == "backprop"
        return Experiment(
            rule="backprop" if backprop else "ar",
            epochs=self.epochs,
            seed=self.seed,
            model=Model(self.network),
            relaxation=Relaxation("ar" if backprop else self.rule),
            optimisation=Optimisation(lr=self.lr),
        )

    def command(self) -> str:
        """Return the command that trains the same."""
        before, after = flat(Experiment()), flat(self.experiment())
        changed = {name: after[name] for name in before if after[name] != before[name]}
        angles = [] if self.rule == "backprop" else ["--measure-alignment", "5"]
        return shlex.join(["actrelax", "train", *as_words(changed), *angles])
