"""Residual networks (He, Zhang, Ren & Sun 2016, arXiv 1512.03385) as plain PyTorch modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "group", "scaled"]
GROUPS = 8
"""Groups of a GroupNorm; fewer if they don't divide the number of channels."""


@dataclass(frozen=True)
class Blocks:
    """Options shared by all blocks of a residual network.

    norm        normalisation after each convolution: BatchNorm, GroupNorm, or none with a learned scale per branch
    skips       whether blocks add their input to their output; if not, the network is plain
    is_padded   whether a skip to more channels pads with zeros, as in the paper's CIFAR-10 networks, or applies a
                1x1 convolution
    scale       initial scale of a branch, for norm "scaled"
    activation  elementwise activation function
    """

    norm: Norm
    skips: bool
    is_padded: bool
    scale: float
    activation: Callable[[Tensor], Tensor]

    def norm_of(self, channels: int) -> nn.Module:
        """Return a normalisation layer for this number of channels."""
        if self.norm == "scaled":
            return nn.Identity()
        return nn.BatchNorm2d(channels) if self.norm == "batch" else nn.GroupNorm(math.gcd(GROUPS, channels), channels)

    def conv(self, inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
        """Return a padded convolution, without a bias if a normalisation follows."""
        return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=self.norm == "scaled")

    def shortcut(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        """Return the skip connection of a block."""
        if inputs == outputs and stride == 1:
            return nn.Identity()
        if self.is_padded:
            return PaddedCopy(outputs - inputs, stride)
        return nn.Sequential(self.conv(inputs, outputs, 1, stride), self.norm_of(outputs))


class PaddedCopy(nn.Module):
    """A copy of every `stride`-th pixel, followed by `extra` channels of zeros."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return f"extra={self.extra}, stride={self.stride}"


class Block(nn.Module):
    """Two normalised 3x3 convolutions, and a skip connection past both."""

    def __init__(self, blocks: Blocks, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = blocks.conv(inputs, outputs, 3, stride), blocks.norm_of(outputs)
        self.conv2, self.norm2 = blocks.conv(outputs, outputs, 3), blocks.norm_of(outputs)
        self.shortcut = blocks.shortcut(inputs, outputs, stride) if blocks.skips else None
        is_scaled = blocks.norm == "scaled" and blocks.skips
        self.scale = nn.Parameter(self.conv1.weight.new_tensor(blocks.scale)) if is_scaled else None
        self.activation = blocks.activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.scale is not None:
            y = self.scale * y
        return self.activation(y if self.shortcut is None else y + self.shortcut(x))


class ResNet(nn.Module):
    """A convolution, stages of residual blocks, the mean over the image, and a dense layer.

    Parameters
    ----------
    channels, classes : int
        Channels of the images, and number of output units.
    depths, widths : sequence of int
        Blocks and channels of each stage; each stage but the first halves the image.
    blocks : Blocks
    """

    def __init__(self, channels: int, classes: int, depths: Sequence[int], widths: Sequence[int], blocks: Blocks):
        super().__init__()
        self.stem, self.norm = blocks.conv(channels, widths[0], 3), blocks.norm_of(widths[0])
        self.activation, self.stages = blocks.activation, nn.Sequential()
        inputs = widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            strides = [1 if stage == 0 else 2, *[1] * (depth - 1)]
            made = [Block(blocks, inputs if i == 0 else width, width, stride) for i, stride in enumerate(strides)]
            self.stages.append(nn.Sequential(*made))
            inputs = width
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (batch, classes) of images (batch, channels, height, width)."""
        x = self.stages(self.activation(self.norm(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
