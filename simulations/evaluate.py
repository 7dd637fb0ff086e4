"""Test a trained run's network on the images it was trained for, or on any other set of the same shape.

The last line on screen is its accuracy on the test images.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import load
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.assemble import on_device, set_up
from actrelax.simulations.training.hardware import FullPrecision
from actrelax.simulations.training.saved import load_run


@dataclass(frozen=True)
class Config:
    """Options of an evaluation."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    dataset: str | None = None
    """Any that `actrelax train` takes; the run's own unless given."""
    data_dir: Path | None = None
    """Where NAME.npz files are; the run's own unless given."""
    device: str = "cpu"
    """cpu, cuda, cuda:N, mps, or auto for the best that is there."""
    json: bool = False
    """Print JSON, and nothing else, on standard output."""


def main(config: Config) -> None:
    """Load, test, say."""
    run = load_run(config.run)
    # bf16 and tf32 are of training: the network is tested with the weights that it has
    precision: Literal["fp32", "fp64"] = "fp64" if run.experiment.precision == "fp64" else "fp32"
    hardware = FullPrecision(config.device, precision=precision).resolved()
    set_up(hardware, run.experiment.seed)
    name = config.dataset or run.experiment.images.dataset
    data = on_device(load(name, config.data_dir or run.execution.data_dir), hardware)
    outputs = run.network.populations[run.network.output].shape[0]
    if data.classes > outputs:
        raise ActrelaxError(
            f"{data.name} has {data.classes} classes, the network of {config.run} tells {outputs} apart."
        )
    share = accuracy(run.network.to(hardware.device), data.test, run.preprocess.to(hardware.device))
    if config.json:
        found = {"run": str(config.run), "dataset": data.name, "test_accuracy": share, "images": len(data.test.labels)}
        print(json.dumps(found))
    else:
        print(f"test accuracy {share:.2%} on {len(data.test.labels):,} images of {data.name}: {config.run}")


if __name__ == "__main__":
    from actrelax.simulations.cli import run

    raise SystemExit(run("evaluate", sys.argv[1:]))
