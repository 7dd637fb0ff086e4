"""The present drive of a pointwise function: for gains that are current rather than those of the feedforward pass.

A piece has a present drive under two conditions. It is a sum of drives and copies, sent through views, pooling,
BatchNorm in evaluation and at most one pointwise function known by name; and no drive reads a relay, whose activity
would depend on the gain itself. The sum is linear, apart from a constant: transposing its transpose, which autograd
provides, computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import ACTIVATIONS
from actrelax.models.network.captured.edges import Edge
from actrelax.models.network.captured.gains import Known
from actrelax.models.network.captured.operations import refuse_overwritten, refuse_stale
from actrelax.models.network.captured.pieces import transpose

LINEAR = (
    "Add", "Sub", "Neg", "View", "UnsafeView", "Reshape", "T", "Transpose", "Permute", "Unsqueeze", "Squeeze", "Expand",
    "Clone", "Alias", "ToCopy", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D",
    "MkldnnAdaptiveAvgPool", "Mean", "Sum", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D",
    "AdaptiveMaxPool3D", "ConstantPadNd", "UpsampleNearest2D",
)  # fmt: skip
"""Functions of autograd that are linear once their routes are those of the feedforward pass."""
VIEWS = ("View", "UnsafeView", "Reshape", "Unsqueeze", "Squeeze", "Alias")
"""Functions of autograd that leave the order of a tensor's elements as it is."""


class CurrentDrive:
    """The sum of drives that the pointwise function of one population reads, as a function of the activities.

    Parameters
    ----------
    passed : CapturedPass
    number : int
        Number of the population.

    Raises
    ------
    ActrelaxError
        For a piece of another form.

    Attributes
    ----------
    is_linear : bool
        Whether the piece has no pointwise function.
    activation : Activation
        The pointwise function; the identity of a linear piece.
    is_whole : bool
        Whether the population is the function's result, up to its shape: no pooling or hook comes between them.
    """

    def __init__(self, passed: Any, number: int) -> None:
        self.passed, self.number = passed, number
        edges = passed.inputs(number)
        known, leaves, norms, visited = _only_function(passed, number, edges)
        self.is_linear, self.activation, self.is_whole = known is None, ACTIVATIONS["identity"], True
        if known is None:
            return
        self.activation, self._node = known.activation, known.node
        above, hooks = _above(passed, number, known.node, edges), passed.turn.hooks
        self.is_whole = passed.edges[number] not in hooks and all(_kind(node) in VIEWS for node in above)
        sources = [wire.source for wire in passed.path.incoming[number] if wire.source is not None]
        inside = visited & (hooks.keys() - set(passed.edges))  # hooks change signals, but not the drive
        if any(passed.path.relays[source] for source in sources) or inside:
            raise _refused(passed.path.names[number])
        child = known.node.next_functions[0]
        assert child[0] is not None
        self._read: Edge = (child[0], child[1])
        passed.turn.population = number
        self._ends: list[Edge | Tensor] = [*edges, *leaves, *((norm.node, 0) for norm in norms)]
        self._linear = _Linear(self._read, self._ends)
        self._offset: Tensor | None = None
        for leaf in leaves:
            passed.versions.refuse_changed_weight(leaf, "a parameter")
        if leaves or norms:
            constants = [*(leaf.detach() for leaf in leaves), *map(_of_silence, norms)]
            self._offset = self._linear([*[None] * len(edges), *constants])
        self._check(known)

    def at(self, activity: Callable[[str], Tensor]) -> Tensor | None:
        """Return the drive at some activities, population -> (batch, *shape); None for a linear piece.

        The stimulus is that of the pass.
        """
        if self.is_linear:
            return None
        passed, values = self.passed, list[Tensor | None]()
        for wire in passed.path.incoming[self.number]:
            x = None if wire.source is None else activity(passed.path.names[wire.source])
            if wire.operation is None:
                values.append(x)
                continue
            operation = passed.operations[wire.operation]
            refuse_stale(operation)
            if x is None:
                refuse_overwritten(operation)
            if operation.bias is not None:
                passed.versions.refuse_changed_weight(operation.bias, "a bias")
            values.append((operation if x is None else operation.reading(x)).call().detach())
        constants = len(self._ends) - len(values)
        total = self._linear([*values, *[None] * constants])
        return total if self._offset is None else total + self._offset

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the drive, the batch included."""
        return tuple(self._read[0]._input_metadata[self._read[1]].shape)

    def above(self, signal: Tensor) -> Tensor:
        """Carry a signal from the population to the function's result."""
        turn, start = self.passed.turn, self.passed.edges[self.number]
        turn.population = self.number
        (found,) = transpose(start, [(self._node, 0)], signal, True, start in turn.hooks)
        assert found is not None
        return found

    def below(self, signal: Tensor) -> dict[str, Tensor]:
        """Carry a signal from the drive into each projection: projection -> signal."""
        wires, self.passed.turn.population = self.passed.path.incoming[self.number], self.number
        found = transpose(self._read, self._ends[: len(wires)], signal, keep=True)
        return {wire.name: part for wire, part in zip(wires, found, strict=True) if part is not None}

    def _check(self, known: Known) -> None:
        """Refuse a piece with constants that the tape does not know of."""
        passed, name = self.passed, self.passed.path.names[self.number]
        drive = self.at(passed.activity)
        assert drive is not None
        f = known.function(drive)
        above = _Linear(passed.edges[self.number], [(known.node, 0)])([f])
        expected = passed.activity("output" if self.number == 0 else name)
        close = torch.finfo(drive.dtype).eps ** 0.5
        if not torch.allclose(above, expected, rtol=close, atol=close * float(expected.abs().max() + 1)):
            raise _refused(name)


class _Linear:
    """What lies between some edges and another one, as a linear function of their values."""

    def __init__(self, edge: Edge, ends: list[Edge | Tensor]) -> None:
        if len(ends) == 1 and ends[0] == edge:
            self._only: bool = True
            return
        self._only = False
        metadata = edge[0]._input_metadata[edge[1]]
        self._signal = torch.zeros(
            tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device, requires_grad=True
        )
        starts: Any = [GradientEdge(*end, None) if isinstance(end, tuple) else end for end in ends]
        with torch.enable_grad():
            self._found = torch.autograd.grad(
                [GradientEdge(*edge, None)], starts, [self._signal], create_graph=True, allow_unused=True
            )

    def __call__(self, values: list[Tensor | None]) -> Tensor:
        """Return the value at the edge; None stands for zeros."""
        if self._only:
            assert values[0] is not None
            return values[0]
        pairs = [(f, v) for f, v in zip(self._found, values, strict=True) if f is not None and v is not None]
        with torch.enable_grad():
            (total,) = torch.autograd.grad(
                [f for f, _ in pairs], self._signal, [v.to(f.dtype) for f, v in pairs], retain_graph=True
            )
        return total


def _only_function(
    passed: Any, number: int, edges: list[Edge]
) -> tuple[Known | None, list[Tensor], list[Known], set[Edge]]:
    """Return a piece's pointwise function, if any, the parameters that it adds, norms in evaluation, and its tensors.

    Refuses pieces with several pointwise functions, with others that are not linear, or with added constants, such as
    the value of a padding.
    """
    name, start = passed.path.names[number], passed.edges[number]
    functions = {known.node: known for known in passed.gains.known}
    norms = {norm.node: norm for norm in passed.gains.norms if not getattr(norm.node, "_saved_training", True)}
    found, fixed = list[Known](), list[Known]()
    leaves, is_padded = dict[int, Tensor](), False
    visited, stack = {start}, [start]
    while stack:
        edge = stack.pop()
        node: Node = edge[0]
        if edge in edges:
            continue
        following = node.next_functions
        if hasattr(node, "variable"):
            leaves[id(node.variable)] = node.variable
        elif node in functions:
            found.append(functions[node])
        elif node in norms:
            fixed.append(norms[node])
            following = following[:1]  # without its own parameters
        elif _kind(node) == "ConstantPadNd":
            is_padded = is_padded or node in passed.gains.shifted
        elif _kind(node) not in LINEAR or node in passed.gains.shifted:
            raise _refused(name)
        children = [(child, n) for child, n in following if child is not None and (child, n) not in visited]
        visited.update(children)
        stack += children
    if len({known.node for known in found}) > 1 or (found and is_padded):
        raise _refused(name)
    return (found[0] if found else None), list(leaves.values()), fixed, visited


def _of_silence(norm: Known) -> Tensor:
    """Return the result of a BatchNorm in evaluation for an input of zeros."""
    metadata = norm.node._input_metadata[0]
    silent = torch.zeros(tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device)
    return norm.function(silent).detach()


def _kind(node: Node) -> str:
    return node.name().rstrip("0123456789").removesuffix("Backward")


def _above(passed: Any, number: int, function: Node, edges: list[Edge]) -> list[Node]:
    """Return the nodes between a population and its function; refuse drives and parameters that enter there."""
    found, stack = list[Node](), [passed.edges[number]]
    while stack:
        node, slot = stack.pop()
        if node is not function and node not in found:
            if (node, slot) in edges or _kind(node) not in LINEAR:
                raise _refused(passed.path.names[number])
            found.append(node)
            stack += [(child, n) for child, n in node.next_functions if child is not None]
    return found


def _refused(name: str) -> ActrelaxError:
    return ActrelaxError(
        f"population {name!r} is not one pointwise function of a sum of drives from populations that relax, so it has "
        "no current gain: use the gain of the feedforward pass, or none, for the projections into it."
    )
