"""Networks as JSON and tensors, and back, for files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from actrelax.models.network.activations import ACTIVATIONS, Activation, leaky_relu
from actrelax.models.network.captured.network import CapturedNetwork
from actrelax.models.network.layers import Conv2d
from actrelax.models.network.network import Network
from actrelax.models.network.pooling import Flatten, Routing
from actrelax.models.network.projection import Projection

Description = dict[str, Any]


def describe(network: Network) -> Description:
    """Return a network's description for JSON, without its weights (`network.state_dict()`).

    "functions" lists custom functions and classes, which JSON can't hold: unless it is empty, the network can't be
    rebuilt.
    """
    shape = list(network.populations[network.input].shape)
    if isinstance(network, CapturedNetwork):
        kind = type(network.module).__name__
        return {"input_shape": shape, "populations": {}, "projections": [], "functions": [f"the module {kind}"]}
    functions = [
        f"activation {p.activation.name!r} of population {name!r}"
        for name, p in network.populations.items()
        if _activation(p.activation) is None
    ]
    if type(network) is not Network:
        functions.append(f"the class {type(network).__name__}")
    return {
        "input_shape": shape,
        "populations": {
            name: _activation(p.activation) for name, p in network.populations.items() if name != network.input
        },
        "projections": [_projection(p) for p in network.projections.values() if isinstance(p, Projection)],
        "functions": functions,
    }


def rebuild(description: Description, weights: Mapping[str, Tensor]) -> Network:
    """Build a network from its description and these weights."""
    projections = [_rebuild_projection(each, weights) for each in description["projections"]]
    populations = {
        name: leaky_relu(given["slope"]) if isinstance(given, dict) else given
        for name, given in description["populations"].items()
    }
    network = Network(description["input_shape"], populations, projections)
    for each in description["projections"]:
        psi = weights.get(f"{each['name']}.feedback")
        if psi is not None:
            network.projections[each["name"]].set_feedback(psi.clone(), learned=each["feedback_is_learned"])
    return network


def _activation(activation: Activation) -> str | dict[str, float] | None:
    """Return an activation's name, a leaky ReLU's slope, or None for a custom function."""
    function = activation.function
    if isinstance(function, partial) and function.func is leaky_relu().function.func:  # type: ignore[attr-defined]
        return {"slope": function.keywords["slope"]}
    return activation.name if ACTIVATIONS.get(activation.name) == activation else None


def _projection(projection: Projection) -> Description:
    weighted = None
    if projection.map is not None:
        weighted = projection.map._asdict() if isinstance(projection.map, Conv2d) else {}
    return {
        "name": projection.name,
        "source": projection.source,
        "target": projection.target,
        "before": [_routing(stage) for stage in projection.before],
        "weighted": weighted,
        "after": [_routing(stage) for stage in projection.after],
        "feedback_is_learned": projection.feedback_is_learned,
    }


def _routing(stage: Routing) -> Description:
    return {} if isinstance(stage, Flatten) else stage._asdict()


def _rebuild_projection(each: Description, weights: Mapping[str, Tensor]) -> Projection:
    stages = [_stage(stage) for stage in each["before"]]
    if each["weighted"] is not None:
        weight, bias = (weights.get(f"{each['name']}.{slot}") for slot in ("weight", "bias"))
        stages.append(_weighted(each["weighted"], weight, bias))
    stages += [_stage(stage) for stage in each["after"]]
    return Projection(each["source"], each["target"], *stages, name=each["name"])


def _stage(options: Description) -> nn.Module:
    if not options:
        return nn.Flatten()
    if "scale" in options:
        return nn.Upsample(scale_factor=tuple(options["scale"]))
    kind = nn.AvgPool2d if "count_include_pad" in options else nn.MaxPool2d
    return kind(**_with_pairs(options))


def _weighted(options: Description, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
    """Return a layer with these weights; it is made on the device "meta", which draws no random ones first."""
    assert weight is not None
    module: nn.Module
    if options:
        sizes = weight.shape[1] * options["groups"], len(weight), tuple(weight.shape[2:])
        module = nn.Conv2d(*sizes, bias=bias is not None, device="meta", **_with_pairs(options))  # type: ignore[arg-type]
    else:
        module = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, device="meta")
    module.weight = nn.Parameter(weight.clone())
    module.bias = None if bias is None else nn.Parameter(bias.clone())
    return module


def _with_pairs(options: Description) -> Description:
    """Return options with lists, JSON's form of tuples, turned back into tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
