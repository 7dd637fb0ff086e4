"""Parts of the named networks: layers without initial values, populations, and the check of an image's shape."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import skip_init

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import Activation


def image_shape(input_shape: Sequence[int], at_least: int) -> tuple[int, int, int]:
    """Return (channels, height, width); refuse other shapes and images smaller than `at_least` on a side."""
    if len(input_shape) != 3 or min(input_shape[1:]) < at_least:
        raise ActrelaxError(
            f"this network takes images (channels, height, width) of at least {at_least} x {at_least}, "
            f"got shape {tuple(input_shape)}."
        )
    return input_shape[0], input_shape[1], input_shape[2]


def populations(names: Sequence[str], activation: Activation) -> dict[str, str | Activation]:
    """Return name -> activation; the output is linear."""
    return {**dict.fromkeys(names, activation), "output": "identity"}


def flatten(input_shape: Sequence[int]) -> list[nn.Module]:
    """Return the stages that flatten the input, none for features."""
    return [nn.Flatten()] if len(input_shape) > 1 else []


# skip_init: `build` draws the weights, without using torch's global generator
def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a dense layer whose weights have no values yet."""
    return skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call, no-any-return]


def conv(inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0, bias: bool = True) -> nn.Conv2d:
    """Return a convolution whose weights have no values yet."""
    options = {"stride": stride, "padding": padding, "bias": bias}
    return skip_init(nn.Conv2d, inputs, outputs, size, **options)  # type: ignore[no-untyped-call, no-any-return]
