"""Options in config.json, with the names of the command line."""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from actrelax.analysis.runs import VERSION, RunFolder
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment

T = TypeVar("T")

_OF_CYCLES = ("settle_steps", "settle_eta", "settle_tolerance", "unsettled", "unsettled_above", "sample_clip")
_STABILITY = ("feedback_strength", "recurrent_bound")
_UNSET = dict.fromkeys(("width", "skips", "norm", *_OF_CYCLES, *_STABILITY, "train_images"))
LATER: dict[str, Any] = {**_UNSET, "lift": [], "freeze": []}
"""Options that a configuration has only where they are given: older ones, and their fingerprints, lack them."""


def as_options(part: Experiment | Execution) -> dict[str, Any]:
    """Return option -> value, without nesting and ready for JSON."""
    flat: dict[str, Any] = {}
    for name, value in asdict(part).items():
        flat.update(value if isinstance(value, dict) else {name: value})
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in flat.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def hash_of(experiment: Experiment) -> str:
    """Return a hash of the options that differ from their defaults, which identifies an experiment.

    Paths must be absolute. Adding an option with the former behaviour as its default does not change hashes.
    """
    usual = as_options(Experiment())
    options = {name: value for name, value in as_options(experiment).items() if value != usual[name]}
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def as_config(experiment: Experiment, execution: Execution) -> dict[str, Any]:
    """Return the content of config.json."""
    options = {
        name: value for name, value in as_options(experiment).items() if name not in LATER or value != LATER[name]
    }
    computed = {name: value for name, value in as_options(execution).items() if name != "watch" or value}
    return {"version": VERSION, "experiment": options, "execution": computed}


def from_config(config: Mapping[str, Any]) -> tuple[Experiment, Execution]:
    """Return the experiment and the execution of a config.json, the inverse of `as_config`.

    Raises
    ------
    ActrelaxError
        If options are missing, unknown or of another type.
    """
    expected = as_config(Experiment(), Execution())
    for name in ("experiment", "execution"):
        part = config.get(name)
        differing = set(part if isinstance(part, dict) else ()) ^ expected[name].keys()
        if differing := differing.difference([*LATER, "watch"]):
            raise ActrelaxError(f"the configuration has missing or unknown options: {', '.join(sorted(differing))}.")
    options, computed = {**LATER, **config["experiment"]}, {"watch": False, **config["execution"]}
    return structured(Experiment, options), structured(Execution, computed)


def read_config(folder: RunFolder) -> tuple[Experiment, Execution]:
    """Return the experiment and the execution of a run.

    Raises
    ------
    ActrelaxError
        If config.json can't be read, or is not the configuration of a training.
    """
    return from_config(folder.training_config())


def changed(experiment: Experiment, options: Mapping[str, Any]) -> Experiment:
    """Return an experiment with changed options.

    Raises
    ------
    ActrelaxError
        For an unknown option, or a value of another type.
    """
    before = as_options(experiment)
    if unknown := options.keys() - before.keys():
        raise ActrelaxError(f"an experiment has no option {', '.join(sorted(unknown))}.")
    return structured(Experiment, {**before, **options})


def structured(kind: type[T], options: Mapping[str, Any]) -> T:
    """Create a dataclass, including nested ones, from flat options."""
    from typeguard import TypeCheckError, check_type  # here: benchmarks/gpu.py runs without it

    hints = typing.get_type_hints(kind)
    values = {}
    for f in fields(kind):  # type: ignore[arg-type]
        hint = hints[f.name]
        if is_dataclass(hint):
            values[f.name] = structured(typing.cast("type[Any]", hint), options)
            continue
        value = options[f.name]
        if isinstance(value, str) and Path in typing.get_args(hint):
            value = Path(value)
        value = tuple(value) if isinstance(value, list) and typing.get_origin(hint) is tuple else value
        try:
            if isinstance(value, bool) and hint is not bool:  # a bool is also an int
                raise TypeCheckError("a number or a name")
            values[f.name] = check_type(value, hint)
        except TypeCheckError as error:
            raise ActrelaxError(f"the configuration has the invalid value {value!r} for {f.name}.") from error
    return kind(**values)
