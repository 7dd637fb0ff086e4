"""Images to measure a network with: the real ones that it usually takes, or random ones of their shape."""

from __future__ import annotations

from pathlib import Path

import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import Dataset, Split, random_stream
from actrelax.simulations.data.datasets import load_to_test
from actrelax.simulations.training.assemble import on_device
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.usual_images import at_hand, usual_shape

RANDOM = "random images, no file of real ones being at hand"


def images_for(
    network: str, dataset: str | None, data_dir: Path | None, batch_size: int, hardware: Hardware
) -> Dataset:
    """Load images for a network onto the device: `dataset`, the usual one where its file is there, or random ones.

    Raises
    ------
    ActrelaxError
        For an unknown network or data set, or fewer images than a batch.
    """
    name = dataset or at_hand(network, data_dir)
    data = random_images(usual_shape(network), 10, 8 * batch_size) if name is None else load_to_test(name, data_dir)
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
