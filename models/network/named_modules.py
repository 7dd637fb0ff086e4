"""PyTorch modules by name: residual networks and a vision transformer.

Weights are normal, with standard deviation sqrt(2 / fan-in) in the convolutions of residual networks, 0.02 in class
tokens and position embeddings, and sqrt(1 / fan-in) elsewhere. Biases start at 0, scales of normalisations at 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, get_args

import torch
from torch import nn

from actrelax.models._names import known, look_up
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.errors import ActrelaxError, enough_memory
from actrelax.models.network.activations import ACTIVATIONS, Activation
from actrelax.models.network.residual import Blocks, Norm, ResNet
from actrelax.models.network.vision_transformer import HEADS, VisionTransformer


@dataclass(frozen=True)
class Design:
    """Options of a named network; None for the architecture's default.

    width  channels of a residual network's first stage or of vgg8's first block, or the width of a transformer's tokens
    skips  "no" removes the skip connections of a residual network
    norm   normalisation of a residual network: BatchNorm, GroupNorm, or a learned scale on each residual branch
    """

    width: int | None = None
    skips: Literal["yes", "no"] | None = None
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ActrelaxError(f"width must be 1 or more, got {self.width}.")
        for option, choices in (("skips", ("yes", "no")), ("norm", get_args(Norm))):
            if getattr(self, option) is not None:
                known(option, getattr(self, option), choices)
        if self.norm == "scaled" and self.skips == "no":
            raise ActrelaxError('norm "scaled" scales the branches beside skips: use another norm, or keep the skips.')

    @property
    def given(self) -> list[str]:
        """Names of the options that are set."""
        return [name for name, value in vars(self).items() if value is not None]


class ModuleBuilder(Protocol):
    """A function that makes a module."""

    def __call__(
        self, name: str, input_shape: Sequence[int], classes: int, width: int, design: Design, activation: Activation
    ) -> nn.Module: ...


@dataclass(frozen=True)
class ModuleArchitecture:
    """The design of a named module; the input shape, classes, width and activation are defaults.

    builder      returns the module, with any weights
    gain         gain of convolutions, whose weights have standard deviation sqrt(gain / fan-in)
    options      options of `Design` that the module has
    """

    builder: ModuleBuilder
    input_shape: tuple[int, ...]
    width: int
    activation: str
    gain: float
    options: tuple[str, ...]
    classes: int = 10


def residual(depths: Sequence[int], *, is_padded: bool) -> ModuleBuilder:
    """Return a builder of residual networks with these numbers of blocks per stage; widths double between stages."""

    def builder(
        name: str, input_shape: Sequence[int], classes: int, width: int, design: Design, activation: Activation
    ) -> nn.Module:
        if len(input_shape) != 3 or min(input_shape[1:]) < 4:
            raise ActrelaxError(
                f"{name} takes images (channels, height, width) of at least 4 x 4, got shape {tuple(input_shape)}."
            )
        scale = sum(depths) ** -0.5
        blocks = Blocks(design.norm or "batch", design.skips != "no", is_padded, scale, activation)
        return ResNet(input_shape[0], classes, depths, [width * 2**i for i in range(len(depths))], blocks)

    return builder


def transformer(
    name: str,
    input_shape: Sequence[int],
    classes: int,
    width: int,
    design: Design,
    activation: Activation,
    *,
    patch: int,
) -> nn.Module:
    """Build a vision transformer of four blocks."""
    if len(input_shape) != 3 or any(side % patch for side in input_shape[1:]):
        raise ActrelaxError(
            f"{name} takes images (channels, height, width) with sides that are multiples of {patch}, got shape "
            f"{tuple(input_shape)}."
        )
    if width % HEADS:
        raise ActrelaxError(f"{name} needs a width that is a multiple of {HEADS}, its heads, got {width}.")
    return VisionTransformer(input_shape, classes, patch=patch, width=width, depth=4, activation=activation)


def _residual(depths: Sequence[int], width: int, shape: tuple[int, ...], is_padded: bool = True) -> ModuleArchitecture:
    builder = residual(depths, is_padded=is_padded)
    return ModuleArchitecture(builder, shape, width, "relu", 2.0, ("width", "skips", "norm"))


def _transformer(patch: int, width: int, shape: tuple[int, ...]) -> ModuleArchitecture:
    return ModuleArchitecture(partial(transformer, patch=patch), shape, width, "gelu", 1.0, ("width",))


_DIGIT, _COLOUR = (1, 8, 8), (3, 32, 32)

MODULES: dict[str, ModuleArchitecture] = {
    **{f"digits-resnet-{6 * n + 2}": _residual([n] * 3, 8, _DIGIT) for n in (1, 2, 3, 5)},
    "digits-resnet18": _residual([2] * 4, 8, _DIGIT, is_padded=False),
    "digits-vit": _transformer(2, 32, _DIGIT),
    **{f"resnet-{6 * n + 2}": _residual([n] * 3, 16, _COLOUR) for n in (1, 2, 3, 5)},
    "resnet18": _residual([2] * 4, 64, _COLOUR, is_padded=False),
    "vit": _transformer(4, 64, _COLOUR),
}


def build_module(
    name: str,
    *,
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    activation: str | Activation | None = None,
    weight_std: float | None = None,
    design: Design = Design(),
    generator: GeneratorLike | None = None,
) -> nn.Module:
    """Build a PyTorch module by name.

    Parameters
    ----------
    name : str
        A key of `MODULES`: ``resnet-20``, ``digits-vit`` ...
    input_shape : sequence of int, optional
        Shape of an image; by default the architecture's.
    classes : int, optional
        Number of output units; 10 by default.
    activation : str or Activation, optional
        Activation function; by default relu for residual networks, gelu for transformers.
    weight_std : float, optional
        Standard deviation of all weights of layers; by default sqrt(2 / fan-in) in the convolutions of residual
        networks, sqrt(1 / fan-in) elsewhere.
    design : Design, optional
        Width, skips and normalisation.
    generator : torch.Generator, numpy.random.Generator or int, optional
        Generator for the weights, on the CPU, or a seed; by default torch's global generator.

    Returns
    -------
    torch.nn.Module
        On the CPU, in torch's default dtype and in training mode. A seed gives the same weights in any dtype.

    Raises
    ------
    ActrelaxError
        For an unknown name, an input shape that doesn't fit, or an option that the module doesn't have.

    Examples
    --------
    >>> module = build_module("resnet-20", generator=0)
    >>> sum(p.numel() for p in module.parameters())
    269722
    """
    architecture = MODULES[known("network", name, MODULES)]
    if unfit := [option for option in design.given if option not in architecture.options]:
        raise ActrelaxError(f"{name} has no {unfit[0]} to choose: leave it out.")
    chosen = look_up("activation", activation or architecture.activation, ACTIVATIONS)
    shape, width = tuple(input_shape or architecture.input_shape), design.width or architecture.width
    # layers draw weights when they are made; these are replaced
    with enough_memory(f"network {name!r}", "choose a smaller one"), torch.random.fork_rng(devices=[]):
        module = architecture.builder(name, shape, classes or architecture.classes, width, design, chosen)
    _draw_weights(module, architecture.gain, weight_std, as_generator(generator))
    return module


@torch.no_grad()
def _draw_weights(module: nn.Module, gain: float, weight_std: float | None, generator: torch.Generator | None) -> None:
    """Draw normal weights in float64, and set biases to 0."""

    def draw(parameter: torch.Tensor, std: float) -> None:
        parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            factor = gain if isinstance(part, nn.Conv2d) else 1.0
            draw(part.weight, math.sqrt(factor / part.weight[0].numel()) if weight_std is None else weight_std)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, VisionTransformer):
            draw(part.class_token, 0.02)
            draw(part.places, 0.02)
