"""The partition of a forward pass into populations and their pieces, and the transpose of a piece.

Populations are the tensors that weighted operations read, that several populations need, or that are the output. All
other operations belong to the piece of exactly one population (docs/any-module.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node
from torch.autograd.variable import Variable

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.edges import Edge
from actrelax.models.network.captured.tape import Tape


@dataclass(eq=False)
class Piece:
    """The function by which one population follows from its drives, copies of others, and its own parameters.

    drives      numbers of the weighted operations whose drives enter
    copies      numbers of the populations that are copied into it
    parameters  its parameters: leaves of autograd's graph
    read        number of the first operation that reads the population, None if none does
    route       (population, positions): from that population's node to this one's, through `next_functions`
    kinds       names of autograd's functions in it
    keep        whether autograd passes by nodes that other pieces or weights need, so that they must not be freed
    gated       whether signals of other pieces have to be stopped here
    """

    drives: list[int] = field(default_factory=list)
    copies: list[int] = field(default_factory=list)
    parameters: list[Tensor] = field(default_factory=list)
    read: int | None = None
    route: tuple[int, tuple[int, ...]] | None = None
    kinds: list[str] = field(default_factory=list)
    keep: bool = False
    gated: bool = False

    def is_relay(self, stimulus: Tensor) -> bool:
        """Return whether no drive enters, so that the population equals its input at all times."""
        only_stimulus = bool(self.parameters) and all(p is stimulus for p in self.parameters)
        return not self.drives and (bool(self.copies) or only_stimulus)


@dataclass(eq=False)
class Partition:
    """Populations from the output down, and for each weighted operation the population that its drive enters.

    edges    per population, its tensor in autograd's graph
    targets  operation -> population, without operations on which the output does not depend
    """

    pieces: list[Piece]
    edges: list[Edge]
    targets: dict[int, int]


def partition(output: Edge, tape: Tape) -> Partition:
    """Split the graph of an output into pieces, consumers first."""
    order = _consumers_first(output, tape)
    reached = {tape.drives[node] for node in order if node in tape.drives}
    read: dict[Edge, int] = {}
    for index in sorted(reached):
        source = tape.sources[index]
        if source is not None:
            read.setdefault(source, index)
    found = Partition([], [], {})
    owners: dict[Edge, dict[int, None]] = {edge: {} for edge in (output, *read)}
    asked: dict[Node, set[int]] = {edge[0]: set() for edge in owners}
    for edge in owners:
        asked[edge[0]].add(edge[1])
    for node in order:
        mine: dict[int, None] = {}
        for number in sorted(asked.get(node, ())):
            edge = (node, number)
            several = len(owners[edge]) > 1 and not hasattr(node, "variable")
            if edge in read or edge == output or several:
                mine[_new_population(found, edge, read.get(edge), owners[edge], is_output=edge == output)] = None
            else:
                mine |= owners[edge]
        _assign(found, node, mine, tape, owners, asked)
    _stop_signals(found)
    return found


def _new_population(
    found: Partition, edge: Edge, read: int | None, owners: Mapping[int, None], *, is_output: bool
) -> int:
    number = len(found.pieces)
    piece = Piece(read=read)
    for owner in owners:
        found.pieces[owner].copies.append(number)
    if read is None and not is_output:
        owner = next(iter(owners))
        piece.route = owner, _route(found.edges[owner][0], edge)
    found.pieces.append(piece)
    found.edges.append(edge)
    return number


def _assign(
    found: Partition,
    node: Node,
    mine: Mapping[int, None],
    tape: Tape,
    owners: dict[Edge, dict[int, None]],
    asked: dict[Node, set[int]],
) -> None:
    """Give one node to the populations whose pieces need it."""
    if node in tape.drives:
        (target,) = mine
        found.targets[tape.drives[node]] = target
        found.pieces[target].drives.append(tape.drives[node])
        return
    if hasattr(node, "variable"):
        for population in mine:
            found.pieces[population].parameters.append(node.variable)
        return
    if node.name() == "CheckpointFunctionBackward":
        raise ActrelaxError(
            "activation checkpointing recomputes what was cut out of the graph: call the module without it."
        )
    for population in mine:
        found.pieces[population].kinds.append(node.name())
        found.pieces[population].keep |= len(mine) > 1 or node in tape.of_weights
    for child in node.next_functions:
        if child[0] is not None:
            owners.setdefault(child, {}).update(mine)  # type: ignore[arg-type]
            asked.setdefault(child[0], set()).add(child[1])


def _consumers_first(output: Edge, tape: Tape) -> list[Node]:
    """Return the nodes on which an output depends, each before those that it depends on."""
    order, visited, stack = list[Node](), {output[0]}, [(output[0], _children(output[0], tape))]
    while stack:
        node, children = stack[-1]
        child = next((c for c in children if c not in visited), None)
        if child is None:
            stack.pop()
            order.append(node)
        else:
            visited.add(child)
            stack.append((child, _children(child, tape)))
    return order[::-1]


def _children(node: Node, tape: Tape) -> Iterator[Node]:
    """Yield what a node depends on; a drive depends on what its operation reads."""
    if node in tape.drives:
        source = tape.sources[tape.drives[node]]
        return iter(() if source is None else (source[0],))
    return iter([child for child, _ in node.next_functions if child is not None])


def _route(start: Node, edge: Edge) -> tuple[int, ...]:
    """Return the positions in `next_functions` that lead from a node to an edge."""
    routes: dict[Node, tuple[int, ...]] = {start: ()}
    for node in (queue := [start]):
        for position, child in enumerate(node.next_functions):
            if child == edge:
                return (*routes[node], position)
            if child[0] is not None and child[0] not in routes:
                routes[child[0]] = (*routes[node], position)
                queue.append(child[0])
    raise AssertionError("a population has to be in the graph of its owner")


def follow(start: Node, positions: Sequence[int]) -> Edge | None:
    """Return the edge at the end of a route, None if the graph is another one."""
    edge: tuple[Node | None, int] = (start, 0)
    for position in positions:
        children = () if edge[0] is None else edge[0].next_functions
        if position >= len(children):
            return None
        edge = children[position]
    return None if edge[0] is None else (edge[0], edge[1])


def _stop_signals(found: Partition) -> None:
    """Mark the populations behind which other pieces have inputs, and the pieces whose transpose passes them by.

    Autograd does not stop at one input on its way to another: a population that is copied into v stops v's signals
    where v needs something behind it, and the nodes that they pass must not be freed.
    """
    behind: list[set[object]] = [set() for _ in found.pieces]
    for number in reversed(range(len(found.pieces))):
        piece = found.pieces[number]
        inputs: set[object] = {*piece.copies, *(id(p) for p in piece.parameters)}
        for copied in piece.copies:
            if inputs & behind[copied]:
                found.pieces[copied].gated = piece.keep = True
        behind[number] = inputs.union(*(behind[copied] for copied in piece.copies))


def is_inside(inside: Edge | Tensor, edge: Edge, populations: Collection[Edge]) -> bool:
    """Return whether the piece of the population at `edge` contains another edge, or a parameter."""
    visited, stack = {edge}, [edge]
    while stack:
        node, number = stack.pop()
        if (node, number) == inside or getattr(node, "variable", None) is inside:
            return True
        if (node, number) == edge or (node, number) not in populations:
            children = [(child, n) for child, n in node.next_functions if child is not None]
            stack += [child for child in children if child not in visited]
            visited.update(children)
    return False


def transpose(
    edge: Edge, inputs: Sequence[Edge | Tensor], signal: Tensor, keep: bool, is_hooked: bool = False
) -> list[Tensor | None]:
    """Return what a signal at a population becomes at the inputs of its piece: None where it does not get there."""
    only = inputs[0] if len(inputs) == 1 and not is_hooked else None
    if only is not None and (only == edge if isinstance(only, tuple) else hasattr(edge[0], "variable")):
        return [signal]  # the population is its only drive, or a parameter
    ends: Any = [GradientEdge(*each, None) if isinstance(each, tuple) else each for each in inputs]
    # autograd.grad calls the same engine, after checks that take ten times as long as a small piece
    engine = Variable._execution_engine
    start = (GradientEdge(*edge, None),)
    return list(engine.run_backward(start, (signal,), keep, False, tuple(ends), True, accumulate_grad=False))
