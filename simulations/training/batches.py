"""Batches of training images on the device: order, augmentation and normalisation.

Order and augmentation depend only on seed and epoch, and are drawn on the CPU for whole batches. They are therefore the
same for any rule, device and number of processes, and after any interruption.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actrelax.models.network import check_stimuli
from actrelax.simulations.data import Dataset, Split, random_stream
from actrelax.simulations.training.processes import ALONE, Processes

PADDING = 4
"""Width in pixels of the zero padding for random crops."""


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of stored images to the network's input: (x - mean) / std, after dividing uint8 by 255.

    dtype          dtype of the network
    mean, std      tensors on the network's device that broadcast with an image; None for no normalisation
    channels_last  memory layout of the images
    shape          shape of one image; None for any. Images of another shape could broadcast with mean and std
    """

    dtype: torch.dtype
    mean: Tensor | None = None
    std: Tensor | None = None
    channels_last: bool = False
    shape: tuple[int, ...] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Convert images, (batch, channels, height, width) or (batch, features); refuse those of another shape."""
        if self.shape is not None:
            check_stimuli(images, self.shape, [])
        x = images.to(self.dtype)
        if images.dtype == torch.uint8:
            x = x / 255
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.contiguous(memory_format=layout) if x.dim() == 4 else x

    def to(self, device: str | torch.device) -> Preprocessing:
        """Return the conversion on another device."""
        if self.mean is None or self.std is None:
            return self
        return replace(self, mean=self.mean.to(device), std=self.std.to(device))


def normalisation(name: str, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the mean and standard deviation for normalising images, in float64, or None.

    Parameters
    ----------
    name : {"none", "half", "channels"}
        "half" is 0.5 and 0.5 (the papers' CNN: from [0, 1] to [-1, 1]); "channels" is the mean and standard deviation
        of each channel over all images, with a deviation of 1 for constant channels. Flat data are one channel.
    images : torch.Tensor
        Training images.
    """
    if name == "none":
        return None
    shape = (1,) * (images.dim() - 1) if images.dim() == 2 else (images.shape[1], 1, 1)
    if name == "half":
        return torch.full(shape, 0.5, dtype=torch.float64), torch.full(shape, 0.5, dtype=torch.float64)
    channels = images.transpose(0, 1).flatten(1) if images.dim() == 4 else images.reshape(1, -1)
    scale = 255 if images.dtype == torch.uint8 else 1
    # channel by channel, to avoid a float64 copy of the whole set
    mean = torch.stack([channel.mean(dtype=torch.float64) for channel in channels]) / scale
    # around the mean, since a difference of squares would cancel for small deviations
    square = [((channel.to(torch.float64) / scale - m) ** 2).mean() for channel, m in zip(channels, mean, strict=True)]
    is_constant = torch.stack([channel.min() == channel.max() for channel in channels])
    std = torch.where(is_constant, 1.0, torch.stack(square).sqrt())
    return mean.view(shape), std.view(shape)


@dataclass(frozen=True)
class Batches:
    """Training images of a data set, batch by batch.

    data        data set on the network's device
    preprocess  conversion to the network's input
    size        number of images per batch; the last batch of an epoch may be smaller
    seed        seed of order and augmentation
    augment     random augmentation: "none", "flip", "crop" or "flip,crop"
    processes   processes that share each batch
    """

    data: Dataset
    preprocess: Preprocessing
    size: int
    seed: int
    augment: str = "none"
    processes: Processes = ALONE

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return -(-len(self.data.train.images) // self.size)

    def size_of(self, number: int) -> int:
        """Return the number of images in one batch of an epoch (numbered from 0), over all processes."""
        return min(self.size, len(self.data.train.images) - number * self.size)

    def example(self, size: int | None = None) -> Split:
        """Return the first `size` images (default: one batch), which are the same for any seed and process."""
        images, labels = (part[: size or self.size] for part in self.data.train)
        return Split(self.preprocess(images), labels)

    def epoch(self, number: int, first: int = 0) -> Iterator[Split]:
        """Yield this process's share of each batch of an epoch from batch `first` on; a share may be empty."""
        images, labels = self.data.train
        stream = random_stream(self.seed, "epoch", number)
        order = _sent(torch.randperm(len(images), generator=stream), images.device)
        flips, shifts = self._draw(stream, images)
        for start in range(first * self.size, len(images), self.size):
            batch = order[start : start + self.size]
            chosen = batch[self.processes.share(len(batch))]
            found = images[chosen]
            if self.augment != "none":
                found = flip_and_crop(found, flips[chosen], shifts[chosen])
            yield Split(self.preprocess(found), labels[chosen])

    def _draw(self, stream: torch.Generator, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return flips and shifts of all images; both are always drawn, so that neither depends on the other."""
        flips = torch.rand(len(images), generator=stream) < 0.5
        shifts = torch.randint(2 * PADDING + 1, (len(images), 2), generator=stream)
        if "flip" not in self.augment:
            flips = torch.zeros_like(flips)
        if "crop" not in self.augment:
            shifts = torch.full_like(shifts, PADDING)
        return _sent(flips, images.device), _sent(shifts, images.device)


def _sent(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device, without waiting for a GPU."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def flip_and_crop(images: Tensor, flips: Tensor, shifts: Tensor) -> Tensor:
    """Mirror images left to right, and shift them by up to `PADDING` pixels, padded with zeros.

    Parameters
    ----------
    images : torch.Tensor
        (batch, channels, height, width).
    flips : torch.Tensor
        (batch,), True for images to mirror.
    shifts : torch.Tensor
        (batch, 2), from 0 to 2 `PADDING`: top left corner of the crop in the padded image.
    """
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    rows = shifts[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = shifts[:, 1:] + torch.where(flips[:, None], columns.flip(1), columns)
    samples = torch.arange(count, device=images.device)[:, None, None, None]
    every = torch.arange(channels, device=images.device)[:, None, None]
    return padded[samples, every, rows[:, None, :, None], columns[:, None, None, :]]
