"""Names of weighted operations, from the modules that call them, and keys that identify their weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import CodeType
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

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


def origin_of(weight: Tensor, names: Mapping[int, str]) -> Hashable:
    """Return a key for a weight: its parameter, or the functions, options, parameters and buffers that compute it.

    A weight that a module computes anew in each call has the same key each time. `names` maps the identities of the
    module's parameters and buffers to their names.
    """
    if weight.grad_fn is None:
        return names.get(id(weight), id(weight))
    numbers, stack = dict[Node, int](), [weight.grad_fn]
    while stack:
        node = stack.pop()
        if node not in numbers:
            numbers[node] = len(numbers)
            stack += [child for child, _ in node.next_functions if child is not None]
    nodes = []
    for node in numbers:
        leaf = id(node.variable) if hasattr(node, "variable") else 0
        children = tuple((numbers.get(child), slot) for child, slot in node.next_functions)  # type: ignore[arg-type]
        nodes.append((node.name(), names.get(leaf, leaf), children, *_options(node, names)))
    return weight.output_nr, *nodes


def _options(node: Node, names: Mapping[int, str]) -> Iterator[tuple[str, Hashable]]:
    """Yield the numbers and buffers that a function of autograd's graph has saved, by name."""
    for name in dir(node):
        if name.startswith("_saved_"):
            saved: Any = getattr(node, name)
            if isinstance(saved, Tensor):
                is_number = saved.dim() == 0 and not saved.requires_grad
                saved = saved.item() if is_number else names.get(id(saved))
            yield name, saved if isinstance(saved, Hashable) else repr(saved)
