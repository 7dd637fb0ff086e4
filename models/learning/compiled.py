"""The front door under `torch.compile`."""

from __future__ import annotations

from typing import Any

import torch._dynamo
from torch import Tensor


@torch._dynamo.nonstrict_trace
def recorded(model: Any, x: Tensor, scale: Tensor) -> Tensor:
    """Return the output of an `ActivationRelaxation`.

    `torch.compile` records the kernels of both passes, without reading the code that calls them. It can't record a
    check for nan and inf, which reads values. The scale of the loss is an argument, since it may change.
    """
    output: Tensor = model._output(x, scale, recording=True)
    return output


@torch.compiler.disable(  # type: ignore[no-untyped-call, untyped-decorator]
    reason="a relaxation that ends once it has settled reads values"
)
def unrecorded(model: Any, x: Tensor, scale: Tensor) -> Tensor:
    """Return the output of an `ActivationRelaxation` that can't be recorded: it runs as it is."""
    output: Tensor = model._output(x, scale)
    return output
