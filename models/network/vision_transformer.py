"""A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) as a plain PyTorch module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 4
"""Heads of each attention layer."""
MLP_RATIO = 2
"""Hidden width of a block's MLP, relative to the width of a token."""


class TransformerBlock(nn.Module):
    """Self-attention and an MLP, each after a LayerNorm and with a skip connection past both."""

    def __init__(self, width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up = nn.LayerNorm(width), nn.Linear(width, MLP_RATIO * width)
        self.down, self.activation = nn.Linear(MLP_RATIO * width, width), activation

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = self.down(self.activation(self.up(self.norm2(x))))
        return x + y


class VisionTransformer(nn.Module):
    """A class token and one token per patch, transformer blocks, and a dense layer that reads the class token.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of an image, (channels, height, width).
    classes, patch, width, depth : int
        Outputs; side of a patch; width of a token, a multiple of `HEADS`; number of blocks.
    activation : callable
        Elementwise activation function of the MLPs.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        patch: int,
        width: int,
        depth: int,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        channels, height, image_width = input_shape
        tokens = (height // patch) * (image_width // patch)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 1 + tokens, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, activation) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (batch, classes) of images (batch, channels, height, width)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(x)[:, 0]))
        return logits
