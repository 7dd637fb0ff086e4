"""Routing in a projection: pooling, upsampling and flattening, fixed by the feedforward pass (docs/theory.md).

`find` determines the route of a batch. Along a fixed route a stage is a linear map without weights (`apply`), and its
adjoint carries feedback (`adjoint`). Max pooling keeps its winners even if activities change later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Size, Tensor, nn

from actrelax.models.errors import ActrelaxError

Pair = tuple[int, int]


class Route(NamedTuple):
    """The route of one batch through a stage.

    shape          of the input, (batch, ...)
    winners        for max pooling: the flat index of each window's winner, (batch, channels, height, width)
    channels_last  layout of the input, and of the feedback to it; a bool, as `torch.save` can't store a memory_format
    """

    shape: Size
    winners: Tensor | None = None
    channels_last: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of the input, and of the feedback to it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def empty(self, like: Tensor) -> Tensor:
        """Return an empty tensor of the input's shape and layout; kernels copy its layout."""
        return torch.empty(self.shape, dtype=like.dtype, device=like.device, memory_format=self.memory_format)

    def of_samples(self, chosen: slice) -> Route:
        """Return the route of some samples of the batch."""
        winners = None if self.winners is None else self.winners[chosen]
        return Route(Size((len(range(self.shape[0])[chosen]), *self.shape[1:])), winners, self.channels_last)

    def repeated(self, times: int) -> Route:
        """Return the route of `times` concatenated copies of the batch."""
        winners = None if self.winners is None else self.winners.repeat(times, 1, 1, 1)
        return Route(Size((times * self.shape[0], *self.shape[1:])), winners, self.channels_last)


class Flatten:
    """Flattening of all dimensions after the batch."""

    def find(self, x: Tensor) -> tuple[Tensor, Route]:
        """Return the output and the route of x."""
        return x.flatten(1), Route(x.shape, channels_last=is_channels_last(x))

    def apply(self, x: Tensor, route: Route) -> Tensor:
        """Return the output for x along a given route."""
        return x.flatten(1)

    def adjoint(self, y: Tensor, route: Route) -> Tensor:
        """Return y carried back along the route: <apply(x), y> = <x, adjoint(y)>."""
        return y.reshape(route.shape).contiguous(memory_format=route.memory_format)

    def as_sparse(self, route: Route) -> sparse.csr_array:
        """Return `apply` as a matrix between flattened batches."""
        return sparse.eye_array(route.shape.numel(), format="csr")


class AvgPool2d(NamedTuple):
    """Average pooling, with the options of `torch.nn.AvgPool2d`."""

    kernel_size: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def find(self, x: Tensor) -> tuple[Tensor, Route]:
        route = Route(as_images(x).shape, channels_last=is_channels_last(x))
        return self.apply(x, route), route

    def apply(self, x: Tensor, route: Route) -> Tensor:
        return F.avg_pool2d(x, *self)

    def adjoint(self, y: Tensor, route: Route) -> Tensor:
        # autograd's kernel; it reads only the input's shape and layout
        result: Tensor = torch.ops.aten.avg_pool2d_backward(y, route.empty(y), *self)
        return result

    def as_sparse(self, route: Route) -> sparse.csr_array:
        batch, channels, height, width = route.shape
        pixels = height * width
        columns = []
        for some in torch.split(torch.arange(pixels), 256):
            # pool images of a single pixel each, which accounts for padding and borders
            images = F.one_hot(some, pixels).double().view(-1, 1, height, width)
            columns.append(sparse.csr_array(self.apply(images, route).flatten(1).numpy()))
        return sparse.kron(sparse.eye_array(batch * channels), sparse.vstack(columns).T, format="csr")


class MaxPool2d(NamedTuple):
    """Max pooling, with the options of `torch.nn.MaxPool2d`; the route is the argmax of the feedforward pass."""

    kernel_size: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def find(self, x: Tensor) -> tuple[Tensor, Route]:
        y, winners = F.max_pool2d(as_images(x), *self, return_indices=True)
        return y, Route(x.shape, winners, is_channels_last(x))

    def apply(self, x: Tensor, route: Route) -> Tensor:
        assert route.winners is not None
        chosen = x.flatten(2).gather(2, route.winners.flatten(2)).view(route.winners.shape)
        return chosen.contiguous(memory_format=route.memory_format)

    def adjoint(self, y: Tensor, route: Route) -> Tensor:
        # autograd's kernel; it reads only the input's shape and layout
        result: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(y, route.empty(y), *self, route.winners)
        return result

    def as_sparse(self, route: Route) -> sparse.csr_array:
        assert route.winners is not None
        winners = route.winners.flatten(2).flatten(0, 1).cpu().numpy()
        planes, windows = winners.shape
        pixels = route.shape[2] * route.shape[3]
        columns = (winners + pixels * np.arange(planes)[:, None]).ravel()
        entries = (np.ones(columns.size), (np.arange(columns.size), columns))
        return sparse.csr_array(entries, shape=(planes * windows, planes * pixels))


class Upsample(NamedTuple):
    """Nearest-neighbour upsampling: each unit is repeated over a block of `scale` = (height, width) units."""

    scale: Pair

    def find(self, x: Tensor) -> tuple[Tensor, Route]:
        route = Route(as_images(x).shape, channels_last=is_channels_last(x))
        return self.apply(x, route), route

    def apply(self, x: Tensor, route: Route) -> Tensor:
        height, width = x.shape[2:]
        return F.interpolate(x, size=(height * self.scale[0], width * self.scale[1]), mode="nearest")

    def adjoint(self, y: Tensor, route: Route) -> Tensor:
        # autograd's kernel, the sum over each block
        result: Tensor = torch.ops.aten.upsample_nearest2d_backward(y, y.shape[2:], route.shape)
        return result

    def as_sparse(self, route: Route) -> sparse.csr_array:
        batch, channels, *size = route.shape
        blocks = [sparse.kron(sparse.eye_array(n), np.ones((k, 1))) for n, k in zip(size, self.scale, strict=True)]
        return sparse.kron(sparse.eye_array(batch * channels), sparse.kron(*blocks), format="csr")


Routing = Flatten | AvgPool2d | MaxPool2d | Upsample
"""A stage without weights; pooling stages hold their options in the order of PyTorch's arguments."""


def routing_stage(module: nn.Module) -> Routing:
    """Return the routing stage of a PyTorch module."""
    if type(module) is nn.Flatten:
        if (module.start_dim, module.end_dim) != (1, -1):
            raise ActrelaxError("Flatten must join all dimensions after the batch: use nn.Flatten() with its defaults.")
        return Flatten()
    if type(module) is nn.AvgPool2d:
        sizes = pair(module.kernel_size), pair(module.stride), pair(module.padding)
        return AvgPool2d(*sizes, module.ceil_mode, module.count_include_pad, module.divisor_override)
    if type(module) is nn.MaxPool2d:
        if module.return_indices:
            raise ActrelaxError("MaxPool2d can't return its indices in a projection: leave return_indices out.")
        sizes = pair(module.kernel_size), pair(module.stride), pair(module.padding)
        return MaxPool2d(*sizes, pair(module.dilation), module.ceil_mode)
    if type(module) is nn.Upsample:
        return Upsample(_whole_scale(module))
    raise ActrelaxError(
        f"{type(module).__name__} can't be part of a projection; known: Linear, Conv2d, MaxPool2d, AvgPool2d, "
        "Upsample, Flatten."
    )


def _whole_scale(module: nn.Upsample) -> Pair:
    """Return an upsampling's scale as whole numbers; refuse any other upsampling."""
    scale = module.scale_factor
    height, width = scale if isinstance(scale, tuple) else (scale or 0.0, scale or 0.0)
    if module.mode != "nearest" or not all(k >= 1 and float(k).is_integer() for k in (height, width)):
        raise ActrelaxError(
            f"Upsample must repeat units a whole number of times, got {module}: use nn.Upsample(scale_factor=2, "
            'mode="nearest").'
        )
    return int(height), int(width)


def as_images(x: Tensor) -> Tensor:
    """Return x if it is a batch of images; refuse three dimensions, which PyTorch would accept as one sample."""
    if x.dim() != 4:
        raise ActrelaxError(
            f"convolutions and pooling take populations (channels, height, width), got shape {tuple(x.shape[1:])}."
        )
    return x


def is_channels_last(x: Tensor) -> bool:
    """Return whether the layout of x is channels-last only; False where both layouts apply, as with one channel."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def pair(value: int | tuple[int, ...]) -> Pair:
    """Return a PyTorch size, a number or (height, width), as (height, width)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
