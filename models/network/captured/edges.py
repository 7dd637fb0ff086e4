"""Tensors as edges of autograd's graph, with their places in a forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

Edge = tuple[Node, int]
"""A tensor of autograd's graph: the node that made it, and which of the node's results it is."""
Place = tuple[int, bool, int]
"""Where a tensor is seen: number of the call, whether among its arguments, and which of their leaves."""


@dataclass(frozen=True)
class Seen:
    """A tensor of the graph that went by: its value, or a copy, and where it was seen; the tensor and its version."""

    value: Tensor
    place: Place
    tensor: Tensor
    version: int

    @property
    def has_changed(self) -> bool:
        """Return whether the tensor has changed in place since."""
        return self.tensor._version != self.version


def edge_of(tensor: Tensor) -> Edge:
    """Return the edge of a tensor that requires a gradient."""
    if tensor.grad_fn is not None:
        return tensor.grad_fn, tensor.output_nr
    with torch.enable_grad():
        node = tensor.view_as(tensor).grad_fn
    assert node is not None
    accumulates = node.next_functions[0][0]
    assert accumulates is not None
    return accumulates, 0
