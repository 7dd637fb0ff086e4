"""Runs read from their folders, with labels made of the options that differ."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actrelax.analysis.files import listed
from actrelax.analysis.reports.results_table import Outcome, outcome_of
from actrelax.analysis.runs import RunFolder, State, flat
from actrelax.analysis.summary import Summary
from actrelax.models.errors import ActrelaxError

SAID = {State.FINISHED: "finished", State.DIVERGED: "diverged", State.BEGUN: "not finished"}

TASK = ("dataset", "layout", "test_split", "train_images", "validation", "epochs", "network")
"""Options of the task: which network learns what, from how many images and for how long."""
OF_AR = (
    *("assumptions", "lift", "integrator", "steps", "tolerance", "tolerance_of", "max_steps", "eta", "dt", "duration"),
    *("tau", "tau_spread", "tau_spread_over", "start", "clip", "noise", "input_noise", "delay"),
    *("feedback_transform", "feedback_strength", "evaluation", "decay"),
)
"""Options without effect on other rules than AR, whose configurations have these options, too."""


@dataclass(frozen=True)
class Run:
    """Content of a run's folder.

    name     name of the folder; its path if several folders have the same name
    config   option -> value, of the experiment and of its execution
    summary  None unless the run has finished
    outcome  curves of the epochs so far; `outcome.condition` distinguishes runs that differ in more than the seed
    """

    name: str
    folder: RunFolder
    config: Mapping[str, Any]
    summary: Summary | None
    outcome: Outcome

    @property
    def said(self) -> str:
        """State of the run, with the number of epochs if it has not finished."""
        epochs = f"{self.outcome.epochs} of {self.config['epochs']} epochs"
        return SAID[self.outcome.state] + ("" if self.summary else f", {epochs}")

    @property
    def task(self) -> tuple[Any, ...]:
        """Values of the options of `TASK`."""
        return tuple(self.config.get(option) for option in TASK)


def run_folders(paths: Iterable[Path]) -> list[RunFolder]:
    """Return the runs in folders, each of which is a run or contains runs.

    Raises
    ------
    ActrelaxError
        If a folder contains no run.
    """
    found: dict[Path, RunFolder] = {}
    for path in paths:
        inside = [] if RunFolder(path).is_begun() or not path.is_dir() else listed(path)
        here = [f for f in map(RunFolder, inside or [path]) if f.is_begun()]
        if not here:
            raise ActrelaxError(f"{path} holds no run: give folders that actrelax train or actrelax demo wrote.")
        found |= {folder.path.resolve(): folder for folder in here}
    return list(found.values())


def gather(folders: Sequence[RunFolder]) -> list[Run]:
    """Read runs from their folders.

    Raises
    ------
    ActrelaxError
        If a run can't be read.
    """
    names = [folder.path.resolve().name for folder in folders]
    names = [n if names.count(n) == 1 else str(f.path) for n, f in zip(names, folders, strict=True)]
    configs = [folder.training_config() for folder in folders]
    experiments = [config["experiment"] for config in configs]
    labels = _labels(experiments, [folder.state for folder in folders], names)
    runs = []
    for name, folder, config, label in zip(names, folders, configs, labels, strict=True):
        summary = folder.summary() if folder.state is State.FINISHED else None
        outcome = outcome_of(folder, label, config["experiment"]["seed"], name)
        runs.append(Run(name, folder, flat(config), summary, outcome))
    return runs


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options that differ between configurations, in order of first appearance.

    Examples
    --------
    >>> differing([{"lr": 0.1, "seed": 0}, {"lr": 0.1, "seed": 1, "clip": 50.0}])
    ['seed', 'clip']
    """
    names = dict.fromkeys(name for config in configs for name in config)
    return [name for name in names if any(c.get(name) != configs[0].get(name) for c in configs)]


def rule_of(config: Mapping[str, Any]) -> str:
    """Return "backprop" or "bptt", or the name of AR's assumptions."""
    return ",".join([config["assumptions"], *config.get("lift", ())]) if config["rule"] == "ar" else str(config["rule"])


def shown(value: Any) -> str:
    """Format the value of an option for a table."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _labels(configs: Sequence[Mapping[str, Any]], states: Sequence[State], names: Sequence[str]) -> list[str]:
    """Return the label of each run: its rule, and the options that differ between runs.

    The options of AR (`OF_AR`) are compared only among the runs of one rule. Runs that repeat a condition with the same
    seed, and runs that have not ended, are labelled by their names.
    """
    labels, varying = [], [name for name in differing(configs) if name not in ("rule", "seed")]
    for config in configs:
        rule = rule_of(config)
        alike = differing([c for c in configs if rule_of(c) == rule])
        own = [name for name in varying if name in alike or name not in OF_AR]
        labels.append(", ".join([rule, *(f"{name} {shown(config.get(name))}" for name in own)]))
    ended = [state.is_final for state in states]
    seeds = [config["seed"] for config in configs]
    samples = Counter((label, seed) for label, seed, has in zip(labels, seeds, ended, strict=True) if has)
    repeated = {label for (label, _), count in samples.items() if count > 1}
    return [
        f"{name} ({SAID[State.BEGUN]})" if not has else name if label in repeated else label
        for label, name, has in zip(labels, names, ended, strict=True)
    ]


def command(config: Mapping[str, Any]) -> str:
    """Return the command that repeats a run.

    Examples
    --------
    >>> command({"rule": "ar", "batch_size": 64, "clip": None, "channels_last": True, "json": False})
    'actrelax train --rule ar --batch-size 64 --channels-last'
    """
    given = {name: value for name, value in config.items() if value is not None and value is not False}
    return shlex.join(["actrelax", "train", *as_words(given)])


def as_words(options: Mapping[str, Any]) -> list[str]:
    """Return options as words of a command line; an option with a list is repeated.

    Examples
    --------
    >>> as_words({"clip": None, "json": True, "channels_last": False, "rates": (0.1, 0.2)})
    ['--clip', 'None', '--json', '--no-channels-last', '--rates', '0.1', '0.2']
    """
    words = []
    repeated = [(name, each) for name, value in options.items() for each in (value if type(value) is list else [value])]
    for name, value in repeated:
        option = name.replace("_", "-")
        words.append(f"--no-{option}" if value is False else f"--{option}")
        if not isinstance(value, bool):
            words += [str(each) for each in (value if isinstance(value, tuple) else (value,))]
    return words
