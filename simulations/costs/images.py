"""Images for measuring a network: its usual data set, or random images of the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import Dataset, Split, random_stream
from actrelax.simulations.data.datasets import Layout, load_to_test
from actrelax.simulations.training.assemble import on_device
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.usual_images import at_hand, usual_shape

RANDOM = "random images, because no data set was found"


@dataclass(frozen=True)
class Source:
    """Source of the images.

    dataset   name or file; None for the network's usual data set
    data_dir  folder of NAME.npz files; by default $ACTRELAX_DATA, else ./data
    layout    layout of a .npz file whose images have channels
    """

    dataset: str | None = None
    data_dir: Path | None = None
    layout: Layout | None = None


USUAL = Source()


def images_for(network: str, source: Source, batch_size: int, hardware: Hardware) -> Dataset:
    """Load images for a network onto the device; random ones if its usual data set is not found.

    Raises
    ------
    ActrelaxError
        For an unknown network or data set, or if there are fewer images than in a batch.
    """
    name = source.dataset or at_hand(network, source.data_dir)
    if name is not None:
        data = load_to_test(name, source.data_dir, layout=source.layout)
    elif source.layout is not None:
        raise ActrelaxError("--layout is for .npz files, but the images are random: leave it out.")
    else:
        data = random_images(usual_shape(network), 10, 8 * batch_size)
    count = len(data.train.images)
    if count < batch_size:
        raise ActrelaxError(
            f"--batch-size must be at most {count}, the training images of {data.name}, got {batch_size}."
        )
    return on_device(data, hardware)


def random_images(shape: tuple[int, ...], classes: int, count: int) -> Dataset:
    """Draw `count` 8-bit images for training, and one for testing."""
    stream = random_stream(0, "images")
    images = torch.randint(256, (count + 1, *shape), generator=stream, dtype=torch.uint8)
    labels = torch.randint(classes, (count + 1,), generator=stream)
    return Dataset(RANDOM, classes, Split(images[1:], labels[1:]), Split(images[:1], labels[:1]))
