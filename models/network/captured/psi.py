"""Feedback weights of a captured network: one psi per weight, named after the first projection that uses the weight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.held import left_alone
from actrelax.models.network.feedback import LEARNED, checked_feedback, drawn_feedback

ENDING = ".feedback"


class FeedbackWeights(nn.Module):
    """The feedback weights of a captured network, NAME.feedback in its state_dict.

    Learned weights are Parameters, random ones buffers; of sign-concordant feedback a buffer holds the scale.
    """

    def find(self, name: str) -> Tensor | None:
        """Return the feedback weights of a name, None if there are none."""
        key = name + ENDING
        found = self._parameters.get(key)
        return self._buffers.get(key) if found is None else found

    def tensors(self) -> list[Tensor]:
        """Return all feedback weights."""
        return [psi for psi in (*self._parameters.values(), *self._buffers.values()) if psi is not None]

    def add(self, name: str, psi: Tensor, learned: bool) -> None:
        """Register feedback weights: as a Parameter if learned, else as a buffer."""
        if learned:
            self._parameters[name + ENDING] = nn.Parameter(psi)
        else:
            self._buffers[name + ENDING] = psi

    def existing(self, projection: str, name: str, kind: str) -> Tensor:
        """Return the feedback weights of a projection; refuse missing weights and weights of another kind."""
        psi = self.find(name)
        return checked_feedback(projection, psi, kind, is_learned=isinstance(psi, nn.Parameter))

    @contextmanager
    def unchanged_by_errors(self) -> Iterator[None]:
        """Take back the weights that are added in a `with` block that raises an error."""
        parameters, buffers = dict(self._parameters), dict(self._buffers)
        try:
            yield
        except BaseException:
            self.__dict__.update(_parameters=parameters, _buffers=buffers)
            raise

    @property
    def is_empty(self) -> bool:
        """Return whether there are no feedback weights."""
        return not (self._parameters or self._buffers)

    def draw(self, name: str, kind: str, weight: Tensor, generator: torch.Generator | None) -> None:
        """Draw the feedback weights of one weight."""
        psi = drawn_feedback(weight.detach(), kind, generator)
        if psi.dim():  # with the weight's strides, so that views of both are the same
            psi = torch.empty_like(weight, requires_grad=False).copy_(psi)
        self.add(name, psi, learned=kind in LEARNED)

    def save(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add the weights to a state_dict; its metadata say which of them are learned."""
        for key, psi in (*self._parameters.items(), *self._buffers.items()):
            assert psi is not None
            destination[prefix + key] = psi if keep_vars else psi.detach()
        if not self.is_empty:
            metadata = getattr(destination, "_metadata", {}).setdefault(prefix[:-1], {})
            metadata["learned feedback"] = list(self._parameters)

    def load(
        self,
        state: dict[str, Any],
        prefix: str,
        like: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        assign: bool = False,
    ) -> list[str]:
        """Take weights out of a state_dict, registering those that are new; return the names of missing ones.

        `like` maps names of projections to tensors of their weights' dtype and device; `metadata` are the module's.
        """
        for name, weight in like.items():
            key = name + ENDING
            saved = state.pop(prefix + key, None)
            if saved is None:
                continue
            if self.find(name) is None:
                is_learned = bool(saved.dim()) and key in metadata.get("learned feedback", [key])
                self.add(name, saved.detach().to(weight, copy=True), is_learned)
            elif assign:
                self.add(name, saved.detach(), key in self._parameters)
            else:
                own = self.find(name)
                assert own is not None
                if own.shape != saved.shape:
                    raise RuntimeError(f"size mismatch for {prefix + key}: {tuple(saved.shape)}, {tuple(own.shape)}.")
                with torch.no_grad():
                    own.copy_(saved)
            like = {other: w for other, w in like.items() if other != name}
        return [prefix + name + ENDING for name in like if self.find(name) is not None]

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):  # type: ignore[no-untyped-def]
        # names have dots, which torch takes for names of submodules
        super()._load_from_state_dict(state_dict, prefix, metadata, False, missing, unexpected, errors)
        own = {prefix + key for key in (*self._parameters, *self._buffers)}
        if strict:
            missing += [key for key in own if key not in state_dict]
            unexpected += [key for key in state_dict if key.startswith(prefix) and key not in own]


def view_of_feedback(psi: Tensor, weight: Tensor) -> Tensor:
    """Return the feedback weights of a weight that is a view of a parameter: the same view of the parameter's psi."""
    base = parameter_of(weight)
    if base is weight or psi.shape != base.shape or psi.dim() == 0:
        return psi
    if psi.stride() != base.stride():
        psi = torch.empty_like(base, requires_grad=False).copy_(psi)
    return psi.as_strided(weight.shape, weight.stride(), weight.storage_offset() - base.storage_offset())


def parameter_of(weight: Tensor) -> Tensor:
    """Return the parameter of which a weight is a view, or the weight itself."""
    base = weight._base
    return base if base is not None and base.grad_fn is None and weight.dtype == base.dtype else weight


def own_feedback(network: Any, assumptions: Assumptions) -> list[tuple[Any, str]]:
    """Return the projections with feedback weights, and their kinds, in the order of the module's calls."""
    if all(knobs.feedback == "transpose" for knobs in assumptions.all_knobs):
        return []
    carrying = sorted(filter(network.carries_feedback, network.projections.values()), key=lambda p: p.number)
    kinds = [(p, network.knobs(p, assumptions).feedback) for p in carrying]
    return [(p, kind) for p, kind in kinds if kind != "transpose"]


def learned_feedback(network: Any, assumptions: Assumptions) -> dict[str, Any]:
    """Return the name of each psi that learns -> the first projection whose feedback it carries."""
    found: dict[str, Any] = {}
    for p, kind in own_feedback(network, assumptions):
        if kind in LEARNED and network.feedback.existing(p.name, p.psi, kind).requires_grad:
            found.setdefault(p.psi, p)
    return found


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
        if network.feedback.find(p.psi) is not None:
            raise ActrelaxError(f"projection {p.name!r} already has feedback weights: build a new network.")
    weights = _weights(network, [p for p, _ in asked.values()])
    for (p, kind), weight in zip(asked.values(), weights, strict=True):
        network.feedback.draw(p.psi, kind, weight, generator)


def _weights(network: Any, projections: list[Any]) -> list[Tensor]:
    """Return the parameters to which psi of some projections belongs; computed weights as of a pass of zeros."""
    parameters = network.held().parameters()
    found = {p.psi: parameters[p.parameter] for p in projections if p.parameter}
    if len(found) < len(projections):
        operations = trial_pass(network).operations
        found = {p.psi: operations[p.number].weight for p in projections} | found
    return [found[p.psi] for p in projections]


def like_feedback(network: Any) -> dict[str, Tensor]:
    """Return the name of each psi that the network may have -> a tensor of its dtype and device."""
    parameters = network.held().parameters()
    like = next(iter(parameters.values()))
    return {p.psi: parameters.get(p.parameter, like) for p in network.projections.values() if p.number is not None}


def load_feedback(network: Any, state_dict: Mapping[str, Any], assign: bool) -> tuple[list[str], Any]:
    """Load the feedback weights in a state_dict; return the names of missing ones, and the rest of the state_dict."""
    rest, metadata = OrderedDict(state_dict), getattr(state_dict, "_metadata", {})
    rest._metadata = metadata  # type: ignore[attr-defined]
    return network.feedback.load(rest, "", like_feedback(network), metadata.get("", {}), assign), rest


def trial_pass(network: Any) -> Any:
    """Return a pass of two samples of zeros, which leaves the module as it was."""
    like = next(iter(network.held().parameters().values()))
    zeros = torch.zeros(2, *network.path.stimulus, dtype=network.dtype, device=like.device)
    with left_alone(network.module, zeros):
        return network.run(zeros, values=True)


def refuse_continuous(assumptions: Assumptions) -> None:
    """Refuse plasticity during the relaxation."""
    if assumptions.is_continuous:
        raise ActrelaxError(
            "a captured network learns after its relaxations, not during them: choose plasticity at equilibrium, or "
            "use Network.from_sequential."
        )
