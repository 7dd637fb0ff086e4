"""Images to measure a network with: the real ones that it usually takes, or random ones of their shape."""

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

RANDOM = "random images, no file of real ones being at hand"


@dataclass(frozen=True)
class Source:
    """Where images are from.

    dataset   by name or file; None for those that the network usually takes
    data_dir  where NAME.npz files are; $ACTRELAX_DATA unless given, or else ./data
    layout    of a .npz of images with channels
    """

    dataset: str | None = None
    data_dir: Path | None = None
    layout: Layout | None = None


USUAL = Source()


def images_for(network: str, source: Source, batch_size: int, hardware: Hardware) -> Dataset:
    """Load images for a network onto the device; random ones where no file of the usual ones is there.

    Raises
    ------
    ActrelaxError
        For an unknown network or data set, or fewer images than a batch.
    """
    name = source.dataset or at_hand(network, source.data_dir)
    if name is not None:
        data = load_to_test(name, source.data_dir, layout=source.layout)
    elif source.layout is not None:
        raise ActrelaxError("--layout is for .npz files, and random images are taken: leave it out.")
    else:
        data = random_images(usual_shape(network), 10, 8 * batch_size)
    count = len(data.train.images)
    if count < batch_size:
        raise ActrelaxError(
            f"--batch-size must be at most {count}, the training images of {data.name}, got {batch_size}."
        )
    return on_device(data, hardware)


def random_images(shape: tuple[int, ...], classes: int, count: int) -> Dataset:
    """Draw `count` images of 8 bits for training, and one for testing."""
    stream = random_stream(0, "images")
    images = torch.randint(256, (count + 1, *shape), generator=stream, dtype=torch.uint8)
    labels = torch.randint(classes, (count + 1,), generator=stream)
    return Dataset(RANDOM, classes, Split(images[1:], labels[1:]), Split(images[:1], labels[:1]))
