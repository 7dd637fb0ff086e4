"""Test a trained run's network on the images it was trained for, or on any other set of the same shape.

The last line on screen is its accuracy on the test images.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from actrelax.analysis.fingerprints import verify
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import Dataset, Split
from actrelax.simulations.data.datasets import load_to_test
from actrelax.simulations.data.fingerprint import of_test_images
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.assemble import on_device, set_up
from actrelax.simulations.training.hardware import FullPrecision
from actrelax.simulations.training.options import POSITIVE, require
from actrelax.simulations.training.saved import Run, load_run


@dataclass(frozen=True)
class Config:
    """Options of an evaluation."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    dataset: str | None = None
    """Any that `actrelax train` takes; the run's own unless given."""
    test_split: float | None = None
    """As that of `actrelax train`; the run's own with its own data set, otherwise all images of a PATH/ without test
    images, unless given."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Of a .npz of images with channels, as actrelax train takes it; for the run's own set that of the run."""
    data_dir: Path | None = None
    """Where NAME.npz files are; the run's own unless given."""
    best: bool = False
    """Test the network with the best validation accuracy, not the last one."""
    trust: bool = False
    """Run the Python file that the run names as its network, which may do anything."""
    network: str | None = None
    """Your own copy of that file, FILE.py:FUNCTION: it needs no --trust, and must be unchanged."""
    accept_changes: bool = False
    """Go on although files, images or weights changed since the run was trained."""
    device: str = "cpu"
    """cpu, cuda, cuda:N, mps, or auto for the best that is there."""
    json: bool = False
    """Print JSON, and nothing else, on standard output."""


def main(config: Config) -> None:
    """Load, test, say."""
    run = load_run(
        config.run, best=config.best, trust=config.trust, accept_changes=config.accept_changes, network=config.network
    )
    # bf16 and tf32 are of training: the network is tested with the weights that it has
    precision: Literal["fp32", "fp64"] = "fp64" if run.experiment.precision == "fp64" else "fp32"
    hardware = FullPrecision(config.device, precision=precision).resolved()
    set_up(hardware, run.experiment.seed)
    data = on_device(_images(config, run), hardware)
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


def _images(config: Config, run: Run) -> Dataset:
    """Load the test images, with labels and channels as the run's network has them."""
    require(test_split=(config.test_split, POSITIVE, 1))
    own = run.experiment.images
    name, split, layout = config.dataset or own.dataset, config.test_split, config.layout
    if name == own.dataset:
        split, layout = own.test_split if split is None else split, layout or own.layout
    data = load_to_test(name, config.data_dir or run.execution.data_dir, split, layout)
    if config.dataset is None and (split, layout) == (own.test_split, own.layout):
        verify(run.folder, of_test_images(data), accept_changes=config.accept_changes)
    return data if data.names is None else _translated(data, data.names, run)


def _translated(data: Dataset, names: Sequence[str], run: Run) -> Dataset:
    """Return a folder's images with the labels that the run has for classes of these names."""
    shape = run.network.populations[run.network.input].shape
    known = run.names or tuple(map(str, range(run.network.populations[run.network.output].shape[0])))
    for name in names:
        if name not in known:
            raise ActrelaxError(f"{name!r} of {data.name} is not a class of {run.folder.path}: {', '.join(known)}.")
    images, labels = data.test
    if len(shape) == 3 and shape[0] == 3:  # grey ones among coloured ones
        images = images.expand(-1, 3, -1, -1)
    return replace(data, test=Split(images, torch.tensor([known.index(name) for name in names])[labels]))


if __name__ == "__main__":
    from actrelax.simulations.cli import run

    raise SystemExit(run("evaluate", sys.argv[1:]))
