"""Conversion of an `nn.Sequential` into populations and projections."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import ACTIVATIONS, Activation, leaky_relu
from actrelax.models.network.projection import Projection

_STAGES = (nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten)


def split_sequential(module: nn.Sequential) -> tuple[dict[str, Activation], list[Projection]]:
    """Split a sequence of layers into hops: at every activation function and between two weighted maps.

    Each hop has at most one weighted map. Routing (pooling, flattening) before an activation ends its hop, other
    routing begins the next. Two maps without an activation between them are joined by a linear population. Routing at
    the end of the sequence is a separate hop.

    Returns
    -------
    populations : dict
        Name -> activation, as `Network` takes them.
    projections : list of Projection

    Raises
    ------
    ActrelaxError
        For an unknown layer.
    """
    hops: list[tuple[list[nn.Module], Activation]] = []
    stages: list[nn.Module] = []
    for layer in _leaves(module):
        activation = _activation(layer)
        if activation is not None:
            hops.append((stages, activation))
            stages = []
        elif type(layer) not in _STAGES:
            raise ActrelaxError(
                f"{type(layer).__name__} is not supported: use Linear, Conv2d, MaxPool2d, AvgPool2d, Flatten and "
                f"the activations {', '.join(ACTIVATIONS)}."
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


def _names(hops: list[tuple[list[nn.Module], Activation]]) -> Iterator[str]:
    count = {"conv": 0, "hidden": 0}
    for stages, _ in hops:
        kind = "conv" if any(type(stage) is nn.Conv2d for stage in stages) else "hidden"
        count[kind] += 1
        yield f"{kind}{count[kind]}"


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child)
    elif type(module) is not nn.Identity:
        yield module


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
    names = {
        nn.Tanh: "tanh",
        nn.ReLU: "relu",
        nn.Sigmoid: "sigmoid",
        nn.Softplus: "softplus",
        nn.GELU: "gelu",
    }
    name = names.get(type(layer))
    return None if name is None else ACTIVATIONS[name]
