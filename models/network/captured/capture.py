"""Capturing a module: one pass on an example, which leaves the module as it was (docs/any-module.md)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.held import fork_state
from actrelax.models.network.captured.network import CapturedNetwork, Output
from actrelax.models.network.stimuli import check_batch


def capture(
    module: nn.Module, example: Tensor, output: Output | None = None, paths: Literal["one", "many"] = "one"
) -> CapturedNetwork:
    """Return the network of a module; see `Network.from_module`."""
    known("paths", paths, ["one", "many"])
    _check(module)
    check_batch(example)
    with fork_state(module, example):
        if any(is_lazy(p) for p in module.parameters()):
            with torch.no_grad():
                module(example)  # lazy layers take their shapes from the first batch
    network = CapturedNetwork(module, output, paths)
    with fork_state(module, example):
        network.run(example, values=False)
    return network


def _check(module: object) -> None:
    """Refuse what can't be captured."""
    if not isinstance(module, nn.Module):
        raise ActrelaxError(f"module must be an nn.Module, got {type(module).__name__}: put functions into a module.")
    for name, part in module.named_modules():
        of = f" of {name!r}" if name else ""
        if hasattr(part, "_orig_mod"):
            raise ActrelaxError(
                f"the module{of} is compiled by torch.compile, which can't be captured: give the one before."
            )
        if isinstance(part, nn.SyncBatchNorm):
            raise ActrelaxError(f"SyncBatchNorm{of} can't be captured: use BatchNorm or GroupNorm.")
