"""The derivatives in a piece that assumptions change: of pointwise functions known by name, and of BatchNorm.

Hooks at their nodes in autograd's graph change what passes; they are registered when a relaxation first needs them
(docs/theory.md, section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from actrelax.models.assumptions import Assumptions, Gain, Presynaptic, Statistics
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import Activation
from actrelax.models.network.captured.functions import activation_of

_NAMES = ("relu", "leaky_relu", "tanh", "sigmoid", "softplus", "gelu", "silu", "elu", "hardtanh", "relu6")
POINTWISE: frozenset[Callable[..., Tensor]] = frozenset(
    getattr(owner, name + ending)
    for owner in (torch, F, Tensor)
    for name in _NAMES
    for ending in ("", "_")
    if hasattr(owner, name + ending)
)
"""The pointwise functions known by name, as functions and methods, those that write in place among them."""
_NODES = frozenset(("Relu", "LeakyRelu", "Tanh", "Sigmoid", "Softplus", "Gelu", "Silu", "Elu", "Hardtanh"))
"""Their nodes in autograd's graph: a write into a part of a tensor hides them."""
BATCH_NORM: frozenset[Callable[..., Tensor]] = frozenset((F.batch_norm, torch.batch_norm))
ADDITIONS: frozenset[Callable[..., Tensor]] = frozenset(
    getattr(owner, name)
    for owner in (torch, Tensor)
    for name in ("add", "add_", "sub", "sub_", "subtract", "subtract_")
    if hasattr(owner, name)
)
PADDINGS: frozenset[Callable[..., Tensor]] = frozenset((F.pad, torch.constant_pad_nd))
SHIFTS = ADDITIONS | PADDINGS
"""Functions that may add a constant."""


@dataclass(frozen=True, eq=False)
class Known:
    """A pointwise function or a BatchNorm in one forward pass: its function, and its node in autograd's graph."""

    function: partial[Tensor]
    node: Node

    @classmethod
    def of(cls, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> Known:
        """Return the function of a call and its result, which requires a gradient."""
        assert result.grad_fn is not None
        options = {name: value for name, value in kwargs.items() if name != "input"}
        rest = args[1:] if "input" not in kwargs else args
        return cls(partial(_applied, func, tuple(rest), options), result.grad_fn)

    @property
    def activation(self) -> Activation:
        """The pointwise function as an activation."""
        return activation_of(self.function, *self.function.args)


def _applied(func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any], x: Tensor) -> Tensor:
    return func(x.clone(), *args, **kwargs)  # it may write in place


def adds_constant(func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an addition has an operand without a gradient, or a padding a value: a number other than 0."""
    if func in PADDINGS:
        return any(isinstance(value, int | float) and value != 0 for value in [*args[2:], kwargs.get("value")])
    operands = [*args[:2], kwargs.get("other", 0)]
    return any(
        not x.requires_grad if isinstance(x, Tensor) else not isinstance(x, int | float) or x != 0 for x in operands
    )


class Gains:
    """Which derivatives the pieces of one forward pass have, at the moment.

    known    its pointwise functions
    norms    its BatchNorms
    shifted  nodes of its additions with constants, and of its paddings with a value other than 0
    """

    def __init__(
        self, known: Sequence[Known] = (), norms: Sequence[Known] = (), shifted: Collection[Node] = ()
    ) -> None:
        self.known, self.norms, self.shifted = known, norms, shifted
        self._gain: Gain = "feedforward"
        self._is_constant = False
        self._registered: set[str] = set()
        self._drive: Tensor | None = None

    @contextmanager
    def set(self, gain: Gain, statistics: Statistics, drive: Tensor | None = None) -> Iterator[None]:
        """Let signals have these derivatives in a `with` block; `drive` is what the pointwise function reads now."""
        self._gain, self._is_constant, self._drive = gain, statistics == "constant", drive
        self._register()
        try:
            yield
        finally:
            self._gain, self._is_constant, self._drive = "feedforward", False, None

    def _register(self) -> None:
        """Register the hooks that are needed now, once."""
        if self._gain != "feedforward" and "gains" not in self._registered:
            self._registered.add("gains")
            for known in self.known:
                known.node.register_hook(self._hook(known))
        if self._is_constant and "statistics" not in self._registered:
            self._registered.add("statistics")
            for norm in self.norms:
                if getattr(norm.node, "_saved_training", True):
                    norm.node.register_hook(self._constant(_scale(norm.node)))

    def _hook(self, known: Known) -> Callable[[Sequence[Tensor], Sequence[Tensor]], Any]:
        if known.node.name().rstrip("0123456789").removesuffix("Backward") not in _NODES:
            raise ActrelaxError(
                "a pointwise function writes into a part of a tensor, where its derivative can't be changed: "
                "let the module make a new tensor."
            )

        def changed(found: Sequence[Tensor], signals: Sequence[Tensor]) -> tuple[Tensor | None, ...] | None:
            if self._gain == "feedforward" or found[0] is None:
                return None
            signal = signals[0]
            if self._gain == "current":
                assert self._drive is not None
                signal = times_derivative(known.function, self._drive, signal)
            return (signal.to(found[0].dtype), *found[1:])

        return changed

    def _constant(self, scale: Tensor) -> Callable[[Sequence[Tensor], Sequence[Tensor]], Any]:
        def changed(found: Sequence[Tensor], signals: Sequence[Tensor]) -> tuple[Tensor | None, ...] | None:
            if not self._is_constant or found[0] is None:
                return None
            over_channels = scale.view(1, -1, *[1] * (signals[0].dim() - 2))
            return ((signals[0] * over_channels).to(found[0].dtype), *found[1:])

        return changed


def _scale(norm: Any) -> Tensor:
    """Return gamma/sigma of a BatchNorm in training, per channel."""
    scale: Tensor = norm._saved_result2
    return scale if norm._saved_weight is None else scale * norm._saved_weight.detach()


def times_derivative(function: Callable[[Tensor], Tensor], drive: Tensor, signal: Tensor) -> Tensor:
    """Return f'(drive) times the signal."""
    with torch.enable_grad():
        a = drive.detach().requires_grad_()
        (product,) = torch.autograd.grad(function(a), a, signal.to(a.dtype))
    return product


@dataclass(frozen=True)
class PieceGains:
    """The gains of a population's piece, by where signals leave it.

    sent     per projection, the gain of the signal that relaxes its source
    learned  per projection, the gain of its update; None for a copy
    own      the gain of the updates of the piece's parameters: that of its first projection
    carried  per projection, whether its source relaxes
    presynaptic  per projection, the presynaptic factor of its update
    """

    sent: tuple[Gain, ...]
    learned: tuple[Gain | None, ...]
    own: Gain
    carried: tuple[bool, ...]
    presynaptic: tuple[Presynaptic, ...]

    @classmethod
    def of(cls, wires: Sequence[Any], assumptions: Assumptions) -> PieceGains:
        """Return the gains under some assumptions, from the projections into the population."""
        knobs = [assumptions.of(wire.name, wire.kind) for wire in wires]
        return cls(
            tuple(k.activity_gain for k in knobs),
            tuple(None if wire.operation is None else k.weight_gain for wire, k in zip(wires, knobs, strict=True)),
            knobs[0].weight_gain if knobs else "feedforward",
            tuple(wire.source is not None for wire in wires),
            tuple(k.presynaptic for k in knobs),
        )

    @cached_property
    def sending(self) -> list[Gain]:
        """The gains of all signals, each once."""
        return list(dict.fromkeys(self.sent))

    @cached_property
    def learning(self) -> list[Gain]:
        """The gains of all updates, each once."""
        return list(dict.fromkeys([gain for gain in self.learned if gain is not None] + [self.own]))

    @cached_property
    def all(self) -> list[Gain]:
        """The gains of all updates, and of the signals that relax a population, each once."""
        carried = [gain for gain, is_carried in zip(self.sent, self.carried, strict=True) if is_carried]
        return list(dict.fromkeys(self.learning + carried))
