"""Any PyTorch module as a network: its forward pass, split into populations and projections (docs/any-module.md)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actrelax.models._names import look_up
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.edges import Edge, edge_of
from actrelax.models.network.captured.forward_pass import CapturedPass
from actrelax.models.network.captured.gains import Gains
from actrelax.models.network.captured.gates import Turn
from actrelax.models.network.captured.held import Held, fork_state
from actrelax.models.network.captured.names import operation_names, running_module
from actrelax.models.network.captured.overview import described
from actrelax.models.network.captured.paths import KnownPaths, Path
from actrelax.models.network.captured.pieces import partition
from actrelax.models.network.captured.psi import (
    FeedbackWeights,
    draw_feedback,
    like_feedback,
    load_feedback,
    own_feedback,
)
from actrelax.models.network.captured.record import record
from actrelax.models.network.captured.structure import structure_of
from actrelax.models.network.captured.tape import AnotherPath, Tape
from actrelax.models.network.captured.versions import Versions
from actrelax.models.network.network import Network
from actrelax.models.network.stimuli import check_batch, check_stimuli

Output = Callable[[Any], Tensor]


class CapturedNetwork(Network):
    """Populations and projections of any module; made by `Network.from_module`.

    The module's own code runs in each forward pass, with its hooks, buffers and random numbers. The module's
    parameters, buffers and state_dict are the network's.

    Attributes
    ----------
    module : torch.nn.Module
    path : Path
        What the module did at its last new path.
    relays : dict of str to tuple of int
        Populations without a time constant, which equal their input at all times, and their shapes.
    """

    module: nn.Module
    path: Path
    feedback: FeedbackWeights
    dtype: torch.dtype
    relays: dict[str, tuple[int, ...]]
    _wired: dict[str, Any]
    _of_stimulus: set[str]
    _psi_names: dict[Hashable, str]
    _output_of: Output | None

    def __init__(self, module: nn.Module, output: Output | None, paths: Literal["one", "many"]) -> None:
        nn.Module.__init__(self)
        own = {"module": module, "_output_of": output, "_modules": module._modules, "_parameters": module._parameters}
        self.__dict__.update(own, _buffers=module._buffers, training=module.training, paths=paths)
        self._known, self._held, self.said = KnownPaths(), Held(module), set[str]()
        self.__dict__.update(feedback=FeedbackWeights(), _psi_names={})

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output, (batch, *output shape)."""
        return self._selected(self.module(x))

    def feedforward(self, x: Tensor, *, keep_drives: bool = True) -> CapturedPass:
        """Run the module on a batch and return its pass; pieces take the place of drives, whatever `keep_drives`."""
        return self.run(x, values=True)

    def run(self, x: Tensor, *, values: bool, wants_input: bool = False) -> CapturedPass:
        """Run the module on a batch, and keep the populations' activities if `values` are wanted."""
        self.feedback.refuse_replaced(self.module)
        self.held()  # which follows a module that has changed
        self.check(x)
        stimulus = x.detach().requires_grad_() if wants_input else x.detach()
        key = self._key(wants_input, stimulus)
        path = self._known.get(key) if self.paths == "one" else None
        tape = self._tape(path, stimulus, values)
        output = self._taped(path, tape, stimulus)
        parameters = self.held().parameters()  # a first call may have changed them
        if path is None:
            found = partition(edge_of(output), tape)
            if not found.targets:
                raise ActrelaxError(
                    "no gradient reaches a linear layer, a convolution or an embedding from the output (weights of "
                    "norms and of nn.LSTM do not count): add a linear readout, or leave out detach."
                )
            edges, known = found.edges, dict(zip(found.edges, range(len(found.edges)), strict=True))
            kept = {known[edge]: seen.value for edge, seen in (tape.seen or {}).items() if edge in known}
            path = record(found, tape, parameters, operation_names(tape, parameters), stimulus, self.held().names())
            if self.paths == "one":
                self._known.add(key, path)
        else:
            kept = tape.values
            edges = self._located(path, tape, output)
            if self._known.is_checked(key):
                path.check(partition(edge_of(output), tape), parameters, stimulus)
        network, psi = self.along(path), self.feedback.named()
        activities = {path.names[number]: value for number, value in kept.items()}
        routes = {p.name: None if p.number is None else tape.operations[p.number] for p in network.projections.values()}
        return CapturedPass(
            {},
            activities | {network.input: x.detach(), network.output: output.detach()},
            routes,  # type: ignore[arg-type]
            network,
            path,
            tape.operations,
            edges,
            [(node, 0) for node in tape.drives],
            list(parameters.values()),
            stimulus,
            Turn([piece.gated for piece in path.pieces], edges, tape.hooks),
            Gains(tape.known, tape.norms, tape.shifted),
            psi=psi,
            versions=Versions([*parameters.values(), *psi.values()], activities),
        )

    def fork_state(self, x: Tensor) -> AbstractContextManager[None]:
        return fork_state(self.module, x)

    def watch(self, x: Tensor, path: Path) -> tuple[Tensor, dict[str, Edge]]:
        """Run the module in autograd's whole graph; return the output, and the populations' places in the graph."""
        tape = Tape(self.held().constants(), x, path.calls, path.wanted, cut=False)
        output = self._taped(path, tape, x)
        return output, {path.names[number]: edge for number, edge in tape.edges.items()} | {
            self.output: edge_of(output)
        }

    def check(self, x: Tensor) -> None:
        """Refuse an empty batch, and stimuli of another dtype or device than the weights, unless the example was."""
        check_batch(x)
        self.__dict__.setdefault("dtype", x.dtype)
        weight = next((p for p in self._held.parameters().values() if p.is_floating_point()), None)
        if weight is None or not x.is_floating_point():
            return
        fits = x.dtype == weight.dtype and x.device == weight.device
        if self.__dict__.setdefault("fits", fits) and not fits:
            check_stimuli(x, x.shape[1:], [weight])

    def along(self, path: Path) -> CapturedNetwork:
        """Return the network with the populations of a path: itself if it is its own."""
        if getattr(self, "path", None) is path:
            return self
        other = self if not hasattr(self, "path") else copy.copy(self)
        other.__dict__["path"] = path
        other.__dict__.update(structure_of(path, list(self._held.parameters()), self._psi_names))
        return other

    @property
    def projections(self) -> dict[str, Any]:
        return self._wired

    def kind(self, projection: Any) -> str:
        """Return the kind of a projection, "dense" or "conv"."""
        return str(projection.kind)

    def carries_feedback(self, projection: Any) -> bool:
        """Return whether the projection has weights, and a source that depends on weights, unlike the input."""
        return projection.number is not None and projection.source not in self._of_stimulus

    def lacks_feedback(self, assumptions: Assumptions) -> bool:
        """Return whether any projection needs feedback weights that do not exist yet."""
        assumptions.check_names(self.projections)
        return any(self.feedback.find(p.psi) is None for p, _ in own_feedback(self, assumptions))

    def feedback_weight(self, projection: Any, assumptions: Assumptions) -> Tensor | None:
        """Return the feedback weights of a projection's weight; of sign-concordant feedback the scale.

        None for a copy, and where the weight itself carries the feedback. Raises an ActrelaxError if they are missing.
        """
        if not self.uses_psi(projection, assumptions):
            return None
        kind = self.knobs(projection, assumptions).feedback
        return self.feedback.existing(projection.name, projection.psi, kind)

    def add_feedback(self, assumptions: str | Assumptions, generator: GeneratorLike) -> None:
        """Create the feedback weights that the assumptions need, one psi per weight (`Network.add_feedback`).

        In the state_dict they are ``NAME.feedback``, with the name of the first projection that uses the weight. Psi
        of weights that are views of a parameter, or of a computed weight, has the whole tensor's shape.
        """
        assumptions = look_up("assumptions", assumptions, PRESETS)
        assumptions.check_names(self.projections)
        draw_feedback(self, assumptions, as_generator(generator))

    def named_modules(self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True) -> Any:
        """Yield the module's parts and, under the names of projections, the modules that hold feedback weights."""
        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)
        for name, node in self.feedback.nodes().items():
            if node not in memo:
                memo.add(node)
                yield f"{prefix}.{name}" if prefix else name, node

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's state_dict, and the feedback weights."""
        found = self.module.state_dict(*args, **kwargs)
        prefix, keep_vars = ([*args[1:], "", False][n] for n in (0, 1)) if args else ("", False)
        self.feedback.save(found, kwargs.get("prefix", prefix), kwargs.get("keep_vars", keep_vars))
        return found

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load the module's state_dict, and feedback weights, which need not exist yet."""
        return load_feedback(self, state_dict, strict, assign)

    def train(self, mode: bool = True) -> CapturedNetwork:
        """Set the module's training mode."""
        self.module.train(mode)
        self.__dict__["training"] = mode
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> CapturedNetwork:
        self.module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.feedback.root._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, *rest):  # type: ignore[no-untyped-def]
        lacking, changes = self.feedback.load(state_dict, prefix, like_feedback(self), metadata)
        missing += lacking if strict else []
        self.module._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        for change in changes:
            change()

    def _refuse_changes(self) -> None:
        """Accept any change: the module's own code runs in each pass."""

    def __repr__(self) -> str:
        return described(self, self.held().parameters())

    def _selected(self, result: Any) -> Tensor:
        result = result if self._output_of is None else self._output_of(result)
        if not isinstance(result, Tensor):
            kind = type(result).__name__
            raise ActrelaxError(
                f"the module returns a {kind}: say which tensor is the output, such as output=lambda result: result[0]."
            )
        return result

    def _taped(self, path: Path | None, tape: Tape, stimulus: Tensor) -> Tensor:
        """Return the output of the module under a tape."""
        with torch.enable_grad():
            try:
                with tape:
                    result = self.module(stimulus)
            except AnotherPath as error:
                assert path is not None
                raise ActrelaxError(path.sentence(tape, error.args[0], tape.left_in)) from None
            output = self._selected(result)
        if not output.requires_grad:
            raise ActrelaxError(
                "the output requires no gradient: it must depend on weights, and be neither detached, nor computed "
                "under torch.no_grad(), nor discrete, such as an argmax."
            )
        return output

    def _located(self, path: Path, tape: Tape, output: Tensor) -> list[Any]:
        try:
            return path.edges(tape, edge_of(output))
        except AnotherPath as error:
            raise ActrelaxError(path.sentence(tape, error.args[0], "")) from None

    def _tape(self, path: Path | None, stimulus: Tensor, values: bool) -> Tape:
        constants = self._held.constants()
        where = partial(running_module, self.module, CapturedNetwork._taped.__code__)
        if path is not None:
            return Tape(constants, stimulus, path.calls, path.wanted if values else None, where=where)
        notes = "copied" if values else "seen" if self.paths == "one" else ""
        return Tape(constants, stimulus, notes=notes, where=where)

    def _key(self, wants_input: bool, x: Tensor) -> object:
        """Return what decides the path of a module whose own code decides nothing: training, and what learns."""
        learning = tuple([p.requires_grad for p in self._held.parameters().values()])
        modes = tuple([part.training for part in self._held.parts])
        return wants_input, torch.is_autocast_enabled(x.device.type), modes, learning

    def blank(self) -> CapturedPass:
        """Return a pass of one sample of zeros, without a graph, to check a problem's arguments with."""
        path, weights = self.path, [p for p in self.held().parameters().values() if p.is_floating_point()]
        like = weights[0] if weights else torch.empty(0)
        shapes = {name: population.shape for name, population in self.populations.items()}
        activities = {name: like.new_zeros(1, *shape) for name, shape in shapes.items()}
        routes = dict.fromkeys(self.projections)
        return CapturedPass({}, activities, routes, self, path, [], [], [], [], like, Turn())  # type: ignore[arg-type]

    def held(self) -> Held:
        """Return where the module holds its tensors; a module that has changed starts without known paths."""
        if not self._held.is_current:
            self._held = Held(self.module)
            self._known = KnownPaths()
        return self._held
