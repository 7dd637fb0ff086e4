"""Names of weighted operations: those of the modules that call them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import CodeType

from torch import Tensor, nn

from actrelax.models.network.captured.tape import Tape


def running_module(root: nn.Module, until: CodeType) -> str:
    """Return the name of the innermost part of `root` whose forward pass is running; `until` is its caller's code."""
    names: dict[int, str] = {id(module): name for name, module in root.named_modules()}
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not until:
        name = names.get(id(frame.f_locals.get("self")))
        if name is not None:
            return name
        frame = frame.f_back
    return ""


def operation_names(tape: Tape, parameters: Mapping[str, Tensor]) -> Callable[[int], str]:
    """Return a function that names weighted operations after their modules, or after their weights."""
    leaves = {id(p): name for name, p in parameters.items()}

    def name_of(index: int) -> str:
        operation = tape.operations[index]
        module, weight = tape.modules[operation.call_number], leaves.get(id(operation.weight), "")
        owner = weight.rpartition(".")[0]
        if owner.startswith(f"{module}.") or (owner and not module):
            return owner  # the weight's module is inside the one that calls the operation
        return module or weight or "weight"

    return name_of
