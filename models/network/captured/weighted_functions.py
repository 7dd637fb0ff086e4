"""The PyTorch functions that are weighted operations, where their weight is made of parameters (docs/any-module.md)."""

# ruff: noqa: A002 (arguments are called as those of the PyTorch functions)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from actrelax.models.network.captured.operations import Convolution, Linear, Operation, Recorded


class Tensors(Protocol):
    """The questions about tensors that a tape answers."""

    def is_weight(self, tensor: object) -> bool:
        """Return whether a tensor is real, and made of parameters and buffers alone."""

    def is_data(self, tensor: Tensor) -> bool:
        """Return whether a tensor depends on a drive or on the stimulus."""

    def cast(self, tensor: Tensor) -> Tensor:
        """Return the tensor in the precision of autocast."""


def _is_layer(tape: Tensors, weight: object, bias: object) -> bool:
    """Return whether a layer's weight and bias are made of parameters."""
    if not isinstance(weight, Tensor) or not tape.is_weight(weight):
        return False
    return bias is None or (isinstance(bias, Tensor) and not tape.is_data(bias))


def _linear(tape: Tensors, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Operation | None:
    if not _is_layer(tape, weight, bias):
        return None
    if weight.dim() == 2 and input.dim() >= 2:
        return Linear(input, weight, bias, tape.cast)
    return Recorded(F.linear, input, weight, bias, tape.cast, "dense")


def _embedding(
    tape: Tensors, input: Tensor, weight: Tensor, padding_idx: int | None = None, *options: Any, **named: Any
) -> Operation | None:
    if not _is_layer(tape, weight, None):
        return None

    def look_up(x: Tensor, w: Tensor) -> Tensor:
        return F.embedding(x, w, padding_idx, *options, **named)

    return Recorded(look_up, input, weight, None, _as_it_is, "dense")


def _plain(stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> dict[str, Any]:
    return locals()


def _transposed(
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1
) -> dict[str, Any]:
    return locals()


def _convolution(
    function: Callable[..., Tensor], dims: int, options_of: Callable[..., dict[str, Any]]
) -> Callable[..., Operation | None]:
    """Return a function that makes the operation of a convolution; `options_of` takes its arguments after the bias."""

    def make(
        tape: Tensors, input: Tensor, weight: Tensor, bias: Tensor | None = None, *options: Any, **named: Any
    ) -> Operation | None:
        if not _is_layer(tape, weight, bias):
            return None
        given = options_of(*options, **named)
        wide = _each(given["dilation"], dims)
        if options_of is _plain:
            given["padding"] = _in_numbers(given["padding"], weight.shape[2:], wide)
        if isinstance(given["padding"], str) or input.dim() != dims + 2:
            return Recorded(lambda x, w, b=None: function(x, w, b, **given), input, weight, bias, tape.cast, "conv")
        stride, padding, beyond = (_each(given.get(name, 0), dims) for name in ("stride", "padding", "output_padding"))
        rest = wide, options_of is _transposed, beyond, given["groups"]
        return Convolution(input, weight, bias, tape.cast, (stride, padding, *rest))

    return make


def _in_numbers(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> Any:
    """Convert a padding given by name to numbers, unless its two sides differ."""
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return padding if any(r % 2 for r in reach) else [r // 2 for r in reach]
    return 0 if padding == "valid" else padding


def _product(function: Callable[..., Tensor]) -> Callable[..., Operation | None]:
    def make(tape: Tensors, input: Any, other: Any = None, **named: Any) -> Operation | None:
        other = named.pop("mat2", named.pop("tensor2", other))
        operands = (input, other)
        if named or not all(isinstance(each, Tensor) for each in operands):
            return None
        left = tape.is_weight(input)
        if left == tape.is_weight(other):
            return None  # two weights, or two tensors that depend on the stimulus
        if left:
            return Recorded(lambda x, w: function(w, x), other, input, None, tape.cast, "dense")
        if other.dim() == 2 and input.dim() >= 2:
            return Linear(input, other, None, tape.cast, by_columns=True)
        return Recorded(function, input, other, None, tape.cast, "dense")

    return make


def _addmm(tape: Tensors, input: Tensor, mat1: Tensor, mat2: Tensor, **named: Any) -> Operation | None:
    if named or tape.is_data(input) or tape.is_weight(mat1) or not tape.is_weight(mat2):
        return None
    return Linear(mat1, mat2, input, tape.cast, by_columns=True)


def _einsum(tape: Tensors, equation: Any, *operands: Any) -> Operation | None:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2 or not all(isinstance(x, Tensor) for x in operands):
        return None
    first, second = operands
    left = tape.is_weight(first)
    if left == tape.is_weight(second):
        return None
    if left:
        return Recorded(lambda x, w: torch.einsum(equation, w, x), second, first, None, tape.cast, "dense")
    return Recorded(lambda x, w: torch.einsum(equation, x, w), first, second, None, tape.cast, "dense")


def _each(value: Any, dims: int) -> list[int]:
    values = [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]
    return values * dims if len(values) == 1 else values


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


OPERATIONS: dict[Any, Callable[..., Operation | None]] = {
    F.linear: _linear,
    F.embedding: _embedding,
    **{f: _convolution(f, n + 1, _plain) for n, f in enumerate((F.conv1d, F.conv2d, F.conv3d))},
    **{
        f: _convolution(f, n + 1, _transposed)
        for n, f in enumerate((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d))
    },
    **{f: _product(torch.matmul) for f in (torch.matmul, Tensor.matmul, Tensor.__matmul__)},
    **{f: _product(torch.mm) for f in (torch.mm, Tensor.mm)},
    **{f: _product(torch.bmm) for f in (torch.bmm, Tensor.bmm)},
    **dict.fromkeys((torch.addmm, Tensor.addmm), _addmm),
    torch.einsum: _einsum,
}
"""PyTorch function -> (tape, arguments of the function) -> the operation, or None where its weight is no parameter."""
