"""A PyTorch module and the equivalent network, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import CapturedNetwork, Network, capture, changed_layer, structure, weighted_layers


class Wrapped:
    """A module and the equivalent network; a `Network` is its own equivalent.

    The weights belong to the module. They are looked up for each pass, since `torch.func.functional_call`,
    ``load_state_dict(assign=True)`` and similar calls replace them. `feedback` is a separate module that owns the
    feedback weights: None if there are none, or if `module` is a `Network`, which owns them itself.
    """

    def __init__(self, module: nn.Module, input_shape: Sequence[int] | None) -> None:
        self.module = module
        self.feedback: nn.Module | None = None
        self.network = _network_of(module, input_shape)
        self._structure = structure(module)
        self._owners = self._find_owners()

    def weights(self) -> list[Tensor]:
        """Return the current weights, in the order of the network's slots; refuse a changed module."""
        found = structure(self.module)
        if found != self._structure:
            name = changed_layer(found, self._structure)
            raise ActrelaxError(
                f"the module has changed at layer {name!r} since it was wrapped: make a new ActivationRelaxation."
            )
        return [getattr(owner, name) for owner, name in self._owners]

    def add_feedback(self, assumptions: Assumptions, generator: torch.Generator | None) -> None:
        """Create the feedback weights that the assumptions need, if they are missing."""
        if not self.network.lacks_feedback(assumptions):
            return
        self.network.add_feedback(assumptions, _given(generator))
        if self.module is not self.network:
            self.feedback = _feedback_of(self.network)
        self._structure = structure(self.module)
        self._owners = self._find_owners()

    def _find_owners(self) -> list[tuple[nn.Module, str]]:
        """Return (module, attribute name) of the weight in each slot."""
        projections = self.network.projections
        if self.module is self.network:
            return [(projections[name], slot) for name, slot in self.network.slots]
        weighted = [name for name, p in projections.items() if p.map is not None]
        layers = dict(zip(weighted, weighted_layers(self.module), strict=True))
        owners: list[tuple[nn.Module, str]] = []
        for name, slot in self.network.slots:
            if slot == "feedback":
                assert self.feedback is not None
                owners.append((self.feedback, name))
            else:
                owners.append((layers[name], slot))
        return owners


class WrappedCapture:
    """A module and its captured network, which is the module itself in another form.

    `feedback` is a module with the feedback weights: None if there are none, or if `module` is a `CapturedNetwork`.
    """

    feedback: nn.Module | None = None

    def __init__(self, module: nn.Module, example: Tensor | None, output: Callable[[Any], Tensor] | None) -> None:
        if isinstance(module, CapturedNetwork):
            if example is not None or output is not None:
                raise ActrelaxError("the network is captured already: leave example and output out.")
            self.network, self.is_network = module, True
        else:
            self.is_network = False
            assert example is not None
            self.network = capture(module, example, output)

    def add_feedback(self, assumptions: Assumptions, generator: torch.Generator | None) -> None:
        """Create the feedback weights that the assumptions need, if they are missing."""
        if self.network.lacks_feedback(assumptions):
            self.network.add_feedback(assumptions, _given(generator))
        if not (self.is_network or self.network.feedback.is_empty):
            self.feedback = self.network.feedback.root

    @contextmanager
    def leaves(self) -> Iterator[dict[Tensor, Tensor]]:
        """Put leaves of autograd's graph in the place of parameters that are none, as in `functional_call`.

        Yields leaf -> the tensor that it stands for.
        """
        stands_for: dict[Tensor, Tensor] = {}
        places = [*self.network.held().places(), *self.network.feedback.places()]
        held = [(owner, key, owner[key]) for owner, key in places]
        swapped = [(owner, key, p) for owner, key, p in held if p is not None and p.grad_fn is not None]
        for owner, key, tensor in swapped:
            owner[key] = leaf = tensor.detach().requires_grad_()
            stands_for[leaf] = tensor
        try:
            yield stands_for
        finally:
            for owner, key, tensor in swapped:
                owner[key] = tensor


def _given(generator: torch.Generator | None) -> torch.Generator:
    """Return a generator, or refuse that there is none."""
    if generator is None:
        raise ActrelaxError(
            "the assumptions need feedback weights, which are drawn at random: pass "
            "options=BackwardOptions(generator=torch.Generator().manual_seed(0))."
        )
    return generator


def _network_of(module: nn.Module, input_shape: Sequence[int] | None) -> Network:
    if not isinstance(module, Network):
        return Network.from_sequential(module, input_shape)  # type: ignore[arg-type]  # which refuses None
    own = module.populations[module.input].shape
    if input_shape is not None and tuple(input_shape) != own:
        raise ActrelaxError(f"the network takes samples of shape {own}, got input_shape={tuple(input_shape)}.")
    return module


def _feedback_of(network: Network) -> nn.Module:
    """Return a module that owns the network's feedback weights, named after their projections."""
    container = nn.Module()
    for projection in network.projections.values():
        if isinstance(projection.feedback, nn.Parameter):
            container.register_parameter(projection.name, projection.feedback)
        elif projection.feedback is not None:
            container.register_buffer(projection.name, projection.feedback)
    return container
