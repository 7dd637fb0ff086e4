"""Recording of a path: names of populations and projections, and the wires between them, from the first pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence

from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.edges import Place
from actrelax.models.network.captured.names import origin_of
from actrelax.models.network.captured.paths import Path, Wire, numbers_of
from actrelax.models.network.captured.pieces import Partition
from actrelax.models.network.captured.psi import parameter_of, whole_weight
from actrelax.models.network.captured.tape import Tape


def record(
    found: Partition,
    tape: Tape,
    parameters: Mapping[str, Tensor],
    name_of: Callable[[int], str],
    stimulus: Tensor,
    held: Mapping[int, str],
) -> Path:
    """Return the path of a pass that has just been partitioned.

    `name_of` names a weighted operation's module, `held` the module's parameters and buffers by identity.
    """
    if _size(found, tape, 0) == ():
        raise ActrelaxError("the module returns a scalar: take its loss out, and return an output per sample.")
    numbers = numbers_of(parameters, stimulus)
    own = tuple(tuple(numbers.get(id(p), p) for p in piece.parameters) for piece in found.pieces)
    unique = _Unique()
    projections = {index: unique(name_of(index)) for index in sorted(found.targets)}
    names = _population_names(found, projections, held, stimulus)
    sizes, batch = [_size(found, tape, number) for number in range(len(names))], tuple(stimulus.shape[:1])
    wires = _wires(found, tape, numbers, projections, names, _origins(tape, projections, held), unique)
    relays = tuple(piece.is_relay(stimulus) for piece in found.pieces)
    for piece in found.pieces:
        piece.drives.sort()
        piece.parameters = []  # a path holds no tensor of the module
    return Path(
        tuple(tape.calls),
        tuple(tape.modules),
        tuple(found.pieces),
        names,
        tuple(shape[1:] if shape[:1] == batch else shape for shape in sizes),
        tuple(math.prod(shape) // batch[0] for shape in sizes),
        tuple(stimulus.shape[1:]),
        relays,
        own,
        wires,
        _wanted(found, tape),
    )


def _origins(tape: Tape, projections: Mapping[int, str], held: Mapping[int, str]) -> Mapping[int, tuple[str, Hashable]]:
    """Return operation -> `Wire.shared` and `Wire.origin` of its weight; `projections` maps operations to names."""
    found, first = dict[int, tuple[str, Hashable]](), dict[Hashable, str]()
    for index, name in projections.items():
        origin = origin_of(whole_weight(tape.operations[index].weight), held)
        found[index] = first.setdefault(origin, name), origin
    return found


def _wires(
    found: Partition,
    tape: Tape,
    numbers: Mapping[int, int],
    projections: Mapping[int, str],
    names: Sequence[str],
    origins: Mapping[int, tuple[str, Hashable]],
    unique: _Unique,
) -> tuple[Wire, ...]:
    """Return the projections into each population: its drives, then its copies, which get `unique` names."""
    by_edge = {edge: number for number, edge in enumerate(found.edges)}
    wires = []
    for number, piece in enumerate(found.pieces):
        for index in sorted(piece.drives):
            operation, source = tape.operations[index], tape.sources[index]
            shared, origin = origins[index]
            wires.append(
                Wire(
                    projections[index],
                    source=None if source is None else by_edge[source],
                    target=number,
                    operation=index,
                    kind=operation.kind,
                    weight=numbers.get(id(operation.weight)),
                    bias=numbers.get(id(operation.bias)),
                    parameter=numbers.get(id(parameter_of(operation.weight))),
                    shared=shared,
                    origin=origin,
                )
            )
        kind = "conv" if len(_size(found, tape, number)) > 2 else "dense"
        for copied in piece.copies:
            wires.append(Wire(unique(f"{names[copied]}->{names[number]}"), copied, number, None, kind))
    return tuple(wires)


def _population_names(
    found: Partition, projections: Mapping[int, str], leaves: Mapping[int, str], stimulus: Tensor
) -> tuple[str, ...]:
    """Name populations after their first projection, relays after their source, others after their parameter."""
    unique, names = _Unique("input", "output"), dict[int, str]()
    for number in reversed(range(1, len(found.pieces))):
        piece = found.pieces[number]
        if piece.drives:
            names[number] = unique(projections[min(piece.drives)])
        elif piece.copies:
            names[number] = unique(f"{names[piece.copies[0]]}'")
        elif piece.is_relay(stimulus):
            names[number] = unique("input'")
        else:
            first = leaves.get(id(piece.parameters[0]), "parameter")
            module = first.rpartition(".")[0]
            names[number] = unique(module if module and len(piece.parameters) > 1 else first)
    return ("output", *(names[number] for number in range(1, len(found.pieces))))


def _size(found: Partition, tape: Tape, number: int) -> tuple[int, ...]:
    """Return the size of a population's tensor, the batch included."""
    node, slot = found.edges[number]
    if tape.seen is not None and (node, slot) in tape.seen:
        return tuple(tape.seen[node, slot].value.shape)
    if hasattr(node, "variable"):
        return tuple(node.variable.shape)
    return tuple(node._input_metadata[slot].shape)


def _wanted(found: Partition, tape: Tape) -> Mapping[int, Sequence[tuple[Place, int, bool]]]:
    """Return, per call, the places of the populations' values, and whether each value is overwritten later."""
    wanted: dict[int, list[tuple[Place, int, bool]]] = {}
    for number, edge in enumerate(found.edges):
        seen = None if tape.seen is None else tape.seen.get(edge)
        if seen is not None:
            wanted.setdefault(seen.place[0], []).append((seen.place, number, seen.has_changed))
    return wanted


class _Unique:
    """Makes names unique: the second of a name gets "#2"."""

    def __init__(self, *taken: str) -> None:
        self.count = dict.fromkeys(taken, 1)

    def __call__(self, name: str) -> str:
        self.count[name] = count = self.count.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"
