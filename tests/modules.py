"""Small PyTorch modules of every kind that a captured network has to get right, each with a batch for it.

`MODULES` maps a name to a case. A case's comment names what it is there for: the operation, or the way in which a
capture that reads only part of a module's own code would go wrong. Weights and normalisations are drawn anew by
`ModuleCase.make`, so that no scale is 1, no bias 0 and no class token 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import modules_attention as attention
import modules_inplace as inplace
import modules_layers as layers
import modules_paths as paths
import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModuleCase:
    """A module as a function that makes it, and how it is captured.

    build    () -> module
    shape    of one sample
    tokens   number of different whole numbers, for embeddings; None for real stimuli
    paths    "many" where the operations differ from batch to batch
    output   from what the module returns to its output tensor; None where it returns that
    refused  why it can't be captured, in words of the sentence; None for the others
    """

    build: Callable[[], nn.Module]
    shape: Shape
    tokens: int | None = None
    paths: str = "one"
    output: Callable[[Any], Tensor] | None = None
    refused: str | None = None

    def make(self, seed: int = 0) -> nn.Module:
        """Return the module in training mode and torch's default dtype, its parameters drawn from this seed."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            module = self.build()
            for p in module.parameters():
                p.add_(0.2 * torch.randn_like(p))
        return module

    def stimuli(self, batch: int = 4, seed: int = 1) -> Tensor:
        """Return a batch: standard normal numbers, or whole ones below `tokens`."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens is not None:
            return torch.randint(self.tokens, (batch, *self.shape), generator=generator)
        return torch.randn(batch, *self.shape, generator=generator)

    def output_of(self, result: Any) -> Tensor:
        """Return the output tensor in what the module returned."""
        return result if self.output is None else self.output(result)


IMAGE, SEQUENCE, VECTOR = (2, 6, 6), (5, 6), (6,)

MODULES: dict[str, ModuleCase] = {
    # normalisation and how layers are joined
    "batch-norm": ModuleCase(layers.batch_norm_mlp, VECTOR),
    "layer-norm": ModuleCase(layers.layer_norm_mlp, VECTOR),
    "residual": ModuleCase(layers.Residual, IMAGE),  # BatchNorm, in-place additions and ReLUs
    "pre-activation": ModuleCase(layers.PreActivation, IMAGE),  # GroupNorm, and weights that read relays
    "dense-connections": ModuleCase(layers.DenselyConnected, IMAGE),  # concatenations, max and average pools
    "u-shape": ModuleCase(layers.UShape, IMAGE),
    "pooled": ModuleCase(layers.pooled, IMAGE),  # activation before a pool
    # kinds of weighted operations
    "conv1d": ModuleCase(layers.conv1d, SEQUENCE),  # with GLU over channels, padded in a circle
    "conv3d": ModuleCase(layers.conv3d, (2, 4, 4, 4)),
    "transposed": ModuleCase(layers.Transposed, SEQUENCE),  # transposed convolutions of 1, 2 and 3 dimensions
    "depthwise": ModuleCase(layers.SqueezeExcitation, IMAGE),  # groups, strides, squeeze-excitation, hardswish
    "embedding": ModuleCase(layers.Text, (5,), tokens=7),  # whole numbers, a padding index, LayerNorm
    "gated": ModuleCase(layers.Gated, VECTOR),  # GELU, SiLU, a product of two drives of one population
    # weights that are not a parameter as it is
    "tied": ModuleCase(layers.TiedText, (5,), tokens=7),  # embedding and readout share a weight
    "tied-transposed": ModuleCase(layers.TiedAutoencoder, VECTOR),
    "weight-norm": ModuleCase(layers.weight_normed, VECTOR),
    "spectral-norm": ModuleCase(layers.spectral_normed, VECTOR),  # buffers move in training
    "pruned": ModuleCase(layers.pruned, VECTOR),
    "low-rank": ModuleCase(layers.LowRank, VECTOR),  # a weight made of two parameters, used twice
    "complex": ModuleCase(layers.Spectral, VECTOR),  # complex numbers inside a piece
    "shared-factor": ModuleCase(layers.SharedFactor, VECTOR),  # of which a weight is made, and a piece needs
    # attention and what it reads
    "multihead": ModuleCase(attention.Multihead, SEQUENCE),  # F.multi_head_attention_forward hides its weights
    "transformer": ModuleCase(attention.transformer, SEQUENCE),  # PyTorch's encoder layer, dropout included
    "scaled-dot-product": ModuleCase(attention.ScaledDotProduct, SEQUENCE),
    "einsum": ModuleCase(attention.Einsum, SEQUENCE),  # x @ W, einsum and bmm with a parameter, and of data alone
    "class-token": ModuleCase(attention.ClassToken, IMAGE),  # weights read a population that parameters enter
    "learned-query": ModuleCase(attention.LearnedQuery, SEQUENCE),  # weights read a parameter, and nothing else
    "linear-attention": ModuleCase(attention.LinearAttention, SEQUENCE),  # q made of data by a chain without a drive
    "shifted": ModuleCase(attention.Shifted, SEQUENCE),  # copies of a copied population (RWKV)
    # memory
    "fast-weights": ModuleCase(paths.FastWeights, VECTOR),  # a buffer that holds data
    "lstm": ModuleCase(paths.Recurrent, SEQUENCE),  # all its weights are a piece's own
    "cell": ModuleCase(paths.Cell, SEQUENCE),  # a cell of Linear modules, called once per step
    # what Python, scripts and users' functions do
    "dropout": ModuleCase(paths.dropout, VECTOR),
    "experts": ModuleCase(paths.Experts, VECTOR, paths="many"),  # branches that depend on the data
    "random-depth": ModuleCase(paths.RandomDepth, VECTOR, paths="many"),
    "while-loop": ModuleCase(paths.Halting, VECTOR, paths="many"),  # until a value is small enough
    "own-function": ModuleCase(paths.OwnFunction, VECTOR),  # an autograd.Function whose backward isn't the derivative
    "scripted": ModuleCase(paths.Scripted, VECTOR),
    "first-call": ModuleCase(paths.FirstCall, VECTOR),  # makes a buffer when it is called first
    "keywords": ModuleCase(paths.Keywords, VECTOR),  # F.linear and F.batch_norm by keyword
    "hooks": ModuleCase(paths.hooked, VECTOR),
    "one-parameter-everywhere": ModuleCase(paths.OneTemperature, VECTOR),  # a parameter of several pieces
    "dictionary": ModuleCase(paths.Dictionary, VECTOR, output=lambda result: result["logits"]),
    "transforms": ModuleCase(paths.Transforms, VECTOR),  # torch.func inside a module, with and without vmap
    "inner-gradient": ModuleCase(paths.InnerGradient, VECTOR),  # a gradient past no weights, and a leaf of its own
    # values written to in place
    "view": ModuleCase(inplace.WrittenDrive, SEQUENCE),  # F.linear returns a view here
    "overwritten": ModuleCase(inplace.Overwritten, VECTOR),  # after weights have read it
    "items": ModuleCase(inplace.Items, VECTOR),  # item assignment, len(x)
    # refused
    "checkpointed": ModuleCase(paths.Checkpointed, VECTOR, refused="checkpointing"),
    "weightless": ModuleCase(paths.Weightless, VECTOR, refused="no gradient reaches a linear layer"),
    "energy": ModuleCase(paths.Energy, VECTOR, refused="differentiates in its forward pass"),
    "retains": ModuleCase(paths.Retains, VECTOR, refused="calls retain_grad, which would keep a part"),
    "scalar": ModuleCase(paths.Scalar, VECTOR, refused="returns a scalar"),
    "tuple": ModuleCase(paths.Pair, VECTOR, refused="tuple"),
}
