"""Source modules of a network, whose Parameters it shares: detection of changes that the network would miss."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn
from torch.nn.modules import module as _module

from actrelax.models.errors import ActrelaxError

Structure = list[tuple[str, nn.Module, tuple[object, ...]]]


class Source:
    """A weak reference to a source module, and its structure when the network was made.

    A module that no longer exists can't change. Copies of the network have no source.
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        self._module = (lambda: None) if module is None else weakref.ref(module)
        self._structure = [] if module is None else _weak(structure(module))

    def __reduce__(self) -> tuple[Any, ...]:
        return Source, ()

    @property
    def module(self) -> nn.Module | None:
        """The module, or None if it no longer exists."""
        return self._module()

    def check(self) -> None:
        """Refuse a module that has changed."""
        module = self.module
        if module is None:
            return
        found = structure(module)
        if (weak := _weak(found)) != self._structure:
            name = changed_layer(weak, self._structure)
            raise ActrelaxError(
                f"the module has changed at layer {name!r} since the network was made: make a new network."
            )


def structure(module: nn.Module) -> Structure:
    """Return (name, layer, options) of a module and its layers; refuse hooks and the like, as `refuse_ignored`."""
    found: Structure = []
    for name, layer in module.named_modules():
        refuse_ignored(layer, name)
        options = [getattr(layer, option, None) for option in getattr(layer, "__constants__", ())]
        if not type(layer).__module__.startswith("torch.nn."):  # a custom forward pass may depend on flags
            options += [item for item in vars(layer).items() if type(item[1]) in (bool, str) and item[0] != "training"]
        shapes = [(key, tuple(w.shape)) for key, w in layer._parameters.items() if w is not None]
        found.append((name, layer, (*options, *shapes)))
    return found


def refuse_ignored(layer: nn.Module, name: str) -> None:
    """Refuse hooks, parametrisations and replaced forward passes, which a relaxation would not call."""
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        raise ActrelaxError(
            f"layer {name!r} has a hook, which a relaxation does not call: remove it (prune.remove does so for "
            "pruning; weight normalisation and lazy layers add hooks, too)."
        )
    if "parametrizations" in layer._modules:
        raise ActrelaxError(
            f"layer {name!r} is parametrised, which is not supported: use a plain layer, or call "
            "torch.nn.utils.parametrize.remove_parametrizations."
        )
    if "forward" in vars(layer):
        raise ActrelaxError(
            f"layer {name!r} has a forward method set on the instance, which a relaxation does not call: delete it."
        )


def refuse_global_hooks() -> None:
    """Refuse global module hooks, except those of PyTorch's own tools, which only observe."""
    for hooks in (
        _module._global_forward_hooks,
        _module._global_forward_pre_hooks,
        _module._global_backward_hooks,
        _module._global_backward_pre_hooks,
    ):
        for hook in hooks.values():
            if not str(getattr(hook, "__module__", "")).startswith("torch."):
                raise ActrelaxError(
                    f"a global module hook, {getattr(hook, '__qualname__', hook)}, is registered, which a relaxation "
                    "does not call: remove it by its handle."
                )


def changed_layer(new: list[Any], old: list[Any]) -> str:
    """Return the name of the first layer in which two structures differ."""
    return next((a[0] for a, b in zip(new, old, strict=False) if a != b), "")


def _weak(found: Structure) -> list[tuple[str, weakref.ref[nn.Module], tuple[object, ...]]]:
    return [(name, weakref.ref(layer), options) for name, layer, options in found]
