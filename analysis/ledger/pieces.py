"""How signals pass the pieces of a captured network: what the functions on their way need.

A signal leaves a population through its piece, and arrives at drives, copies and parameters. Each function on the way
needs nothing of the batch, the slope of a unit, the winners of pools, or states of other units (docs/theory.md,
section 7). The names of autograd's functions tell, and for products which of their factors depend on the stimulus. A
function that is not listed here may need anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from actrelax.models.assumptions import Gain

Edge = tuple[Any, int]
Needs = Literal["nothing", "slope", "winners", "states"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


POINTWISE = _names(
    "Relu LeakyRelu Tanh Sigmoid Softplus Gelu Silu Elu Hardtanh "
    "Hardswish Hardsigmoid Mish Exp Expm1 Log Log1P Sqrt Rsqrt Abs Sin Cos Clamp ClampMin ClampMax Threshold Erf "
    "LogSigmoid Reciprocal PreluKernel Celu RreluWithNoise Softshrink Hardshrink CopySlices"
)
"""Functions of a unit alone; CopySlices, which writes into part of a tensor, hides its function."""
WINNERS = _names(
    "MaxPool MaxPoolWithIndices AdaptiveMaxPool FractionalMaxPool Max Min Amax Amin Maximum Minimum Topk Sort Median "
    "Where Index IndexAdd MaskedSelect MaxUnpool"
)
"""Functions that choose among units."""
PRODUCTS = _names("Mul Div Addcmul Addcdiv Lerp Pow")
"""Functions of a unit alone where one of their factors depends on the stimulus; otherwise they need states."""
FIXED = _names(
    "Add Sub Rsub Neg Sum Mean Cat Stack AvgPool AdaptiveAvgPool MkldnnAdaptiveAvgPool UpsampleNearest "
    "UpsampleBilinear UpsampleLinear UpsampleBicubic UpsampleTrilinear UpsampleNearestExact ConstantPadNd "
    "ReflectionPad ReplicationPad Roll Flip Repeat Gather IndexSelect Cumsum Tril Triu Diagonal NativeDropout "
    "MaskedFill View UnsafeView Reshape ReshapeAlias T Transpose Permute Unsqueeze Squeeze Expand "
    "Clone Alias Slice Select Split UnsafeSplit SplitWithSizes Unbind AsStrided ToCopy PixelShuffle PixelUnshuffle "
    "ChannelShuffle Im2Col Col2Im"
)
"""Linear functions without weights, whose adjoint needs no activity."""
SUMS = _names("Trilinear Mm Bmm Addmm Baddbmm Addbmm Mv Dot")
"""Functions that multiply a parameter by states of other units."""
ADDED = {
    **dict.fromkeys(("Addmm", "Addbmm", "Baddbmm", "Addmv", "Addcmul", "Addcdiv"), 0),
    **dict.fromkeys(("LayerNorm", "GroupNorm", "BatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"), 2),
}
"""Function -> position of the argument that it adds, such as a norm's bias, whose update is the signal alone."""
OF_ONE_UNIT = POINTWISE | _names("Add Sub Rsub Neg Mul Div Pow Clone Alias ToCopy")
"""Functions by which each unit of a tensor follows from the same unit of others."""


@dataclass(frozen=True)
class Way:
    """The way of signals through a piece, from its population to one end: a drive, a copy or a parameter.

    known    pointwise functions on it whose slope the gain knobs choose
    others   other pointwise functions
    winners  functions on it that need winners
    states   functions on it that need other units' states, and functions that are not known
    own      functions that multiply a parameter at its end by states, as a norm does its scale by the unit's own
    length   number of functions on it
    """

    known: tuple[str, ...]
    others: tuple[str, ...]
    winners: tuple[str, ...]
    states: tuple[str, ...]
    own: tuple[str, ...]
    length: int

    def slopes_read(self, gain: Gain) -> tuple[str, ...]:
        """Return the pointwise functions whose slope in the forward pass is read, as a knob has it."""
        return self.known + self.others if gain == "feedforward" else self.others

    def functions(self, gain: Gain) -> Iterator[str]:
        """Yield the functions whose adjoint reads what autograd has saved, as a knob has it."""
        yield from (*self.slopes_read(gain), *self.winners, *self.states)

    def slope(self, gain: Gain) -> str:
        """Return the slope in words, as a knob has it."""
        changed = {"none": "dropped", "current": "now"}.get(gain) if self.known else None
        if changed is None:
            return "forward pass" if self.known or self.others else "constant"
        return f"{changed}, but {', '.join(self.others)}" if self.others else changed


@dataclass
class PieceGraph:
    """The part of autograd's graph that is one population's piece.

    start  the population's edge
    ends   the edges of its drives, and of the populations that are copied into it
    known  the nodes of pointwise functions whose slope the gain knobs choose
    scaled  the nodes of norms that only scale signals, by what they have divided by in the forward pass
    """

    start: Edge
    ends: Collection[Edge]
    known: Collection[Any] = ()
    scaled: Collection[Any] = ()
    _reached: dict[Any, frozenset[Edge | int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self._children_first():
            self._reached[node] = frozenset[Edge | int]().union(*map(self._from, _children(node)))

    def way(self, end: Edge | int) -> Way:
        """Return the way to an end: an edge, or a parameter by its identity."""
        found = {needs: dict[str, None]() for needs in ("known", "nothing", "slope", "winners", "states")}
        nodes = [node for node, reached in self._reached.items() if end in reached]
        own = dict[str, None]()
        for node in nodes:
            name = _brief(node)
            if not isinstance(end, int) or not (places := self._places(node, end)):
                found["known" if node in self.known else self._needs(node)][name] = None
            elif name not in FIXED and places != [ADDED.get(name)]:
                own[name] = None  # the update multiplies the signal by the state that the parameter multiplied
                if name in SUMS:
                    found["states"][name] = None
        known, others, winners, states = (tuple(found[needs]) for needs in ("known", "slope", "winners", "states"))
        return Way(known, others, winners, states, tuple(own), len(nodes))

    def _children_first(self) -> list[Any]:
        """Return the nodes of the piece, each after those that it depends on."""
        if self.start in self.ends or hasattr(self.start[0], "variable"):
            return []
        order, visited, stack = list[Any](), {self.start[0]}, [(self.start[0], iter(_children(self.start[0])))]
        while stack:
            child = next((c for c in stack[-1][1] if not self._is_end(c) and c[0] not in visited), None)
            if child is None:
                order.append(stack.pop()[0])
            else:
                visited.add(child[0])
                stack.append((child[0], iter(_children(child[0]))))
        return order

    def _is_end(self, edge: Edge) -> bool:
        return hasattr(edge[0], "variable") or edge in self.ends

    def _from(self, edge: Edge) -> frozenset[Edge | int]:
        """Return the ends that an edge depends on."""
        if hasattr(edge[0], "variable"):
            return frozenset({id(edge[0].variable)})
        return frozenset({edge}) if edge in self.ends else self._reached.get(edge[0], frozenset())

    def _places(self, node: Any, parameter: int) -> list[int]:
        """Return the positions of a function's arguments that depend only on the parameter with this identity."""
        edges = enumerate(node.next_functions)
        return [number for number, edge in edges if edge[0] is not None and self._from(edge) == {parameter}]

    def _is_stimulated(self, edge: Edge) -> bool:
        """Return whether an edge depends on a drive or a copied population."""
        return any(isinstance(end, tuple) for end in self._from(edge))

    def _needs(self, node: Any) -> Needs:
        """Return what a function needs to pass a signal; what is not known may need anything."""
        name = _brief(node)
        if node in self.scaled:
            return "slope"
        if name in PRODUCTS:
            return self._needs_of_product(node, name)
        if name.endswith("BatchNorm") and not getattr(node, "_saved_training", True):
            return "nothing"
        by_name: dict[Needs, frozenset[str]] = {"slope": POINTWISE, "winners": WINNERS, "nothing": FIXED}
        return next((needs for needs, names in by_name.items() if name in names), "states")

    def _needs_of_product(self, node: Any, name: str) -> Needs:
        factors = [child for child in _children(node) if self._is_stimulated(child)]
        if len(factors) < 2:
            return "slope" if name == "Pow" else "nothing"
        if name not in OF_ONE_UNIT:
            return "states"
        origins = {self._origin(child) for child in factors}
        return "slope" if len(origins) == 1 and None not in origins else "states"

    def _origin(self, edge: Edge) -> Edge | None:
        """Return the end of which each unit of an edge is a function; None if it follows from several units."""
        if self._is_end(edge):
            return edge
        if _brief(edge[0]) not in OF_ONE_UNIT:
            return None
        found = {self._origin(child) for child in _children(edge[0]) if self._is_stimulated(child)}
        return found.pop() if len(found) == 1 else None


def _children(node: Any) -> Iterator[Edge]:
    """Yield the edges that a node depends on."""
    return iter([child for child in node.next_functions if child[0] is not None])


def _brief(node: Any) -> str:
    """Return the name of an autograd function: "MaxPoolWithIndices" for MaxPool2DWithIndicesBackward0.

    Softmax and attention have a name for each of their kernels.
    """
    name = re.sub(r"Backward\d*$", "", str(node.name()).rpartition("::")[2])
    name = next((short for short in ("Attention", "Softmax") if short in name), name)
    return re.sub(r"\dD", "", name).removeprefix("Native")
