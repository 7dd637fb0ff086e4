"""Named networks with cycles, and the size of the weights inside a cycle.

A population's recurrent weights have standard deviation 0.8 (dense) or 0.5 (convolutions) over the square root of its
recurrent fan-in: the number of its connections from populations in the same cycle. By the circular law the rates then
settle from most draws: the largest real part of the spectrum is near 0.8 or below, where stability ends at 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import Activation
from actrelax.models.network.network import Network
from actrelax.models.network.parts import conv, flatten, image_shape, linear, populations
from actrelax.models.network.projection import Projection

Builder = Callable[[Sequence[int], int, Activation], Network]
GAIN = {"dense": 0.8, "conv": 0.5}
"""Standard deviation of recurrent weights, times the square root of the recurrent fan-in, per kind of projection."""
EXCITATORY_INHIBITORY = {"excitatory": 1.0, "inhibitory": -4.0}
"""Sign and relative size of the recurrent weights from each population of `ei`."""


def recurrent(width: int) -> Builder:
    """Return a builder of one population that projects to itself."""

    def builder(input_shape: Sequence[int], classes: int, activation: Activation) -> Network:
        projections = [
            Projection("input", "hidden1", *flatten(input_shape), linear(math.prod(input_shape), width)),
            Projection("hidden1", "hidden1", linear(width, width, bias=False)),
            Projection("hidden1", "output", linear(width, classes)),
        ]
        return Network(input_shape, populations(["hidden1"], activation), projections)

    return builder


def hierarchy(depth: int, width: int) -> Builder:
    """Return a builder of populations with bottom-up, top-down and lateral connections, read from the highest."""

    def builder(input_shape: Sequence[int], classes: int, activation: Activation) -> Network:
        names = [f"hidden{i + 1}" for i in range(depth)]
        projections = [Projection("input", names[0], *flatten(input_shape), linear(math.prod(input_shape), width))]
        for lower, upper in itertools.pairwise(names):
            projections.append(Projection(lower, upper, linear(width, width)))
            projections.append(Projection(upper, lower, linear(width, width, bias=False)))
        projections += [Projection(name, name, linear(width, width, bias=False)) for name in names]
        projections.append(Projection(names[-1], "output", linear(width, classes)))
        return Network(input_shape, populations(names, activation), projections)

    return builder


def excitatory_inhibitory(excitatory: int, inhibitory: int) -> Builder:
    """Return a builder of an excitatory and an inhibitory population, both driven by the input; the first is read."""

    def builder(input_shape: Sequence[int], classes: int, activation: Activation) -> Network:
        sizes = {"excitatory": excitatory, "inhibitory": inhibitory}
        projections = [
            Projection("input", name, *flatten(input_shape), linear(math.prod(input_shape), size))
            for name, size in sizes.items()
        ]
        for source, inputs in sizes.items():
            projections += [
                Projection(source, target, linear(inputs, outputs, bias=False)) for target, outputs in sizes.items()
            ]
        projections.append(Projection("excitatory", "output", linear(excitatory, classes)))
        return Network(input_shape, populations([*sizes], activation), projections)

    return builder


def recurrent_cnn(lower: int, upper: int) -> Builder:
    """Return a builder of two sizes of maps with lateral and upsampled top-down convolutions, both read."""

    def builder(input_shape: Sequence[int], classes: int, activation: Activation) -> Network:
        channels, height, width = image_shape(input_shape, at_least=4)
        if height % 2 or width % 2:
            raise ActrelaxError(
                f"top-down connections need an even height and width, got shape {tuple(input_shape)}: pad the images."
            )
        units = height * width
        projections = [
            Projection("input", "conv1", conv(channels, lower, 3, padding=1)),
            Projection("conv1", "conv1", conv(lower, lower, 3, padding=1, bias=False)),
            Projection("conv1", "conv2", conv(lower, upper, 3, stride=2, padding=1)),
            Projection("conv2", "conv2", conv(upper, upper, 3, padding=1, bias=False)),
            Projection("conv2", "conv1", conv(upper, lower, 3, padding=1, bias=False), nn.Upsample(scale_factor=2)),
            Projection("conv1", "output", nn.Flatten(), linear(lower * units, classes)),
            Projection("conv2", "output", nn.Flatten(), linear(upper * units // 4, classes, bias=False)),
        ]
        return Network(input_shape, populations(["conv1", "conv2"], activation), projections)

    return builder


def recurrent_scales(network: Network, signs: Mapping[str, float]) -> dict[str, float]:
    """Return the root mean square of the weights of each projection inside a cycle, by the projection's name.

    `signs` maps populations to the sign and relative size of their recurrent weights, 1 for all others; the mean square
    over a population's recurrent weights is the same for all signs.
    """
    cycle_of = {name: cycle for cycle in network.graph.cycles for name in cycle}
    scales: dict[str, float] = {}
    for name, cycle in cycle_of.items():
        inside = [p for p in network.incoming[name] if p.source in cycle and p.weight is not None]
        size = {p.name: abs(signs.get(p.source, 1.0)) for p in inside}
        total = sum(p.weight[0].numel() * size[p.name] ** 2 for p in inside if p.weight is not None)
        scales |= {p.name: size[p.name] * GAIN[network.kind(p)] / math.sqrt(total) for p in inside}
    return scales
