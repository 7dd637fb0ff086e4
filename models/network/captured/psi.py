"""Feedback weights of a captured network: one psi per weight, named after the first projection that uses the weight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.held import Holder
from actrelax.models.network.feedback import LEARNED, checked_feedback, drawn_feedback

SLOT = "feedback"
Change = Callable[[], object]


class Feedback(nn.Module):
    """The feedback weights of one name, if any, and of the names below it."""

    def extra_repr(self) -> str:
        """Return the shape of the weights, and whether they learn."""
        psi = self._parameters.get(SLOT, self._buffers.get(SLOT))
        if psi is None:
            return ""
        return f"{tuple(psi.shape)}, {'learned' if SLOT in self._parameters else 'fixed'}" if psi.dim() else "signs"


class FeedbackWeights:
    """The feedback weights of a captured network, NAME.feedback in its state_dict.

    Learned weights are Parameters, random ones buffers; of sign-concordant feedback a buffer holds the scale.

    Attributes
    ----------
    root : torch.nn.Module
        A tree of modules that mirrors the names: the weights of "layer1.0" are ``root.layer1.0.feedback``.
    """

    def __init__(self) -> None:
        self.root = Feedback()

    def find(self, name: str) -> Tensor | None:
        """Return the feedback weights of a name, None if there are none."""
        node = _part(self.root, name)
        return None if node is None else node._parameters.get(SLOT, node._buffers.get(SLOT))

    def named(self) -> dict[str, Tensor]:
        """Return name -> feedback weights: first those that learn."""
        both = (*self.root.named_parameters(remove_duplicate=False), *self.root.named_buffers(remove_duplicate=False))
        return {key.removesuffix(f".{SLOT}"): psi for key, psi in both}

    def nodes(self) -> dict[str, Any]:
        """Return name -> the module that holds its feedback weights."""
        return {name: node for name, node in self.root.named_modules() if node._parameters or node._buffers}

    def places(self) -> list[tuple[Holder, str]]:
        """Return the dictionary and key under which each psi that learns is stored."""
        return [(node._parameters, SLOT) for node in self.nodes().values() if SLOT in node._parameters]

    def add(self, name: str, psi: Tensor, learned: bool) -> None:
        """Register feedback weights: as a Parameter if learned, else as a buffer."""
        node = self.root
        for part in name.split("."):
            node = node._modules.setdefault(part, Feedback())  # type: ignore[assignment]
        if learned:
            node._parameters[SLOT] = nn.Parameter(psi)
        else:
            node._buffers[SLOT] = psi

    def existing(self, projection: str, name: str, kind: str) -> Tensor:
        """Return the feedback weights of a projection; refuse missing weights and weights of another kind."""
        return checked_feedback(projection, self.find(name), kind, is_learned=self._is_learned(name))

    @contextmanager
    def unchanged_by_errors(self) -> Iterator[None]:
        """Take back the weights that are added in a `with` block that raises an error."""
        before = self.nodes().keys()
        try:
            yield
        except BaseException:
            for name, node in self.nodes().items():
                if name not in before:
                    delattr(node, SLOT)
            raise

    @property
    def is_empty(self) -> bool:
        """Return whether there are no feedback weights."""
        return not self.nodes()

    def draw(self, name: str, kind: str, weight: Tensor, generator: torch.Generator | None) -> None:
        """Draw the feedback weights of one weight."""
        psi = drawn_feedback(weight.detach(), kind, generator)
        if psi.dim():  # with the weight's strides, so that views of both are the same
            psi = torch.empty_like(weight, requires_grad=False).copy_(psi)
        self.add(name, psi, learned=kind in LEARNED)

    def save(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add the weights to a state_dict; its metadata say which of them are learned."""
        for name, psi in self.named().items():
            destination[f"{prefix}{name}.{SLOT}"] = psi if keep_vars else psi.detach()
        if not self.is_empty:
            metadata = getattr(destination, "_metadata", {}).setdefault(prefix[:-1], {})
            metadata["learned feedback"] = [key for key, _ in self.root.named_parameters()]

    def load(
        self,
        state: dict[str, Any],
        prefix: str,
        like: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        assign: bool = False,
    ) -> tuple[list[str], list[Change]]:
        """Take weights out of a state_dict; return the names of missing ones, and calls that load the others.

        The calls register weights that are new. `like` is the result of `like_feedback`; `metadata` are the module's.
        """
        missing, changes = list[str](), list[Change]()
        for name, weight in like.items():
            key, own = f"{name}.{SLOT}", self.find(name)
            saved = state.pop(prefix + key, None)
            expected = own if own is not None else weight if weight.dim() else saved
            if saved is None:
                missing += [prefix + key] if own is not None else []
            elif saved.shape != expected.shape and not (own is None and saved.dim() == 0):
                raise RuntimeError(f"size mismatch for {prefix + key}: {tuple(saved.shape)}, {tuple(expected.shape)}.")
            elif own is None:
                is_learned = bool(saved.dim()) and key in metadata.get("learned feedback", [key])
                changes.append(partial(self.add, name, saved.detach().to(weight, copy=True), is_learned))
            elif assign:
                changes.append(partial(self.add, name, saved.detach(), self._is_learned(name)))
            else:
                changes.append(partial(own.detach().copy_, saved))
        return missing, changes

    def refuse_replaced(self, module: nn.Module) -> None:
        """Refuse feedback weights that functional_call has put into the module itself, where nothing reads them."""
        for name in self.nodes():
            part = _part(module, name)
            given = None if part is None else part.__dict__.get(SLOT, part._parameters.get(SLOT))
            if isinstance(given, Tensor) and given is not self.find(name):
                raise ActrelaxError(
                    f"functional_call can't replace {name}.{SLOT} of a captured network: pass its module, as in "
                    "ActivationRelaxation(module, example=...)."
                )

    def _is_learned(self, name: str) -> bool:
        node = _part(self.root, name)
        return node is not None and SLOT in node._parameters


def _part(module: nn.Module, name: str) -> nn.Module | None:
    """Return a module's part by name, or None."""
    found: nn.Module | None = module
    for part in name.split("."):
        found = None if found is None else found._modules.get(part)
    return found


def view_of_feedback(psi: Tensor, weight: Tensor) -> Tensor:
    """Return the feedback weights of a weight: of a view the same view of psi, which belongs to the whole weight."""
    base = whole_weight(weight)
    if base is weight or psi.shape != base.shape or psi.dim() == 0:
        return psi
    if psi.stride() != base.stride():
        psi = torch.empty_like(base, requires_grad=False).copy_(psi)
    return psi.as_strided(weight.shape, weight.stride(), weight.storage_offset() - base.storage_offset())


def whole_weight(weight: Tensor) -> Tensor:
    """Return the tensor of which a weight is a view, a parameter or computed from parameters, or the weight itself."""
    base = weight._base
    return base if base is not None and weight.dtype == base.dtype else weight


def parameter_of(weight: Tensor) -> Tensor:
    """Return the parameter of which a weight is a view, or the weight itself."""
    base = whole_weight(weight)
    return base if base.grad_fn is None else weight


def own_feedback(network: Any, assumptions: Assumptions) -> list[tuple[Any, str]]:
    """Return the projections with feedback weights, and their kinds, in the order of the module's calls."""
    if all(knobs.feedback == "transpose" for knobs in assumptions.all_knobs):
        return []
    using = [p for p in network.projections.values() if network.uses_psi(p, assumptions)]
    return [(p, network.knobs(p, assumptions).feedback) for p in sorted(using, key=lambda p: p.number)]


def draw_feedback(network: Any, assumptions: Assumptions, generator: torch.Generator | None) -> None:
    """Draw the feedback weights that a captured network needs; see `Network.add_feedback`."""
    asked: dict[str, tuple[Any, str]] = {}
    for p, kind in own_feedback(network, assumptions):
        other, other_kind = asked.setdefault(p.psi, (p, kind))
        if kind != other_kind:
            raise ActrelaxError(
                f"projections {other.name!r} and {p.name!r} share a weight, so they need the same feedback, got "
                f"{other_kind!r} and {kind!r}: name both in projections=."
            )
        if _is_taken(network, p.psi):
            raise ActrelaxError(
                f"the module has a tensor {f'{p.psi}.{SLOT}'!r}, which is the name of the feedback weights of "
                f"{p.name!r}: rename it."
            )
        if network.feedback.find(p.psi) is not None:
            raise ActrelaxError(f"projection {p.name!r} already has feedback weights: build a new network.")
    weights = _weights(network, [p for p, _ in asked.values()])
    for (p, kind), weight in zip(asked.values(), weights, strict=True):
        network.feedback.draw(p.psi, kind, weight, generator)


def _weights(network: Any, projections: list[Any]) -> list[Tensor]:
    """Return the whole weights to which psi of some projections belongs; computed ones as of a pass of zeros."""
    parameters = network.held().parameters()
    found = {p.psi: parameters[p.parameter] for p in projections if p.parameter}
    if len(found) < len(projections):
        operations = trial_pass(network).operations
        found = {p.psi: whole_weight(operations[p.number].weight) for p in projections} | found
    return [found[p.psi] for p in projections]


def like_feedback(network: Any) -> dict[str, Tensor]:
    """Return the name of each psi that the network may have -> a tensor of its dtype, device and shape.

    The shape is () for weights that are computed. The order is that in which `draw_feedback` makes psi.
    """
    parameters = network.held().parameters()
    of_any_shape = next(iter(parameters.values())).new_empty(())
    weighted = sorted((p for p in network.projections.values() if p.number is not None), key=lambda p: p.number)
    found = {p.psi: parameters.get(p.parameter, of_any_shape) for p in weighted}
    return {name: like for name, like in found.items() if not _is_taken(network, name)}


def _is_taken(network: Any, name: str) -> bool:
    """Return whether the module itself has a parameter or buffer under the name of feedback weights."""
    return f"{name}.{SLOT}" in network.held().names().values()


def load_feedback(network: Any, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> Any:
    """Load a captured network's state_dict; what its feedback weights or its module refuse changes no feedback."""
    rest, metadata = OrderedDict(state_dict), getattr(state_dict, "_metadata", {})
    rest._metadata = metadata  # type: ignore[attr-defined]
    missing, changes = network.feedback.load(rest, "", like_feedback(network), metadata.get("", {}), assign)
    if missing and strict:
        raise RuntimeError(f"Missing key(s) in state_dict: {', '.join(map(repr, missing))}.")
    result = network.module.load_state_dict(rest, strict, assign)
    for change in changes:
        change()
    return result


def trial_pass(network: Any) -> Any:
    """Return a pass of two samples of zeros, which leaves the module as it was."""
    like = next(iter(network.held().parameters().values()))
    zeros = torch.zeros(2, *network.path.stimulus, dtype=network.dtype, device=like.device)
    with network.fork_state(zeros):
        return network.run(zeros, values=True)
