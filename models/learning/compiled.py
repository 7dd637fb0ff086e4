"""`ActivationRelaxation` under `torch.compile`."""

from __future__ import annotations

from typing import Any

import torch._dynamo
from torch import Tensor


@torch._dynamo.nonstrict_trace
def recorded(model: Any, x: Tensor, scale: Tensor) -> Tensor:
    """Return the output of an `ActivationRelaxation`, without checks for nan and inf.

    `torch.compile` records the kernels of both passes, but does not analyse the Python code that calls them. Checks
    for nan and inf read values, so they can't be recorded. The loss scale is an argument because it may change.
    """
    output: Tensor = model._output(x, scale, recording=True)
    return output


@torch.compiler.disable(  # type: ignore[no-untyped-call, untyped-decorator]
    reason="the number of steps depends on activities"
)
def unrecorded(model: Any, x: Tensor, scale: Tensor) -> Tensor:
    """Return the output of an `ActivationRelaxation` without compiling: its number of steps depends on activities."""
    output: Tensor = model._output(x, scale)
    return output
