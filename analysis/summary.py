"""The outcome of a training run, as its summary.json has it."""

from __future__ import annotations

import platform
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.metadata import version
from typing import Any

from actrelax.analysis.checkout import commit
from actrelax.models.errors import ActrelaxError


@dataclass(frozen=True)
class Summary:
    """The outcome of one training run. The names are stable: scripts depend on them.

    test_accuracy, train_accuracy  from 0 to 1, after and during the last epoch (each batch before its update)
    validation_accuracy            of the images that were held out; None without
    wall_seconds                   of training and evaluation, over all sittings
    images_per_second              of training, all processes together
    steps                          of a relaxation, those that --steps auto chose too; None as for `equilibrium`
    equilibrium                    hidden population -> how far relaxations end from it, at the end of training, on the
                                   first batch: see `convergence.distances`; None for backprop and where there is none
    largest_bracket                upper bound on |-x + feedback| without clip, as for `equilibrium`
    processes                      that shared each batch
    hash                           what identifies the options that determine the result, also among a suite's runs
    best_epoch                     with the best validation accuracy, whose network is in best.pt; None without
    test_accuracy_at_best          after that epoch
    """

    test_accuracy: float
    train_accuracy: float
    validation_accuracy: float | None
    rule: str
    assumptions: str
    dataset: str
    network: str
    epochs: int
    seed: int
    wall_seconds: float
    images_per_second: float
    device: str
    versions: Mapping[str, str]
    steps: int | None = None
    equilibrium: Mapping[str, Mapping[str, float]] | None = None
    largest_bracket: float | None = None
    processes: int = 1
    hash: str | None = None
    best_epoch: int | None = None
    test_accuracy_at_best: float | None = None


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, and the commit of a checkout."""
    own = {"actrelax": version("actrelax")} | ({"commit": commit()} if commit() else {})
    others = {name: version(name) for name in ("numpy", "torch")}
    return {"python": platform.python_version(), **own, **others}


def parsed(found: Mapping[str, Any], where: str) -> Summary:
    """Return the outcome that a file has; errors begin with `where`, the file's name."""
    from typeguard import TypeCheckError, check_type  # here: benchmarks/gpu.py runs without it

    hints, values = typing.get_type_hints(Summary), {}
    for f in fields(Summary):
        if f.name not in found and f.default is not MISSING:  # it came later: runs from before lack it
            continue
        try:
            values[f.name] = check_type(found[f.name], hints[f.name])
        except KeyError as error:
            raise ActrelaxError(f"{where} lacks {error}.") from error
        except TypeCheckError as error:
            raise ActrelaxError(f"{where} has {str(found[f.name])[:40]!r} for {f.name}.") from error
    return Summary(**values)
