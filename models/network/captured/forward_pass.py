"""The forward pass of a captured network: one batch's operations, and what its pieces send back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn

from torch import Tensor

from actrelax.models.assumptions import PRESETS, Assumptions, Gain
from actrelax.models.network.captured.current import CurrentDrive
from actrelax.models.network.captured.edges import Edge
from actrelax.models.network.captured.gains import Gains, PieceGains
from actrelax.models.network.captured.gates import Turn
from actrelax.models.network.captured.operations import Operation, leaves_of
from actrelax.models.network.captured.paths import Path, other_tensors
from actrelax.models.network.captured.pieces import is_inside, transpose
from actrelax.models.network.captured.psi import own_feedback, view_of_feedback
from actrelax.models.network.captured.structure import CapturedProjection
from actrelax.models.network.captured.versions import Versions, changed_tensor
from actrelax.models.network.feedback import LEARNED, effective_feedback
from actrelax.models.network.feedforward_pass import FeedforwardPass


@dataclass(frozen=True, eq=False)
class Sent:
    """The signals of a population, one per incoming projection, and the activity from which they follow."""

    activity: Tensor
    version: int
    signals: Mapping[str, Tensor | None]


@dataclass(frozen=True)
class CapturedPass(FeedforwardPass):
    """The results of one forward pass of a captured network.

    network     the network with the populations of this pass
    path        the path that the module took
    operations  weighted operations, in order
    edges       per population of the path, its tensor in autograd's graph
    drives_of   per operation, the edge of its drive
    parameters  the module's parameters
    stimulus    the stimulus, as the module saw it
    turn        whose signals may pass the gates
    gains       which derivatives pieces have
    psi         name -> the feedback weights at the time of the pass
    versions    the versions of tensors that must not change in place
    assumptions  those under which signals are sent
    """

    network: Any
    path: Path
    operations: Sequence[Operation]
    edges: Sequence[Edge]
    drives_of: Sequence[Edge]
    parameters: Sequence[Tensor]
    stimulus: Tensor
    turn: Turn
    gains: Gains = field(default_factory=Gains)
    assumptions: Assumptions = PRESETS["ar"]
    psi: Mapping[str, Tensor] = field(default_factory=dict)
    versions: Versions = field(default_factory=Versions)
    _current: dict[int, CurrentDrive] = field(default_factory=dict)
    _sent: dict[str, Sent] = field(default_factory=dict)
    _relayed: dict[str, tuple[tuple[object, ...], int, Tensor]] = field(default_factory=dict)

    @property
    def output(self) -> Tensor:
        """The output, (batch, *output shape), without its history."""
        return self.activities["output"]

    def activity(self, population: str) -> Tensor:
        """Return the activity of a population; refuse one that has changed in place since the forward pass."""
        activity = self.activities[population]
        self.versions.refuse_changed_activity(population, activity)
        return activity

    def refuse_changed_feedback(self) -> None:
        """Refuse feedback weights that have changed in place since the forward pass."""
        for psi in self.psi.values():
            self.versions.refuse_changed_weight(psi, "a feedback weight")

    def leaves(self) -> list[Tensor]:
        """Return the parameters that learn, those that the module uses without holding them included."""
        held = [*self.parameters, *(p for own in self.path.parameters for p in own if isinstance(p, Tensor))]
        held += self.psi.values()
        held += leaves_of([w for op in self.operations for w in (op.weight, op.bias) if w is not None])
        return [p for p in {id(p): p for p in held}.values() if p.requires_grad]

    def inputs(self, number: int) -> list[Edge]:
        """Return the edges that enter a population's piece: drives, then copies."""
        piece = self.path.pieces[number]
        return [*(self.drives_of[index] for index in piece.drives), *(self.edges[copied] for copied in piece.copies)]

    def own_parameters(self, number: int) -> list[Tensor]:
        """Return the parameters of a population's piece that learn."""
        return [p for each in self.path.parameters[number] if (p := self._leaf(each)).requires_grad]

    def under(self, assumptions: Assumptions) -> CapturedPass:
        """Return the same pass under other assumptions."""
        if assumptions is self.assumptions or assumptions == self.assumptions:
            return self
        return replace(self, assumptions=assumptions, _sent={}, _relayed={})

    def gains_of(self, number: int) -> PieceGains:
        """Return the gains of a population's piece under the assumptions."""
        found = self._piece_gains.get(number)
        if found is None:
            found = self._piece_gains[number] = PieceGains.of(self.path.incoming[number], self.assumptions)
        return found

    @cached_property
    def _piece_gains(self) -> dict[int, PieceGains]:
        return self.path.gains.setdefault(self.assumptions, {})

    def current(self, number: int) -> CurrentDrive:
        """Return the present drive of a population's pointwise function; refuse a piece that has none."""
        if number not in self._current:
            self._current[number] = CurrentDrive(self, number)
        return self._current[number]

    def current_drive(self, number: int, activity: Callable[[str], Tensor]) -> Tensor | None:
        """Return the drive of a population's pointwise function at some activities, None if it has no such function."""
        return self.current(number).at(activity)

    def check_current(self) -> None:
        """Refuse current gains of pieces that have none; a pass without a graph is not checked."""
        for number in range(len(self.edges)):
            gains = self.gains_of(number)
            if "current" in (*gains.sending, *gains.learning):
                self.current(number)

    def adjoints(
        self, number: int, signal: Tensor, gains: Sequence[Gain], keep: bool, drive: Tensor | None = None
    ) -> dict[Gain, list[Tensor | None]]:
        """Return the results of `transposed`, with parameters, for each of some gains."""
        last = gains[-1]
        return {
            gain: self.transposed(number, signal, keep=keep or gain != last, gain=gain, drive=drive) for gain in gains
        }

    def transposed(
        self,
        number: int,
        signal: Tensor,
        keep: bool,
        learn: bool = True,
        gain: Gain = "feedforward",
        drive: Tensor | None = None,
    ) -> list[Tensor | None]:
        """Return the signals at the drives and copies of a population's piece and, to learn, at its parameters.

        `signal` is the population's activity, and `gain` that of the piece's pointwise functions, which the current
        gain evaluates at `drive`.
        """
        piece = self.path.pieces[number]
        ends: list[Edge | Tensor] = [*self.inputs(number), *(self.own_parameters(number) if learn else ())]
        if not ends:
            return []
        self.turn.population = number
        is_hooked, keep = number in self.turn.hooked, keep or piece.keep
        try:
            if gain == "feedforward" and self.assumptions.statistics == "exact":
                found = transpose(self.edges[number], ends, signal, keep, is_hooked)
            else:
                with self.gains.set(gain, self.assumptions.statistics, drive):
                    found = transpose(self.edges[number], ends, signal, keep, is_hooked)
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error):
                self._refuse_changes(number)
            raise
        for end, part in zip(ends, found, strict=True):
            if part is None:
                self._refuse_other_tensors(number, end)
        return found

    def sent(
        self, projection: CapturedProjection, x: Tensor, activity: Callable[[str], Tensor] | None = None
    ) -> Tensor:
        """Return what the target of a projection sends along it at activity x; a piece is transposed once for all.

        `activity`, population -> tensor, is needed where gains are current.
        """
        known = self._sent.get(projection.target)
        number = self.path.names.index(projection.target)
        gains = self.gains_of(number)
        is_current = "current" in gains.sending
        if known is None or known.activity is not x or known.version != x._version or is_current:
            drive = None
            if is_current:
                assert activity is not None
                drive = self.current_drive(number, activity)
            found = {
                gain: self.transposed(number, x, keep=True, learn=False, gain=gain, drive=drive)
                for gain in gains.sending
            }
            signals = {
                wire.name: found[gain][position]
                for position, (wire, gain) in enumerate(zip(self.path.incoming[number], gains.sent, strict=True))
            }
            known = Sent(x, x._version, signals)
            self._sent[projection.target] = known
        signal = known.signals[projection.name]
        return self._silent(projection) if signal is None else signal

    def forget(self, population: str) -> None:
        """Free the signals of a population that `sent` has kept."""
        self._sent.pop(population, None)

    def relayed(self, name: str, reads: Sequence[object], version: int, total: Callable[[], Tensor]) -> Tensor:
        """Return the activity of a relay, its feedback, which `total` computes if something that it reads is new.

        `version` is that of the feedback weights, which may change in place.
        """
        known = self._relayed.get(name)
        if known is None or known[1] != version or any(a is not b for a, b in zip(known[0], reads, strict=True)):
            known = self._relayed[name] = (tuple(reads), version, total())
        return known[2]

    def follow_weights(self) -> None:
        """Use the current weights for feedback, after parameters have changed in place."""
        for operation in self.operations:
            operation.follow()
        self.versions.follow()
        self._relayed.clear()

    @cached_property
    def learned_feedback(self) -> dict[str, tuple[Tensor, Any]]:
        """Name -> psi that learns under the assumptions, and the first projection whose feedback it carries."""
        found: dict[str, tuple[Tensor, Any]] = {}
        for p, kind in own_feedback(self.network, self.assumptions):
            psi = self._psi_of(p)
            if kind in LEARNED and psi is not None and psi.requires_grad:
                found.setdefault(p.psi, (psi, p))
        return found

    def learns_feedback(self, name: str) -> bool:
        """Return whether a projection's weight has feedback weights that learn."""
        return bool(self.learned_feedback) and self.network.projections[name].psi in self.learned_feedback

    def _psi_of(self, projection: CapturedProjection) -> Tensor | None:
        """Return the feedback weights of a projection's weight: those of the pass, if it had any."""
        psi: Tensor | None = self.network.feedback_weight(projection, self.assumptions)
        return None if psi is None else self.psi.get(projection.psi, psi)

    def feedback_of(
        self, projection: CapturedProjection, *, explicit: bool = False
    ) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
        """Return psi, the weights of a projection's feedback, and the tensors on which they depend.

        None for a copy and, unless `explicit`, where the projection's own weight carries its feedback. Raises an
        ActrelaxError if psi is missing; `Network.add_feedback` creates it.
        """
        psi = self._psi_of(projection)
        if projection.number is None or not self.operations:
            return None, ()
        operation = self.operations[projection.number]
        reads = operation.weight, psi
        if psi is None:
            return operation.used if explicit else None, reads
        if psi.dim() == 0:
            return effective_feedback(operation.used, psi.to(operation.used.dtype)), reads
        return view_of_feedback(psi.detach(), operation.weight), reads

    def _refuse_changes(self, number: int) -> NoReturn:
        """Say what has changed in place in a piece that autograd does not transpose any more."""
        for parameter in self.own_parameters(number):
            self.versions.refuse_changed_weight(parameter, "a parameter")
        raise changed_tensor(f"a tensor of population {self.path.names[number]!r}")

    def _refuse_other_tensors(self, number: int, end: Edge | Tensor) -> None:
        """Refuse a piece without something that it contained on the recorded path, unless each pass makes it anew."""
        if isinstance(end, Tensor) and any(end is own for own in self.path.parameters[number]):
            return
        if not is_inside(end, self.edges[number], self.edges):
            raise other_tensors(self.path.names[number])

    def _silent(self, projection: CapturedProjection) -> Tensor:
        """Return the zeros that go along a projection where no signal arrives."""
        if projection.number is None:
            source = self.path.names.index(projection.source)
            node, slot = self.edges[source]
        else:
            node, slot = self.drives_of[projection.number]
        shape = node._input_metadata[slot].shape
        return self.activities["output"].new_zeros(tuple(shape))

    def _leaf(self, given: int | Tensor) -> Tensor:
        if isinstance(given, Tensor):
            return given
        return self.stimulus if given < 0 else self.parameters[given]
