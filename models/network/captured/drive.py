"""A weighted operation cut out of autograd's graph: its result is an edge of the graph, its input is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError


class Drive(torch.autograd.Function):
    """Runs a weighted operation without recording it, and marks its result in autograd's graph."""

    @staticmethod
    def forward(ctx: Any, handle: Tensor, call: Callable[[], Tensor]) -> Tensor:
        """Return the drive, which requires a gradient because `handle` does."""
        drive = call()
        # a view of a Function's result can't be written to in place
        return torch.ops.aten._unsafe_view(drive, drive.shape) if drive._is_view() else drive

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Refuse: gradients are asked of the drive and go no further."""
        raise ActrelaxError("a captured drive has no backward pass: call backward on the output of the network.")
