"""Where a module holds its parameters and buffers: walking through all of its parts in each pass would take long."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Holder = dict[str, Tensor | None]


class Held:
    """The parts of a module, and the dictionaries in which they hold tensors, as they are when this is made.

    The tensors themselves are looked up for each pass, since `torch.func.functional_call` and others replace them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parts = [part for _, part in module.named_modules()]
        self._children = [(part._modules, key, child) for part in self.parts for key, child in part._modules.items()]
        self._parameters: list[tuple[str, Holder, str]] = []
        self._buffers: list[tuple[str, Holder, str]] = []
        for prefix, part in module.named_modules():
            for key, parameter in part._parameters.items():
                if parameter is not None:
                    self._parameters.append((f"{prefix}.{key}" if prefix else key, part._parameters, key))
            for key, buffer in part._buffers.items():
                if buffer is not None:
                    self._buffers.append((f"{prefix}.{key}" if prefix else key, part._buffers, key))
        self._sizes = self._count()

    @property
    def is_current(self) -> bool:
        """Return whether the module still has the same parts, and tensors in the same places."""
        children = [held.get(key) is child for held, key, child in self._children]  # lists are faster than generators
        tensors = [held.get(key) is not None for _, held, key in self._parameters]
        return all(children) and all(tensors) and self._count() == self._sizes

    def parameters(self) -> dict[str, Tensor]:
        """Return name -> parameter, with each name of a parameter that is held in several places."""
        return {name: held[key] for name, held, key in self._parameters}  # type: ignore[misc]

    def places(self) -> list[tuple[Holder, str]]:
        """Return a dictionary and a key of it for each parameter."""
        return [(held, key) for _, held, key in self._parameters]

    def constants(self) -> dict[int, Tensor]:
        """Return the parameters and buffers by identity, which keeps the identities theirs."""
        tensors = [held.get(key) for _, held, key in [*self._parameters, *self._buffers]]
        return {id(tensor): tensor for tensor in tensors if tensor is not None}

    def names(self) -> dict[int, str]:
        """Return identity -> name of the parameters and buffers; of several names, the last."""
        return {id(held.get(key)): name for name, held, key in [*self._buffers, *self._parameters]}

    def _count(self) -> list[int]:
        return [len(part._modules) + len(part._parameters) for part in self.parts]


@contextmanager
def fork_state(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Reset a module's buffers and the random generators, those of the batch's device too, at the end of the block.

    The buffers are the same tensors as before; inside the block the module has copies of them.
    """
    before = [(part._buffers, dict(part._buffers)) for part in module.modules()]
    for buffers, kept in before:
        for name, buffer in kept.items():
            if buffer is not None:
                buffers[name] = buffer.clone()
    python = random.getstate()
    devices = [x.device] if x.is_cuda else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        for buffers, kept in before:
            buffers.clear()
            buffers.update(kept)
