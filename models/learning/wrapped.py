"""A PyTorch module and the equivalent network, with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, weighted_layers


class Wrapped:
    """A module and the equivalent network; a `Network` is its own equivalent.

    The weights belong to the module. They are looked up for each pass, since `torch.func.functional_call`,
    ``load_state_dict(assign=True)`` and similar calls replace them. `feedback` is the module that owns the feedback
    weights: None without any, or if the module is a `Network`, which owns them.
    """

    def __init__(self, module: nn.Module, input_shape: Sequence[int] | None) -> None:
        self.module = module
        self.feedback: nn.Module | None = None
        self.network = _network_of(module, input_shape)
        self._structure = _structure(module)
        if module is not self.network:
            _check_same_function(module, self.network)
        self._owners = self._find_owners()

    def weights(self) -> list[Tensor]:
        """Return the current weights, in the order of the network's slots; refuse a changed module."""
        structure = _structure(self.module)
        if structure != self._structure:
            pairs = zip(structure, self._structure, strict=False)
            name = next((new[0] for new, old in pairs if new != old), "")
            raise ActrelaxError(
                f"the module has changed since it was wrapped, at layer {name!r}: make a new ActivationRelaxation."
            )
        return [getattr(owner, name) for owner, name in self._owners]

    def add_feedback(self, assumptions: Assumptions, generator: torch.Generator | None) -> None:
        """Create the feedback weights that the assumptions need, if they are missing."""
        if not self.network.lacks_feedback(assumptions):
            return
        if generator is None:
            raise ActrelaxError(
                "the assumptions need feedback weights, which are drawn at random: pass "
                "options=BackwardOptions(generator=torch.Generator().manual_seed(0))."
            )
        self.network.add_feedback(assumptions, generator)
        if self.module is not self.network:
            self.feedback = _feedback_of(self.network)
        self._structure = _structure(self.module)
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


def _network_of(module: object, input_shape: Sequence[int] | None) -> Network:
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        raise ActrelaxError("a compiled module can't be wrapped: wrap the plain one, then compile the result.")
    if isinstance(module, Network):
        own = module.populations[module.input].shape
        if input_shape is not None and tuple(input_shape) != own:
            raise ActrelaxError(f"the network takes samples of shape {own}, got input_shape={tuple(input_shape)}.")
        return module
    if not isinstance(module, nn.Module):
        raise ActrelaxError(
            f"module must be a Network or an nn.Module, got {module!r}: put the layers in nn.Sequential."
        )
    if input_shape is None:
        raise ActrelaxError("input_shape is missing: pass the shape of one sample, such as input_shape=(3, 32, 32).")
    if not (isinstance(input_shape, Sequence) and all(isinstance(n, int) and n > 0 for n in input_shape)):
        raise ActrelaxError(f"input_shape must be positive integers, such as (3, 32, 32), got {input_shape!r}.")
    _structure(module)
    return Network.from_sequential(module, input_shape)


def _structure(module: nn.Module) -> tuple[tuple[object, ...], ...]:
    """Return the layers and their options, to detect changes; refuse hooks, which a relaxation does not call."""
    found: list[tuple[object, ...]] = []
    for name, layer in module.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            raise ActrelaxError(
                f"layer {name!r} has a hook, which a relaxation does not call: remove it. (Pruning adds a hook, "
                "which prune.remove removes; weight normalisation and lazy layers add one, too.)"
            )
        options = [getattr(layer, option) for option in getattr(layer, "__constants__", ())]
        found.append((name, layer, *options, *(key for key, w in layer._parameters.items() if w is not None)))
    return tuple(found)


def _check_same_function(module: nn.Module, network: Network) -> None:
    """Refuse a module whose outputs or gradients differ from the network's, in training or evaluation mode."""
    weight = next(network.parameters(), torch.empty(0))
    if weight.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *network.populations[network.input].shape, generator=generator, dtype=torch.float64).to(weight)
    with torch.enable_grad():
        learning = [w for w in network.parameters() if w.requires_grad]
        expected = network(x)
        exact = torch.autograd.grad(expected.sum(), learning) if learning else ()
        twin = copy.deepcopy(module)
        for training in (True, False):
            output = twin.train(training)(x)
            same = output.shape == expected.shape and torch.allclose(output, expected, rtol=1e-2, atol=1e-3)
            if same and learning:
                own = [w for w in twin.parameters() if w.requires_grad]
                found = torch.autograd.grad(output.sum(), own, allow_unused=True) if output.requires_grad else [None]
                same = len(found) == len(exact) and all(
                    g is not None and torch.allclose(g, e, rtol=1e-2, atol=1e-3)
                    for g, e in zip(found, _in_order(exact, learning, module), strict=True)
                )
            if not same:
                mode = "training" if training else "evaluation"
                raise ActrelaxError(
                    f"{type(module).__name__} does more in {mode} mode than apply its layers one after another: "
                    "describe it as a Network of populations and projections."
                )


def _in_order(gradients: Sequence[Tensor], of: Sequence[Tensor], module: nn.Module) -> list[Tensor]:
    """Return the gradients in the order of the module's parameters."""
    by_weight = {id(w): gradient for w, gradient in zip(of, gradients, strict=True)}
    return [by_weight[id(w)] for w in module.parameters() if w.requires_grad]


def _feedback_of(network: Network) -> nn.Module:
    """Return a module that owns the network's feedback weights, named after their projections."""
    container = nn.Module()
    for projection in network.projections.values():
        if isinstance(projection.feedback, nn.Parameter):
            container.register_parameter(projection.name, projection.feedback)
        elif projection.feedback is not None:
            container.register_buffer(projection.name, projection.feedback)
    return container
