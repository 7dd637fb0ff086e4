"""Test the network of a training run on its test images, or on any other data set of the same image shape.

The last line on screen is the accuracy on the test images.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from actrelax.analysis.fingerprints import verify
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import Dataset, Split
from actrelax.simulations.data.datasets import load_to_test
from actrelax.simulations.data.fingerprint import of_test_images
from actrelax.simulations.training.accuracy import accuracy, outputs
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
    """Data set, as for `actrelax train`. Default: the run's."""
    test_split: float | None = None
    """Share of test images in a PATH/ without test images, as for `actrelax train`. Default: the run's for the run's
    data set, otherwise all images."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Order of dimensions in a .npz of images with channels, as for `actrelax train`. Default: the run's layout for the
    run's data set, otherwise inferred."""
    data_dir: Path | None = None
    """Folder of NAME.npz files. Default: the run's."""
    best: bool = False
    """Test the network with the best validation accuracy instead of the last one."""
    trust: bool = False
    """Allow the Python file of the run's network to be executed, which may do anything."""
    network: str | None = None
    """Your copy of that file, as FILE.py:FUNCTION, which needs no --trust and must be unchanged."""
    accept_changes: bool = False
    """Continue even if files, images or weights have changed since training."""
    device: str = "cpu"
    """Device: cpu, cuda, cuda:N, mps, or auto for the best available."""
    json: bool = False
    """Print only JSON on standard output."""


def main(config: Config) -> None:
    """Load the run, test its network, and print the accuracy."""
    run = load_run(
        config.run, best=config.best, trust=config.trust, accept_changes=config.accept_changes, network=config.network
    )
    # bf16 and tf32 only concern training: the network is tested in the precision of its weights
    precision: Literal["fp32", "fp64"] = "fp64" if run.experiment.precision == "fp64" else "fp32"
    hardware = FullPrecision(config.device, precision=precision).resolved()
    set_up(hardware, run.experiment.seed)
    data = on_device(_images(config, run), hardware)
    if data.classes > run.classes:
        raise ActrelaxError(
            f"{data.name} has {data.classes} classes, but the network of {config.run} has {run.classes} outputs: "
            "give another --dataset."
        )
    forward = run.experiment.forward
    drops = forward.unsettled == "drop"  # an image without finite rates then counts as wrong
    respond = partial(outputs, run.network.to(hardware.device), forward.settle, check_finite=not drops)
    share = accuracy(respond, data.test, run.preprocess.to(hardware.device))
    if config.json:
        found = {"run": str(config.run), "dataset": data.name, "test_accuracy": share, "images": len(data.test.labels)}
        print(json.dumps(found))
    else:
        print(f"test accuracy {share:.2%} on {len(data.test.labels):,} images of {data.name}: {config.run}")


def _images(config: Config, run: Run) -> Dataset:
    """Load the test images, with the labels and channels of the run's network."""
    require(test_split=(config.test_split, POSITIVE, 1))
    own = run.experiment.images
    name, split, layout = config.dataset or own.dataset, config.test_split, config.layout
    is_own = run.is_own(name)
    if is_own:
        if own.test_split is not None and split not in (None, own.test_split):
            raise ActrelaxError(
                f"the run was trained with --test-split {own.test_split}, and another would test it on images that it "
                "has learned: leave --test-split out."
            )
        split, layout = own.test_split if split is None else split, layout or own.layout
    data = load_to_test(name, config.data_dir or run.execution.data_dir, split, layout)
    if is_own and layout == own.layout:
        verify(run.folder, of_test_images(data), accept_changes=config.accept_changes)
    return data if data.names is None else _translated(data, data.names, run)


def _translated(data: Dataset, names: Sequence[str], run: Run) -> Dataset:
    """Return a folder's images with the run's labels for their classes."""
    shape = run.input_shape
    known = run.names or tuple(map(str, range(run.classes)))
    for name in names:
        if name not in known:
            raise ActrelaxError(
                f"{name!r} of {data.name} is not a class of {run.folder.path}; known: {', '.join(known)}."
            )
    images, labels = data.test
    if len(shape) == 3 and shape[0] == 3:  # expand grey images to three channels
        images = images.expand(-1, 3, -1, -1)
    return replace(data, test=Split(images, torch.tensor([known.index(name) for name in names])[labels]))


if __name__ == "__main__":
    from actrelax.simulations.cli import run

    raise SystemExit(run("evaluate", sys.argv[1:]))
