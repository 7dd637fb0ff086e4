"""The weighted stage of a projection, dense or convolutional: drive, feedback, Hebbian product (docs/theory.md)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Size, Tensor, nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.pooling import Pair, Route, as_images, pair


class Dense:
    """All-to-all connections: `torch.nn.Linear` on flat populations. Weight (outputs, inputs).

    ``x`` is (batch, *input shape), ``y`` (batch, *output shape).
    """

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return op(x; W) + b."""
        if x.dim() != 2:
            raise ActrelaxError(f"Linear takes a flat population, got shape {tuple(x.shape[1:])}: flatten before it.")
        return F.linear(x, weight, bias)

    def adjoint(self, y: Tensor, weight: Tensor, route: Route) -> Tensor:
        """Return op^T(y; W) in the shape and layout of the route: <op(x), y> = <x, op^T(y)>."""
        return y @ weight

    def hebbian(
        self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return scale times the sums of outer(y, x) and y over batch and space: the updates of weight and bias."""
        if scale != 1:
            y = y * scale  # y has fewer elements than the update
        return y.T @ x, None if bias is None else y.sum(0)

    def as_sparse(self, weight: Tensor, shape: Size) -> sparse.csr_array:
        """Return op(.; W) on inputs of `shape`, the batch included, as a matrix between flattened batches."""
        return _each_sample(shape, sparse.csr_array(_array(weight)))


class Conv2d(NamedTuple):
    """Convolution: `torch.nn.Conv2d` with zero padding; the methods are those of `Dense`.

    Weight (out channels, in channels / groups, height, width).
    """

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(as_images(x), weight, bias, *self)

    def adjoint(self, y: Tensor, weight: Tensor, route: Route) -> Tensor:
        signal, _, _ = self._backward(y, route.empty(y), weight, None, (True, False, False))
        return signal

    def hebbian(
        self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor | None]:
        # one kernel for both, like autograd: a separate sum would read y again
        sizes = None if bias is None else bias.shape
        _, update, of_bias = self._backward(y, x, weight, sizes, (False, True, bias is not None))
        return update.mul_(scale), None if bias is None else of_bias.mul_(scale)

    def _backward(
        self, y: Tensor, x: Tensor, weight: Tensor, bias_sizes: Size | None, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return autograd's gradients of input, weight and bias; `wanted` selects the ones to compute."""
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            y, x, weight, bias_sizes, self.stride, self.padding, self.dilation, False, (0, 0), self.groups, wanted
        )
        return gradients

    def as_sparse(self, weight: Tensor, shape: Size) -> sparse.csr_array:
        numbered = torch.arange(1, shape[1:].numel() + 1, dtype=torch.float64).view(1, *shape[1:])
        # the input units of each output pixel's patch, numbered from 1; 0 is padding
        patches = F.unfold(numbered, weight.shape[2:], self.dilation, self.padding, self.stride)[0].long().numpy()
        pixels = patches.shape[1]
        values = _array(weight).reshape(self.groups, -1, weight[0].numel(), 1)
        sources = patches.reshape(self.groups, 1, -1, pixels)
        targets = np.arange(len(weight) * pixels).reshape(self.groups, -1, 1, pixels)
        values, sources, targets = np.broadcast_arrays(values, sources, targets)
        there = sources > 0
        entries = (values[there], (targets[there], sources[there] - 1))
        size = (len(weight) * pixels, shape[1:].numel())
        return _each_sample(shape, sparse.csr_array(entries, shape=size))


LinearMap = Dense | Conv2d
"""The weighted stage: drive, feedback and plasticity of one weight tensor."""


def linear_map(module: nn.Linear | nn.Conv2d) -> LinearMap:
    """Return the linear map of a PyTorch module."""
    if isinstance(module, nn.Linear):
        return Dense()
    assert isinstance(module, nn.Conv2d)
    if module.padding_mode != "zeros":
        raise ActrelaxError(f"Conv2d must pad with zeros, got padding_mode {module.padding_mode!r}: use 'zeros'.")
    stride, dilation, padding = pair(module.stride), pair(module.dilation), module.padding
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, module.kernel_size, strict=True)]
        if any(r % 2 for r in reach):
            raise ActrelaxError("Conv2d with padding 'same' needs an odd kernel: pad by a number instead.")
        padding = (reach[0] // 2, reach[1] // 2)
    return Conv2d(stride, pair(padding), dilation, module.groups)  # type: ignore[arg-type]


def _array(weight: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return weight.detach().cpu().double().numpy()


def _each_sample(shape: Size, matrix: sparse.csr_array) -> sparse.csr_array:
    return sparse.kron(sparse.eye_array(shape[0]), matrix, format="csr")
