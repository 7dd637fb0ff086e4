"""Named networks: the papers' networks, small ones for the bundled digits, and larger ones.

Weights are normal. Their standard deviation is 0.05 in the papers' networks (arXiv 2009.05359 and 2010.06219),
elsewhere sqrt(gain / fan-in) with gain 2 for relu and 1 otherwise, and inside a cycle that of `recurrent.py`. Biases
start at 0; `lenet`'s convolutions have none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from actrelax.models._names import known, look_up
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.errors import ActrelaxError, enough_memory
from actrelax.models.network.activations import ACTIVATIONS, Activation
from actrelax.models.network.captured.capture import capture
from actrelax.models.network.named_modules import MODULES, Design, build_module
from actrelax.models.network.network import Network
from actrelax.models.network.parts import conv, flatten, image_shape, linear, populations
from actrelax.models.network.projection import Projection
from actrelax.models.network.recurrent import (
    EXCITATORY_INHIBITORY,
    Builder,
    excitatory_inhibitory,
    hierarchy,
    recurrent,
    recurrent_cnn,
    recurrent_scales,
)

Shape = Sequence[int]
DEEPEST = 10_000
"""Largest depth of mlp-DEPTHxWIDTH."""


@dataclass(frozen=True)
class Architecture:
    """A network design; the input shape, classes and activation are defaults.

    builder     (input shape, classes, activation) -> Network
    of_width    width -> builder, for a network that has one to choose
    weight_std  standard deviation of every weight; None for sqrt(gain / fan-in)
    signs       population -> sign and relative size of its recurrent weights, which are normal where none is given
    is_recurrent  whether the network has cycles
    """

    builder: Builder
    input_shape: tuple[int, ...]
    classes: int = 10
    activation: str = "tanh"
    weight_std: float | None = None
    signs: Mapping[str, float] = field(default_factory=dict)
    is_recurrent: bool = False
    of_width: Callable[[int], Builder] | None = None


def mlp(widths: Shape) -> Builder:
    """Return a builder of dense networks with these hidden widths; images are flattened."""

    def builder(input_shape: Shape, classes: int, activation: Activation) -> Network:
        sizes = [math.prod(input_shape), *widths, classes]
        names = ["input", *(f"hidden{i}" for i in range(1, len(widths) + 1)), "output"]
        projections = []
        for i in range(len(sizes) - 1):
            before = flatten(input_shape) if i == 0 else []
            projections.append(Projection(names[i], names[i + 1], *before, linear(sizes[i], sizes[i + 1])))
        return Network(input_shape, populations(names[1:], activation), projections)

    return builder


def lenet(input_shape: Shape, classes: int, activation: Activation) -> Network:
    """Build the second paper's CNN: conv 6 and max pool, conv 16, dense 120, dense 120, dense."""
    channels, height, width = image_shape(input_shape, at_least=14)
    flat = 16 * ((height - 4) // 2 - 4) * ((width - 4) // 2 - 4)
    projections = [
        Projection("input", "conv1", conv(channels, 6, 5, bias=False), nn.MaxPool2d(2)),
        Projection("conv1", "conv2", conv(6, 16, 5, bias=False)),
        Projection("conv2", "hidden1", nn.Flatten(), linear(flat, 120)),
        Projection("hidden1", "hidden2", linear(120, 120)),
        Projection("hidden2", "output", linear(120, classes)),
    ]
    return Network(input_shape, populations([p.target for p in projections], activation), projections)


def pooled_cnn(blocks: Sequence[Shape], hidden: int) -> Builder:
    """Return a builder of CNNs: blocks of padded 3x3 convolutions, each max-pooled by 2, then two dense layers."""

    def builder(input_shape: Shape, classes: int, activation: Activation) -> Network:
        channels, height, width = image_shape(input_shape, at_least=2 ** len(blocks))
        projections: list[Projection] = []
        source = "input"
        for block in blocks:
            for position, count in enumerate(block):
                pool = [nn.MaxPool2d(2)] if position == len(block) - 1 else []
                target = f"conv{len(projections) + 1}"
                projections.append(Projection(source, target, conv(channels, count, 3, padding=1), *pool))
                source, channels = target, count
            height, width = height // 2, width // 2
        projections.append(Projection(source, "hidden1", nn.Flatten(), linear(channels * height * width, hidden)))
        projections.append(Projection("hidden1", "output", linear(hidden, classes)))
        return Network(input_shape, populations([p.target for p in projections], activation), projections)

    return builder


def vgg8(width: int) -> Builder:
    """Return a builder of a CNN of six convolutions and two dense layers, with `width` channels in the first block."""
    return pooled_cnn([[width] * 2, [2 * width] * 2, [4 * width] * 2], 4 * width)


def skip_cnn(count: int, hidden: int) -> Builder:
    """Return a builder of CNNs with skips: a copy past one population and a weighted projection past two."""

    def builder(input_shape: Shape, classes: int, activation: Activation) -> Network:
        channels, height, width = image_shape(input_shape, at_least=4)
        flat = count * (height // 4) * (width // 4)
        projections = [
            Projection("input", "conv1", conv(channels, count, 3, padding=1), nn.MaxPool2d(2)),
            Projection("conv1", "conv2", conv(count, count, 3, padding=1)),
            Projection("conv2", "conv3", conv(count, count, 3, padding=1)),
            Projection("conv1", "conv3"),
            Projection("conv3", "hidden1", nn.AvgPool2d(2), nn.Flatten(), linear(flat, hidden)),
            Projection("conv1", "hidden1", nn.MaxPool2d(2), nn.Flatten(), linear(flat, hidden)),
            Projection("hidden1", "output", linear(hidden, classes)),
        ]
        names = ["conv1", "conv2", "conv3", "hidden1", "output"]
        return Network(input_shape, populations(names, activation), projections)

    return builder


ARCHITECTURES: dict[str, Architecture] = {
    "digits-mlp": Architecture(mlp([32]), (64,)),
    "digits-cnn": Architecture(pooled_cnn([[32], [64]], 64), (1, 8, 8)),
    "digits-skip": Architecture(skip_cnn(8, 32), (1, 8, 8)),
    "mlp": Architecture(mlp([300, 300, 100]), (784,), weight_std=0.05),
    "mlp-figure1": Architecture(mlp([300, 100, 100]), (784,), weight_std=0.05),
    "cnn": Architecture(lenet, (3, 32, 32), weight_std=0.05),
    "cnn-skip": Architecture(skip_cnn(16, 64), (3, 32, 32)),
    "vgg8": Architecture(vgg8(64), (3, 32, 32), activation="relu", of_width=vgg8),
    "rec": Architecture(recurrent(300), (784,), is_recurrent=True),
    "digits-rec": Architecture(recurrent(32), (64,), is_recurrent=True),
    "hierarchy": Architecture(hierarchy(3, 100), (784,), is_recurrent=True),
    "ei": Architecture(excitatory_inhibitory(80, 20), (784,), signs=EXCITATORY_INHIBITORY, is_recurrent=True),
    "conv-rec": Architecture(recurrent_cnn(8, 16), (1, 28, 28), is_recurrent=True),
}


def build(
    name: str,
    *,
    input_shape: Shape | None = None,
    classes: int | None = None,
    activation: str | Activation | None = None,
    weight_std: float | None = None,
    design: Design = Design(),  # noqa: B008
    generator: GeneratorLike | None = None,
) -> Network:
    """Build a network by name.

    Parameters
    ----------
    name : str
        A key of `ARCHITECTURES`; ``mlp-DEPTHxWIDTH``: an MLP with DEPTH weight layers of hidden width WIDTH; a key of
        `MODULES`, for a module that `build_module` builds and `Network.from_module` captures.
    input_shape : sequence of int, optional
        Shape of one sample; by default the architecture's.
    classes : int, optional
        Number of output units; 10 by default.
    activation : str or Activation, optional
        Activation of the hidden populations; by default relu for ``vgg8`` and residual networks, gelu for
        transformers, else tanh. The output is linear.
    weight_std : float, optional
        Standard deviation of every weight; by default the architecture's.
    design : Design, optional
        Width, skips and normalisation of residual networks, width of transformers and ``vgg8``.
    generator : torch.Generator, numpy.random.Generator or int, optional
        Generator for the weights, on the CPU, or a seed; by default torch's global generator.

    Returns
    -------
    Network
        On the CPU, in torch's default dtype. Weights are drawn in float64, so a seed gives the same values in any
        dtype.

    Raises
    ------
    ActrelaxError
        For an unknown name, an input shape that doesn't fit, or an option that the network doesn't have.

    Examples
    --------
    >>> build("mlp-3x20", input_shape=(7,)).populations["hidden2"].shape
    (20,)
    """
    if isinstance(name, str) and name in MODULES:
        module = build_module(
            name,
            input_shape=input_shape,
            classes=classes,
            activation=activation,
            weight_std=weight_std,
            design=design,
            generator=generator,
        )
        return capture(module, torch.zeros(2, *(input_shape or MODULES[name].input_shape)))
    architecture = _architecture(name)
    builder = architecture.builder
    if architecture.of_width is not None and design.width is not None:
        builder, design = architecture.of_width(design.width), replace(design, width=None)
    if design.given:
        raise ActrelaxError(f"{name} has no {design.given[0]} to choose: leave it out.")
    chosen = look_up("activation", activation or architecture.activation, ACTIVATIONS)
    drawing = as_generator(generator)
    with enough_memory(f"network {name!r}", "choose a smaller one"):
        network = builder(tuple(input_shape or architecture.input_shape), classes or architecture.classes, chosen)
        std = architecture.weight_std if weight_std is None else weight_std
        _draw_weights(network, chosen, std, architecture.signs, drawing)
    return network


def _draw_weights(
    network: Network,
    activation: Activation,
    weight_std: float | None,
    signs: Mapping[str, float],
    generator: torch.Generator | None,
) -> None:
    """Draw normal weights, of the given signs inside a cycle, and set biases to 0.

    Without `weight_std` the standard deviation is sqrt(gain / fan-in), inside a cycle that of `recurrent_scales`.
    """
    gain = 2 if activation.name == "relu" else 1
    scales = recurrent_scales(network, signs)
    with torch.no_grad():
        for p in network.projections.values():
            if p.weight is not None:
                std = scales.get(p.name, math.sqrt(gain / p.weight[0].numel())) if weight_std is None else weight_std
                weight = std * torch.randn(p.weight.shape, generator=generator, dtype=torch.float64)
                if p.name in scales and p.source in signs:
                    weight = math.copysign(1, signs[p.source]) * weight.abs()
                p.weight.copy_(weight)
            if p.bias is not None:
                p.bias.zero_()


def _architecture(name: str) -> Architecture:
    match = re.fullmatch(r"mlp-([1-9]\d*)x([1-9]\d*)", name) if isinstance(name, str) else None
    if match:
        depth, width = map(int, match.groups())
        if depth > DEEPEST:
            raise ActrelaxError(f"{name!r} has more than {DEEPEST:,} layers: choose a smaller depth.")
        return Architecture(mlp([width] * (depth - 1)), (784,))
    names = [*ARCHITECTURES, *MODULES, "mlp-DEPTHxWIDTH"]
    return ARCHITECTURES[known("network", name, names, also="with --network also FILE.py:FUNCTION")]
