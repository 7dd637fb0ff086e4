"""Summary of a training run, the content of summary.json."""

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
    """Summary of one training run. The names are stable, because scripts depend on them.

    test_accuracy          from 0 to 1, after the last epoch
    train_accuracy         from 0 to 1, during the last epoch, each batch before its update
    validation_accuracy    from 0 to 1, after the last epoch; None without validation images
    wall_seconds           time of training and evaluation, without interruptions
    images_per_second      speed of training, all processes together
    steps                  number of relaxation steps, also for --steps auto; None as for `equilibrium`
    equilibrium            hidden population -> distance from equilibrium (`convergence.distances`), for the first batch
                           and the trained weights; None for backprop, and for relaxations without an equilibrium
    largest_bracket        upper bound on |-x + feedback| without clip, for the same batch and weights, or None
    processes              number of processes that shared each batch
    hash                   hash of the options that determine the result, which also identifies a suite's runs
    best_epoch             epoch with the best validation accuracy, whose network is in best.pt, or None
    test_accuracy_at_best  test accuracy after that epoch, or None
    unsettled              number of images, over all epochs, from which a network with cycles learned, or would have,
                           before both phases had settled; None without cycles
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
    unsettled: int | None = None


def versions() -> dict[str, str]:
    """Return the versions of Python, NumPy, PyTorch and this package, and the commit of a checkout."""
    own = {"actrelax": version("actrelax")} | ({"commit": commit()} if commit() else {})
    others = {name: version(name) for name in ("numpy", "torch")}
    return {"python": platform.python_version(), **own, **others}


def parsed(found: Mapping[str, Any], where: str) -> Summary:
    """Return the summary in the content of a file; error messages begin with `where`."""
    from typeguard import TypeCheckError, check_type  # here: benchmarks/gpu.py runs without it

    hints, values = typing.get_type_hints(Summary), {}
    for f in fields(Summary):
        if f.name not in found and f.default is not MISSING:  # a later field, which older runs lack
            continue
        try:
            values[f.name] = check_type(found[f.name], hints[f.name])
        except KeyError as error:
            raise ActrelaxError(f"{where} lacks {error}.") from error
        except TypeCheckError as error:
            raise ActrelaxError(f"{where} has {str(found[f.name])[:40]!r} for {f.name}.") from error
    return Summary(**values)
