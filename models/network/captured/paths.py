"""Recorded paths: which functions a module calls, and the populations, pieces and projections that follow from them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.edges import Edge, Place
from actrelax.models.network.captured.gains import PieceGains
from actrelax.models.network.captured.pieces import Partition, Piece, follow
from actrelax.models.network.captured.tape import AnotherPath, Tape


def other_tensors(population: str) -> ActrelaxError:
    """Return the error for a piece that contains other tensors than on the recorded path."""
    return ActrelaxError(
        f"population {population!r} depends on other tensors than for the example: capture the module with "
        'paths="many".'
    )


class KnownPaths:
    """Recorded paths by what decides them, and the number of passes along each."""

    def __init__(self) -> None:
        self._paths: dict[object, Path] = {}
        self._passes: dict[object, int] = {}

    def get(self, key: object) -> Path | None:
        """Return the path of a key, None for a new one."""
        return self._paths.get(key)

    def add(self, key: object, path: Path) -> None:
        """Keep a path."""
        self._paths[key], self._passes[key] = path, 0

    def is_checked(self, key: object) -> bool:
        """Count one more pass; return whether to check it as a whole: passes 1, 2, 4, 8 and so on."""
        self._passes[key] = passes = self._passes[key] + 1
        return passes & (passes - 1) == 0


@dataclass(frozen=True)
class Wire:
    """A projection of a path: a weighted operation, or a copy.

    name       name of the projection
    source     number of the population, None for the stimulus
    target     number of the population
    operation  number of the weighted operation, None for a copy
    kind       "dense" or "conv"
    weight     number of its weight among the module's parameters, None for one that is computed; the bias likewise
    parameter  number of the parameter that the weight is, or of which it is a view
    shared     name of the first projection that uses the same weight, or views of the same one
    origin     key of the whole weight, as `origin_of` returns it
    """

    name: str
    source: int | None
    target: int
    operation: int | None
    kind: str
    weight: int | None = None
    bias: int | None = None
    parameter: int | None = None
    shared: str = ""
    origin: Hashable = None


@dataclass(frozen=True, eq=False)
class Path:
    """The recorded path of a module: valid as long as its forward pass calls the same functions.

    calls       names of the functions whose results need gradients, in order
    modules     per call, the module that makes it
    pieces      populations from the output down
    names       their names
    shapes      their shapes, without the batch; with it where the first dimension is another one
    units       units per sample
    stimulus    shape of the stimulus, without the batch
    relays      numbers of the populations that are relays, without a time constant
    parameters  per population, its own: numbers among the module's, -1 for the stimulus, or a tensor held elsewhere
    wires       projections, from the output down
    wanted      call -> the values to keep, for the initial activities
    """

    calls: tuple[str, ...]
    modules: tuple[str, ...]
    pieces: tuple[Piece, ...]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    units: tuple[int, ...]
    stimulus: tuple[int, ...]
    relays: tuple[bool, ...]
    parameters: tuple[tuple[int | Tensor, ...], ...]
    wires: tuple[Wire, ...]
    wanted: Mapping[int, Sequence[tuple[Place, int, bool]]]

    @cached_property
    def incoming(self) -> tuple[tuple[Wire, ...], ...]:
        """Per population, its projections: drives first, then copies."""
        return tuple(tuple(w for w in self.wires if w.target == number) for number in range(len(self.pieces)))

    @cached_property
    def of_stimulus(self) -> set[int]:
        """The populations that are made of the stimulus alone, without weights."""
        found: set[int] = set()
        for number in reversed(range(len(self.pieces))):
            piece, own = self.pieces[number], self.parameters[number]
            inputs = piece.copies or own
            if (
                inputs
                and not piece.drives
                and found.issuperset(piece.copies)
                and all(isinstance(p, int) and p == -1 for p in own)
            ):
                found.add(number)
        return found

    @cached_property
    def gains(self) -> dict[Assumptions, dict[int, PieceGains]]:
        """The gains of pieces found so far, by assumptions and population."""
        return {}

    def edges(self, tape: Tape, output: Edge) -> list[Edge]:
        """Return the edge of each population in the graph of another pass along this path."""
        if len(tape.calls) != len(self.calls):
            raise AnotherPath(len(tape.calls))
        found: list[Edge] = []
        for piece in self.pieces:
            if not found:
                edge: Edge | None = output
            elif piece.read is not None:
                edge = tape.sources[piece.read]
            else:
                assert piece.route is not None
                edge = follow(found[piece.route[0]][0], piece.route[1])
            if edge is None:
                raise AnotherPath(len(tape.calls) - 1)
            found.append(edge)
        for wire in self.wires:
            if wire.operation is not None:
                read = None if wire.source is None else found[wire.source]
                if tape.sources[wire.operation] != read:
                    raise AnotherPath(tape.operations[wire.operation].call_number)
        return found

    def check(self, found: Partition, parameters: Mapping[str, Tensor], stimulus: Tensor) -> None:
        """Refuse another pass whose pieces contain other drives, populations or parameters than the recorded ones."""
        numbers = numbers_of(parameters, stimulus)
        for number, (piece, recorded) in enumerate(zip(found.pieces, self.pieces, strict=False)):
            own = [numbers.get(id(p)) for p in piece.parameters]
            was = [n if isinstance(n, int) else None for n in self.parameters[number]]
            if (sorted(piece.drives), piece.copies, own) != (recorded.drives, recorded.copies, was):
                raise other_tensors(self.names[number])

    def sentence(self, tape: Tape, call: int, where: str) -> str:
        """Say which call differs from the recorded ones."""
        was = f"was {self.calls[call]}{_inside(self.modules[call])}" if call < len(self.calls) else "was the end"
        now = f"{tape.calls[call]}{_inside(where)}" if call < len(tape.calls) else "the end"
        if call < min(len(self.calls), len(tape.calls)) and tape.calls[call] == self.calls[call]:
            now, was = f"{tape.calls[call]}{_inside(self.modules[call])}", "read another tensor"
        return (
            f"the module took another path than for its example (call {call + 1}, {now}, {was}): capture it with "
            'paths="many".'
        )


def numbers_of(parameters: Mapping[str, Tensor], stimulus: Tensor) -> dict[int, int]:
    """Return identity -> number of the module's parameters in their order, -1 for the stimulus."""
    return {id(p): n for n, p in enumerate(parameters.values())} | {id(stimulus): -1}


def _inside(module: str) -> str:
    return f" in {module}" if module else ""
