"""Weighted operations: linear in one tensor and in a weight made of parameters alone.

Each knows its input `x`, its weight and bias, and its transpose: the signal for the input and the Hebbian products, by
the kernels that autograd would call (docs/any-module.md).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.versions import changed_weight
from actrelax.models.network.pooling import is_channels_last

Wanted = tuple[bool, bool, bool]
"""Whether the signal for x, the update of the weight and that of the bias are wanted."""
Found = tuple[Tensor | None, Tensor | None, Tensor | None]
"""The signal for x, the update of the weight and that of the bias."""


class Operation:
    """One call of a weighted operation.

    kind    "conv" for convolutions, "dense" otherwise
    read    the input with its autograd history; None once the tape has noted it
    x       the input without its history; None after `forget`
    weight  the weight as the module holds it
    bias    the bias, or None
    call_number  number of the call on its tape
    sends_new  whether its signal is a tensor that nothing else holds
    takes_several  whether `both` takes several signals, stacked in front, if it is asked for the signal for x alone
    used, own_bias  weight and bias as the operation used them: under autocast in the lower precision
    """

    kind = "dense"
    sends_new = True
    takes_several = True

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None, cast: Cast) -> None:
        self.read: Tensor | None = x
        self.x: Tensor | None = cast(x.detach())
        self.weight, self.bias = weight, bias
        self.used = cast(weight.detach())
        self.own_bias = None if bias is None else cast(bias.detach())
        self.versions = weight._version, self.x._version
        self.dtype = x.dtype
        self.call_number = -1

    def call(self) -> Tensor:
        """Return the drive, bias included."""
        raise NotImplementedError

    def both(self, y: Tensor, wanted: Wanted, keep: bool = False) -> Found:
        """Return op^T(y) and the Hebbian products of x and y, None for the unwanted; `keep` allows another call."""
        raise NotImplementedError

    def forget(self) -> None:
        """Free the input."""
        self.x = None

    def by(self, weight: Tensor) -> Operation:
        """Return the same operation with another weight, such as feedback weights."""
        other = copy.copy(self)
        other.used = weight.to(self.used.dtype)
        return other

    def reading(self, x: Tensor) -> Operation:
        """Return the same operation as it reads another tensor of the same shape."""
        assert self.x is not None
        other = copy.copy(self)
        other.x = x.to(self.x.dtype)
        other.versions = self.versions[0], other.x._version
        return other

    def follow(self) -> None:
        """Use the current weight and bias, after they have changed in place."""
        self.used = self.weight.detach().to(self.used.dtype)
        if self.bias is not None:
            self.own_bias = self.bias.detach().to(self.used.dtype)
        self.versions = self.weight._version, self.versions[1]

    @property
    def is_stale(self) -> bool:
        """Return whether the weight has changed in place since the forward pass."""
        return self.weight._version != self.versions[0]

    @property
    def is_overwritten(self) -> bool:
        """Return whether what the operation read has changed in place since."""
        return self.x is not None and self.x._version != self.versions[1]


Cast = Callable[[Tensor], Tensor]
"""Conversion to the precision in which autocast calls an operation; the tensor itself without autocast."""


class Linear(Operation):
    """`F.linear`, and products x @ W with a matrix W of parameters (`by_columns`)."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None, cast: Cast, by_columns: bool = False) -> None:
        super().__init__(x, weight, bias, cast)
        self.by_columns = by_columns

    def call(self) -> Tensor:
        x, bias = self.x, self.own_bias
        assert x is not None
        matrix = self.used if self.by_columns else self.used.t()
        if x.dim() > 2 and not x.is_contiguous():  # the kernels that PyTorch takes where the weight learns
            drive = x.reshape(-1, x.shape[-1]).mm(matrix).view(*x.shape[:-1], -1)
            return drive if bias is None else drive.add_(bias)
        if not self.by_columns:
            return F.linear(x, self.used, bias)
        return torch.matmul(x, matrix) if bias is None else torch.addmm(bias, x, matrix)

    def both(self, y: Tensor, wanted: Wanted, keep: bool = False) -> Found:
        assert self.x is not None
        x, matrix = self.x, self.used if not self.by_columns else self.used.t()
        rows = y if y.dim() == 2 else y.reshape(-1, y.shape[-1])
        signal = update = of_bias = None
        if wanted[0]:
            signal = rows.mm(matrix)
            signal = signal if y.dim() == 2 else signal.view(*y.shape[:-1], -1)
        if wanted[1]:
            read = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
            update = read.t().mm(rows) if self.by_columns else rows.t().mm(read)
        if wanted[2]:
            assert self.bias is not None
            of_bias = rows.sum(0) if self.bias.dim() == 1 else y.sum_to_size(self.bias.shape)
        return signal, update, of_bias


class Convolution(Operation):
    """`F.conv1d`, `F.conv2d`, `F.conv3d` and their transposed versions."""

    kind = "conv"

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None, cast: Cast, options: tuple[Any, ...]) -> None:
        super().__init__(x, weight, bias, cast)
        self.options = options  # stride, padding, dilation, transposed, output padding, groups

    def call(self) -> Tensor:
        drive: Tensor = torch.convolution(self.x, self.used, self.own_bias, *self.options)  # type: ignore[arg-type]
        return drive

    def both(self, y: Tensor, wanted: Wanted, keep: bool = False) -> Found:
        assert self.x is not None
        sizes = None if self.bias is None else self.bias.shape
        if y.dim() > self.x.dim():
            return self._several(y), None, None
        found: Found = torch.ops.aten.convolution_backward(y, self.x, self.used, sizes, *self.options, wanted)
        return found

    def _several(self, y: Tensor) -> Tensor:
        """Return the signals for x of several y, stacked in front."""
        assert self.x is not None
        several = y.flatten(0, 1)
        layout = torch.channels_last if is_channels_last(self.x) else torch.contiguous_format
        x = torch.empty((len(several), *self.x.shape[1:]), dtype=y.dtype, device=y.device, memory_format=layout)
        wanted = True, False, False
        found: Found = torch.ops.aten.convolution_backward(several, x, self.used, None, *self.options, wanted)
        assert found[0] is not None
        return found[0].view(len(y), *self.x.shape)


class Recorded(Operation):
    """Any other weighted operation; autograd records it, and transposes it."""

    sends_new = False
    takes_several = False

    def __init__(
        self, function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, cast: Cast, kind: str
    ) -> None:
        super().__init__(x, weight, bias, cast)
        self.function, self.kind = function, kind
        self.leaves: list[Tensor] = [cast(x.detach()), self.used, *([] if self.own_bias is None else [self.own_bias])]
        self.result: Tensor | None = None

    def call(self) -> Tensor:
        with torch.enable_grad():
            self.leaves = [w.detach().requires_grad_(w.is_floating_point()) for w in self.leaves]
            self.result = self.function(*self.leaves)
            self.versions = self.weight._version, self.versions[1]  # an embedding with max_norm scales its weight
            return self.result.detach()

    def both(self, y: Tensor, wanted: Wanted, keep: bool = False) -> Found:
        assert self.result is not None
        asked = [leaf for leaf, is_wanted in zip(self.leaves, wanted, strict=False) if is_wanted]
        given = iter(torch.autograd.grad(self.result, asked, y, retain_graph=keep) if asked else ())
        signal, update, of_bias = (next(given) if is_wanted else None for is_wanted in wanted)
        return signal, update, of_bias

    def by(self, weight: Tensor) -> Recorded:
        other = super().by(weight)
        assert isinstance(other, Recorded)
        other.leaves = [self.leaves[0], other.used, *self.leaves[2:]]
        other.call()
        return other

    def reading(self, x: Tensor) -> Recorded:
        other = super().reading(x)
        assert isinstance(other, Recorded)
        assert other.x is not None
        other.leaves = [other.x, *self.leaves[1:]]
        other.call()
        other.versions = self.versions[0], other.versions[1]
        return other

    def follow(self) -> None:
        super().follow()
        self.leaves = [self.leaves[0], self.used, *([] if self.own_bias is None else [self.own_bias])]
        self.call()

    def forget(self) -> None:
        super().forget()
        self.result, self.leaves = None, []


def leaves_of(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the parameters among some weights, and those of which the other weights are computed."""
    found = {id(w): w for w in weights if w.grad_fn is None}
    visited, stack = set(), [w.grad_fn for w in weights]
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        stack += [child for child, _ in node.next_functions]
    return list(found.values())


def signal_of(operation: Operation, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return op^T(y; weight), None for the operation's own weight, and keep what the operation reads."""
    refuse_stale(operation)
    if weight is not None:
        operation = operation.by(weight)
    signal, _, _ = operation.both(y.to(operation.used.dtype), (True, False, False), keep=True)
    assert signal is not None
    return signal.to(operation.dtype)


def refuse_stale(operation: Operation) -> None:
    """Refuse a weight that has changed in place since the forward pass."""
    if operation.is_stale:
        raise changed_weight("a weight")


def refuse_overwritten(operation: Operation) -> None:
    """Refuse an operation whose input has changed in place since the forward pass."""
    if operation.is_overwritten:
        raise ActrelaxError(
            "a tensor that a weight reads has changed in place since the forward pass: clone it before writing to it."
        )
