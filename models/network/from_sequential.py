"""Conversion of a chain of PyTorch layers into populations and projections."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import ACTIVATIONS, Activation, leaky_relu
from actrelax.models.network.projection import Projection
from actrelax.models.network.source import structure

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.Softplus: "softplus",
    nn.GELU: "gelu",
    nn.LeakyReLU: "leaky-relu",
}
_STAGES = (nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Upsample, nn.Flatten)


def split_chain(module: nn.Module, input_shape: object) -> tuple[dict[str, Activation], list[Projection]]:
    """Split a chain of layers into hops: at every activation function and between two weighted maps.

    Each hop has at most one weighted map. Routing (pooling, flattening) before an activation ends its hop, other
    routing begins the next. A linear population joins two weighted maps without an activation between them. Routing at
    the end of the sequence is a separate hop. Returns population -> activation, and the projections.
    """
    _check_arguments(module, input_shape)
    hops: list[tuple[list[nn.Module], Activation]] = []
    stages: list[nn.Module] = []
    for layer in _chain(module):
        activation = _activation(layer)
        if activation is not None:
            hops.append((stages, activation))
            stages = []
        elif type(layer) not in _STAGES:
            raise ActrelaxError(
                f"{type(layer).__name__} is not supported: use Linear, Conv2d, MaxPool2d, AvgPool2d, Upsample, "
                f"Flatten and the activations {', '.join(ACTIVATIONS)}."
            )
        elif _weighted(layer) and any(map(_weighted, stages)):
            hops.append((stages, ACTIVATIONS["identity"]))
            stages = [layer]
        else:
            stages.append(layer)
    if stages:
        hops.append((stages, ACTIVATIONS["identity"]))
    if not hops:
        raise ActrelaxError("the sequence is empty: a network needs at least one layer.")
    names = [*_names(hops[:-1]), "output"]
    sources = ["input", *names]
    projections = [
        Projection(source, name, *stages) for source, name, (stages, _) in zip(sources, names, hops, strict=False)
    ]
    return {name: activation for name, (_, activation) in zip(names, hops, strict=True)}, projections


def _check_arguments(module: object, input_shape: object) -> None:
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        raise ActrelaxError("a compiled module can't be wrapped: wrap the plain one, then compile the result.")
    if not isinstance(module, nn.Module):
        raise ActrelaxError(
            f"module must be a Network or an nn.Module, got {module!r}: put the layers in nn.Sequential."
        )
    if input_shape is None:
        raise ActrelaxError(
            "input_shape is missing: pass the shape of one sample, such as input_shape=(3, 32, 32); for any module "
            "pass a batch, example=images, to ActivationRelaxation or Network.from_module."
        )
    if not (isinstance(input_shape, Sequence) and all(isinstance(n, int) and n > 0 for n in input_shape)):
        raise ActrelaxError(f"input_shape must be positive integers, such as (3, 32, 32), got {input_shape!r}.")
    structure(module)  # refuses hooks and the like


def _names(hops: list[tuple[list[nn.Module], Activation]]) -> Iterator[str]:
    count = {"conv": 0, "hidden": 0}
    for stages, _ in hops:
        kind = "conv" if any(type(stage) is nn.Conv2d for stage in stages) else "hidden"
        count[kind] += 1
        yield f"{kind}{count[kind]}"


def weighted_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a chain that have weights, in the order in which they are applied."""
    return [layer for layer in _chain(module) if _weighted(layer)]


def _chain(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers that a module applies one after another."""
    if type(module) is nn.Sequential:
        for child in module:
            yield from _chain(child)
    elif isinstance(module, (*_STAGES, *_ACTIVATIONS)) or not list(module.children()):
        if type(module) is not nn.Identity:
            yield module
    else:
        yield from _traced(module)


def _traced(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a module with a custom forward pass, traced by `torch.fx`."""
    kind = type(module).__name__
    try:
        nodes = list(fx.symbolic_trace(copy.deepcopy(module)).graph.nodes)  # tracing calls forward
    except Exception as error:  # the module's own code may raise anything during tracing
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ActrelaxError(f"{kind} can't be read as a chain of layers: {reason}") from error
    for before, node in pairwise(nodes):
        if node.op not in ("call_module", "output") or node.args[:1] != (before,) or len(node.all_input_nodes) != 1:
            used = getattr(node.target, "__name__", node.target)
            raise ActrelaxError(
                f"{kind} is not a chain of layers, its forward pass uses {used!r}: use layers one after another, "
                "such as nn.ReLU() for F.relu, or describe it as a Network of populations and projections."
            )
        if node.op == "call_module":
            yield from _chain(module.get_submodule(node.target))


def _weighted(layer: nn.Module) -> bool:
    return type(layer) in (nn.Linear, nn.Conv2d)


def _activation(layer: nn.Module) -> Activation | None:
    if type(layer) is nn.LeakyReLU:
        return leaky_relu(layer.negative_slope)
    if type(layer) is nn.GELU and layer.approximate != "none":
        raise ActrelaxError(f"GELU must be exact, got approximate={layer.approximate!r}: use 'none'.")
    if type(layer) is nn.Softplus and (layer.beta, layer.threshold) != (1, 20):
        raise ActrelaxError(
            f"Softplus must have beta 1 and threshold 20, got {layer.beta:g} and {layer.threshold:g}: use the defaults."
        )
    name = _ACTIVATIONS.get(type(layer))
    return None if name is None else ACTIVATIONS[name]


def check_same_function(module: nn.Module, network: nn.Module, input_shape: Sequence[int]) -> None:
    """Refuse a module whose outputs or gradients differ from the network's, in training or evaluation mode."""
    weight = next(network.parameters(), torch.empty(0))
    if weight.is_meta:
        return
    module, network = copy.deepcopy((module, network))  # copies lose the Parameters' hooks, which would be called
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *input_shape, generator=generator, dtype=torch.float64).to(weight)
    with torch.enable_grad():
        learning = [w for w in network.parameters() if w.requires_grad]
        expected = network(x)
        exact = torch.autograd.grad(expected.sum(), learning) if learning else ()
        for training in (True, False):
            output = module.train(training)(x)
            same = output.shape == expected.shape and torch.allclose(output, expected, rtol=1e-2, atol=1e-3)
            if same and learning:
                own = [w for w in module.parameters() if w.requires_grad]
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
