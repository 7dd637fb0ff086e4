"""Captured networks that learn in Brian2, rewritten as populations and projections with the module's own Parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.engines.brian2.equations import missing_formula
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import (
    Activation,
    CapturedNetwork,
    CapturedPass,
    CapturedProjection,
    Network,
    Operation,
    Projection,
)
from actrelax.models.network.captured import Convolution, Linear
from actrelax.models.network.pooling import pair
from actrelax.models.network.source import Source

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """A network of populations and projections, and assumptions with its names.

    tensors, modes  the module's Parameters and training modes when the network was made
    module          the captured module
    """

    network: Network
    assumptions: Assumptions
    tensors: tuple[Tensor, ...] = ()
    modes: tuple[bool, ...] = ()
    module: nn.Module | None = None

    def check(self) -> None:
        """Refuse a module in another training mode, or with other Parameters."""
        if self.module is None:
            return
        tensors, modes = _state(self.module)
        if modes != self.modes or [*map(id, tensors)] != [*map(id, self.tensors)]:
            raise ActrelaxError(
                "the module's training mode or Parameters have changed since the Learner was made: make a new Learner."
            )


def written(network: Network, assumptions: Assumptions) -> Written:
    """Return a network as populations and projections: itself, unless it is captured.

    Raises
    ------
    ActrelaxError
        If a population of a captured network is not one pointwise function, known by name and with a formula, of the
        sum of its inputs, or a weight does not belong to a dense layer or a 2-D convolution.
    """
    if not isinstance(network, CapturedNetwork):
        return Written(network, assumptions)
    if network.paths == "many":
        raise ActrelaxError(
            'with paths="many" the computation depends on the batch, and Brian2 runs one program: use relax_backward '
            "or ActivationRelaxation."
        )
    passed, x = _trial(network)
    assumptions.check_names(passed.network.projections)
    for p in passed.network.projections.values():
        passed.network.feedback_weight(p, assumptions)  # raises if it is missing
    for relay in passed.network.relays:
        raise _not_local(relay)
    names = {name: _own_name(p) for name, p in passed.network.projections.items()}
    populations, projections = dict[str, Activation](), list[Projection]()
    shapes: dict[str, Shape] = {network.input: tuple(x.shape[1:])}
    for number in reversed(range(len(passed.path.pieces))):
        name = passed.path.names[number]
        populations[name] = _activation(passed, number)
        incoming = [_projection(passed, p, names[p.name], shapes, x) for p in passed.network.incoming[name]]
        shapes[name] = _shape(name, [each.find(x.new_zeros(1, *shapes[each.source]))[0] for each in incoming])
        projections += incoming
    own = Network(x.shape[1:], populations, projections)
    reason = missing_formula(own.populations.values(), is_captured=True)
    if reason is not None:
        raise ActrelaxError(reason)
    own._source = Source(network.module)
    _share_feedback(passed.network, own, names)
    knobs = {names[name]: passed.network.knobs(p, assumptions) for name, p in passed.network.projections.items()}
    return Written(own, replace(assumptions, projections=knobs), *_state(network.module), network.module)


def _trial(network: CapturedNetwork) -> tuple[CapturedPass, Tensor]:
    """Return the forward pass of two random stimuli, and leave the module unchanged."""
    path, like = network.path, next(iter(network.held().parameters().values()))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *path.stimulus, generator=generator, device="cpu").to(like.device, network.dtype)
    with network.fork_state(x):
        return network.run(x, values=True), x


def _state(module: nn.Module) -> tuple[tuple[Tensor, ...], tuple[bool, ...]]:
    return tuple(module.parameters()), tuple(part.training for part in module.modules())


def _own_name(p: CapturedProjection) -> str:
    """Return a name without dots, which PyTorch reads as separators of module names."""
    name = f"{p.name} (copy)" if p.number is None else f"{p.source}->{p.name}"
    return name.replace(".", "/")


def _activation(passed: CapturedPass, number: int) -> Activation:
    """Return the pointwise function of a piece; refuse any other piece."""
    name, wires = passed.path.names[number], passed.path.incoming[number]
    kinds, norms = passed.path.pieces[number].kinds, [norm.node for norm in passed.gains.norms]
    if any("BatchNorm" in kind for kind in kinds) and not any(getattr(n, "_saved_training", True) for n in norms):
        raise ActrelaxError(
            f"population {name!r} has a BatchNorm, with which Brian2 does not learn: fuse it with the weights before "
            "it (torch.nn.utils.fusion), or use relax_backward or ActivationRelaxation."
        )
    if passed.path.parameters[number]:
        raise _not_local(name)
    activity = passed.activities[name]
    drawing = torch.Generator().manual_seed(0)
    signal = torch.rand(activity.shape, generator=drawing, device="cpu").to(activity)
    try:
        activation = passed.current(number).activation
        arrived = passed.transposed(number, signal, keep=True, learn=False, gain="none")
    except ActrelaxError:
        raise _not_local(name) from None
    for part in arrived:  # without the slope, a sum of drives passes its signal on unchanged
        if part is None or not torch.equal(part.flatten(), signal.flatten()):
            raise _not_local(name)
    entered = [_entering(passed, wire).flatten() for wire in wires]
    rounding = torch.finfo(activity.dtype).eps
    expected = activation(torch.stack(entered).sum(0))
    if not torch.allclose(expected, activity.flatten(), rtol=1000 * rounding, atol=100 * rounding):
        raise _not_local(name)
    return activation


def _entering(passed: CapturedPass, wire: Any) -> Tensor:
    drive: Tensor | None = None if wire.operation is None else passed.operations[wire.operation].call()
    return passed.activities[passed.path.names[wire.source]] if drive is None else drive.detach()


def _shape(name: str, drives: list[Tensor]) -> Shape:
    """Return the shape of a population, that of its drives, the batch excluded."""
    shapes = {tuple(drive.shape[1:]) for drive in drives}
    if len(shapes) > 1:
        raise _not_local(name)
    return shapes.pop()


def _projection(
    passed: CapturedPass, p: CapturedProjection, name: str, shapes: Mapping[str, Shape], x: Tensor
) -> Projection:
    """Return a projection with the weights of a captured one."""
    flatten = [nn.Flatten()] if len(shapes[p.source]) > 1 else []
    if p.number is None:
        captured = passed.activities[p.source].shape[1:]
        return Projection(p.source, p.target, *(flatten if captured != shapes[p.source] else []), name=name)
    operation, source = passed.operations[p.number], passed.activities[p.source]
    layer = _layer(operation) if p.weight and (p.bias or operation.bias is None) else None
    if layer is None:
        raise ActrelaxError(
            f"Brian2 learns only the weights of dense layers, and {p.name!r} into population {p.target!r} is not one: "
            "use relax_backward or ActivationRelaxation."
        )
    expected = source.flatten(1) if isinstance(layer, nn.Linear) else source.view(len(x), *shapes[p.source])
    if operation.x is None or operation.x.shape != expected.shape or not torch.equal(operation.x, expected):
        raise ActrelaxError(
            f"the weights of {p.name!r} don't read population {p.source!r} unchanged: transform stimuli before you "
            "pass them to the network."
        )
    return Projection(p.source, p.target, *(flatten if isinstance(layer, nn.Linear) else []), layer, name=name)


def _layer(operation: Operation) -> nn.Linear | nn.Conv2d | None:
    """Return a layer with the weights of an operation, None for other operations."""
    assert operation.x is not None
    weight, has_bias = operation.weight, operation.bias is not None
    layer: nn.Linear | nn.Conv2d
    if isinstance(operation, Linear) and not operation.by_columns and operation.x.dim() == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0], has_bias, device="meta")
    elif isinstance(operation, Convolution) and operation.x.dim() == 4 and not operation.options[3]:
        stride, padding, dilation, _, _, groups = operation.options
        channels, size = (weight.shape[1] * groups, len(weight)), (weight.shape[2], weight.shape[3])
        stride, padding, dilation = (pair(option) for option in (stride, padding, dilation))
        layer = nn.Conv2d(*channels, size, stride, padding, dilation, groups, has_bias, device="meta")
    else:
        return None
    layer.weight, layer.bias = operation.weight, operation.bias
    return layer


def _share_feedback(network: CapturedNetwork, own: Network, names: Mapping[str, str]) -> None:
    """Let projections hold the feedback weights of the captured network."""
    for p in network.projections.values():
        psi = network.feedback.find(p.psi) if network.carries_feedback(p) else None
        if psi is None:
            continue
        projection = own.projections[names[p.name]]
        projection.set_feedback(psi.detach(), learned=isinstance(psi, nn.Parameter))
        if isinstance(psi, nn.Parameter):
            projection.feedback = psi


def _not_local(name: str) -> ActrelaxError:
    return ActrelaxError(
        f"population {name!r} is not one pointwise function, known by name, of the sum of its inputs, so its learning "
        "is not local to its units: use relax_backward or ActivationRelaxation."
    )
