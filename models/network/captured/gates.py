"""Whose signals are passing: gates and hooks at the populations of one forward pass (docs/any-module.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.autograd.graph import Node

from actrelax.models.network.captured.edges import Edge


class Hook:
    """A hook that a module registers at a tensor, called when it is due: always, unless a `Turn` says otherwise."""

    def __init__(self, hook: Callable[[Tensor], Tensor | None]) -> None:
        self.hook = hook
        self.is_due: Callable[[], bool] | None = None

    def __call__(self, signal: Tensor) -> Tensor | None:
        return self.hook(signal) if self.is_due is None or self.is_due() else None


class Turn:
    """The population whose piece is being transposed.

    Signals of other pieces stop at the gate of a population. Hooks at a population are called for all that it
    receives, not for the part that arrives along a copy.

    population  its number; -1 before the first
    hooked      numbers of the populations with hooks
    hooks       hooks of the module by tensor, at populations or inside pieces
    """

    def __init__(
        self, gated: Sequence[bool] = (), edges: Sequence[Edge] = (), hooks: Mapping[Edge, Sequence[Hook]] | None = None
    ) -> None:
        self.population, self.hooks = -1, hooks or {}
        self.hooked: set[int] = set()
        close_gates(self, gated, edges)
        for number, edge in enumerate(edges if hooks else ()):
            for hook in self.hooks.get(edge, ()):
                hook.is_due = _is_turn(self, number)
                self.hooked.add(number)


def close_gates(turn: Turn, gated: Sequence[bool], edges: Sequence[Edge]) -> None:
    """Let the signals of a population's own piece alone pass its node."""
    gates: dict[Node, dict[int, int]] = {}
    for number, is_gated in enumerate(gated):
        if is_gated and not hasattr(edges[number][0], "variable"):
            gates.setdefault(edges[number][0], {})[edges[number][1]] = number
    for node, slots in gates.items():
        node.register_prehook(_gate(slots, turn))


def _gate(slots: Mapping[int, int], turn: Turn) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def stop(signals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        now = turn.population
        return tuple(None if slots.get(n, now) != now else s for n, s in enumerate(signals))  # type: ignore[misc]

    return stop


def _is_turn(turn: Turn, number: int) -> Callable[[], bool]:
    return lambda: turn.population == number
