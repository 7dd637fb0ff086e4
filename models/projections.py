"""Projections: how one population drives another, and how feedback comes back (THEORY.md section 1).

A projection is a pipeline of PyTorch's own modules: routing before, at most one linear map with weights (or none:
a plain copy, for skip connections), routing after. Of the modules it takes the options and the Parameters
themselves, so the network and the modules stay one model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Size, Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from actrelax.models.errors import ActrelaxError
from actrelax.models.routing import AvgPool2d, Flatten, MaxPool2d, Pair, Route, Routing


class LinearMap(Protocol):
    """The weighted stage: drive, feedback and plasticity of one weight tensor.

    ``x`` is (batch, *input shape), ``y`` (batch, *output shape).
    """

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """op(x; W) + b."""

    def adjoint(self, y: Tensor, weight: Tensor, shape: Size) -> Tensor:
        """op^T(y; W), of `shape`: <op(x), y> = <x, op^T(y)>."""

    def outer(self, x: Tensor, y: Tensor, shape: Size) -> Tensor:
        """The Hebbian product of presynaptic x and postsynaptic y, summed over the batch, of the weight's `shape`."""

    def summed(self, y: Tensor) -> Tensor:
        """Postsynaptic y summed over batch and space, the bias's share."""


@dataclass(frozen=True)
class Dense:
    """Every unit to every unit: `torch.nn.Linear` on flat populations. Weight (outputs, inputs)."""

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.dim() != 2:
            raise ActrelaxError(f"Linear takes a flat population, got shape {tuple(x.shape[1:])}: flatten before it.")
        return F.linear(x, weight, bias)

    def adjoint(self, y: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return y @ weight

    def outer(self, x: Tensor, y: Tensor, shape: Size) -> Tensor:
        return y.T @ x

    def summed(self, y: Tensor) -> Tensor:
        return y.sum(0)


@dataclass(frozen=True)
class Conv2d:
    """`torch.nn.Conv2d` with zero padding. Weight (out channels, in channels / groups, height, width)."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def _options(self) -> tuple[Pair, Pair, Pair, int]:
        return self.stride, self.padding, self.dilation, self.groups

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, *self._options())

    def adjoint(self, y: Tensor, weight: Tensor, shape: Size) -> Tensor:
        signal: Tensor = conv2d_input(shape, weight, y, *self._options())  # type: ignore[no-untyped-call]
        return signal

    def outer(self, x: Tensor, y: Tensor, shape: Size) -> Tensor:
        product: Tensor = conv2d_weight(x, shape, y, *self._options())  # type: ignore[no-untyped-call]
        return product

    def summed(self, y: Tensor) -> Tensor:
        return y.sum((0, 2, 3))


class ProjectionRoute(NamedTuple):
    """The route of one batch through a projection, found by the feedforward pass.

    before, after  the routing stages' routes; shape  (batch, ...) of the weighted map's input
    """

    before: tuple[Route, ...]
    shape: Size
    after: tuple[Route, ...]


class Projection(nn.Module):
    """All connections from one population to another: its drive, its feedback, its plasticity.

    Parameters
    ----------
    source, target : str
        Names of the presynaptic and the postsynaptic population.
    *stages : torch.nn.Module
        The pipeline: any of `nn.MaxPool2d`, `nn.AvgPool2d`, `nn.Flatten` before and after at most one
        `nn.Linear` or `nn.Conv2d`, whose Parameters are shared, not copied. No stage at all is a plain copy.
    name : str, optional
        Its name in the network and in the state_dict; ``source->target`` unless given.

    Attributes
    ----------
    weight, bias : torch.nn.Parameter or None
    feedback : torch.Tensor or None
        Feedback weights psi of its own, where `Network.add_feedback` made some: a Parameter where they are
        learned, a buffer where they are fixed, a buffer without dimensions (a scale) for sign-concordant ones.

    Raises
    ------
    ActrelaxError
        For a stage that is not known or not supported, or a second weighted map.

    Examples
    --------
    >>> Projection("conv1", "hidden1", nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 10))
    conv1->hidden1: MaxPool2d(2), Flatten, Linear(54, 10)
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    feedback: Tensor | None

    def __init__(self, source: str, target: str, *stages: nn.Module, name: str | None = None) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.name = f"{source}->{target}" if name is None else name
        weighted = [position for position, stage in enumerate(stages) if type(stage) in (nn.Linear, nn.Conv2d)]
        if len(weighted) > 1:
            raise ActrelaxError(
                f"projection {self.name!r} has {len(weighted)} weighted maps, at most one is right: "
                "put a population between them."
            )
        position = weighted[0] if weighted else len(stages)
        self.before = _routing_stages(stages[:position])
        self.after = _routing_stages(stages[position + 1 :])
        self.map: LinearMap | None = None
        weight: nn.Parameter | None = None
        bias: nn.Parameter | None = None
        if weighted:
            module = stages[position]
            assert isinstance(module, nn.Linear | nn.Conv2d)
            self.map = _linear_map(module)
            weight, bias = module.weight, module.bias  # type: ignore[assignment]
        self.register_parameter("weight", weight)
        self.register_parameter("bias", bias)
        self.register_buffer("feedback", None)
        self.pipeline = ", ".join(_describe(stage) for stage in stages) or "copy"

    def find(self, x: Tensor) -> tuple[Tensor, ProjectionRoute]:
        """Drive of the target by presynaptic activities x (batch, *source shape), and the route it took."""
        before, after = [], []
        for stage in self.before:
            x, route = stage.find(x)
            before.append(route)
        shape = x.shape
        x = self._mapped(x)
        for stage in self.after:
            x, route = stage.find(x)
            after.append(route)
        return x, ProjectionRoute(tuple(before), shape, tuple(after))

    def drive(self, x: Tensor, route: ProjectionRoute) -> Tensor:
        """Drive of the target by other activities x along a route found before, its bias included."""
        return _applied(self.after, self._mapped(self.presynaptic(x, route)), route.after)

    def feedback_signal(self, y: Tensor, route: ProjectionRoute, weight: Tensor | None) -> Tensor:
        """op^T(y; weight): y (batch, *target shape) back through all stages, (batch, *source shape)."""
        y = self.postsynaptic(y, route)
        if self.map is not None:
            assert weight is not None
            y = self.map.adjoint(y, weight, route.shape)
        return _adjoint(self.before, y, route.before)

    def presynaptic(self, x: Tensor, route: ProjectionRoute) -> Tensor:
        """The presynaptic factor of plasticity: x through the routing before the weights."""
        return _applied(self.before, x, route.before)

    def postsynaptic(self, y: Tensor, route: ProjectionRoute) -> Tensor:
        """The postsynaptic factor of plasticity: y back through the routing after the weights."""
        return _adjoint(self.after, y, route.after)

    def plasticity(self, presynaptic: Tensor, postsynaptic: Tensor) -> dict[str, Tensor]:
        """dLoss/dW and dLoss/db by the local rule, summed over the batch (THEORY.md section 1).

        Parameters
        ----------
        presynaptic, postsynaptic : torch.Tensor
            As the methods of these names return them; the postsynaptic activity multiplied by its gain.

        Returns
        -------
        dict
            ``"weight"`` and, where the projection has one, ``"bias"``, of these Parameters' shapes; empty for a copy.
        """
        if self.map is None:
            return {}
        assert self.weight is not None
        update = {"weight": self.map.outer(presynaptic, postsynaptic, self.weight.shape)}
        if self.bias is not None:
            update["bias"] = self.map.summed(postsynaptic)
        return update

    def _mapped(self, x: Tensor) -> Tensor:
        if self.map is None:
            return x
        assert self.weight is not None
        return self.map.apply(x, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict, prefix, *args):  # type: ignore[no-untyped-def]
        # a saved network's feedback weights register themselves; as Parameters, since the file can't tell
        # learned from fixed ones, and nothing changes a Parameter under fixed feedback either
        saved = state_dict.get(f"{prefix}feedback")
        if saved is not None and self.feedback is None and self.weight is not None:
            self.set_feedback(self.weight.new_empty(saved.shape), learned=saved.dim() > 0)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def set_feedback(self, feedback: Tensor, *, learned: bool) -> None:
        """Register feedback weights psi: as a Parameter where they are learned, else as a buffer."""
        del self.feedback
        if learned:
            self.register_parameter("feedback", nn.Parameter(feedback))
        else:
            self.register_buffer("feedback", feedback)

    def __repr__(self) -> str:
        return f"{self.name}: {self.pipeline}"


def _applied(stages: Iterable[Routing], x: Tensor, routes: Iterable[Route]) -> Tensor:
    for stage, route in zip(stages, routes, strict=True):
        x = stage.apply(x, route)
    return x


def _adjoint(stages: Sequence[Routing], y: Tensor, routes: Sequence[Route]) -> Tensor:
    for stage, route in zip(reversed(stages), reversed(routes), strict=True):
        y = stage.adjoint(y, route)
    return y


def _linear_map(module: nn.Module) -> LinearMap:
    if isinstance(module, nn.Linear):
        return Dense()
    assert isinstance(module, nn.Conv2d)
    if module.padding_mode != "zeros":
        raise ActrelaxError(f"Conv2d pads with zeros here, got padding_mode {module.padding_mode!r}: use 'zeros'.")
    stride, dilation, padding = _pair(module.stride), _pair(module.dilation), module.padding
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, module.kernel_size, strict=True)]
        if any(r % 2 for r in reach):
            raise ActrelaxError("Conv2d with padding 'same' needs an odd kernel: pad by a number instead.")
        padding = (reach[0] // 2, reach[1] // 2)
    return Conv2d(stride, _pair(padding), dilation, module.groups)  # type: ignore[arg-type]


def _routing_stages(modules: Iterable[nn.Module]) -> tuple[Routing, ...]:
    return tuple(_routing(module) for module in modules)


def _routing(module: nn.Module) -> Routing:
    if type(module) is nn.Flatten:
        if (module.start_dim, module.end_dim) != (1, -1):
            raise ActrelaxError("Flatten joins all dimensions after the batch here: use nn.Flatten() as it is.")
        return Flatten()
    if type(module) is nn.AvgPool2d:
        return AvgPool2d(
            _pair(module.kernel_size),
            _pair(module.stride),
            _pair(module.padding),
            module.ceil_mode,
            module.count_include_pad,
            module.divisor_override,
        )
    if type(module) is nn.MaxPool2d:
        if module.return_indices:
            raise ActrelaxError("MaxPool2d keeps its indices by itself here: leave return_indices out.")
        return MaxPool2d(
            _pair(module.kernel_size),
            _pair(module.stride),
            _pair(module.padding),
            _pair(module.dilation),
            module.ceil_mode,
        )
    raise ActrelaxError(
        f"{type(module).__name__} can't be part of a projection; known: Linear, Conv2d, MaxPool2d, AvgPool2d, Flatten."
    )


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _describe(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"Linear({module.in_features}, {module.out_features})"
    if isinstance(module, nn.Conv2d):
        sizes = f"{module.in_channels}, {module.out_channels}, {_brief(module.kernel_size)}"
        defaults = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        options = {key: getattr(module, key) for key in defaults}
        changed = [f"{key}={_brief(value)}" for key, value in options.items() if value != defaults[key]]
        return f"Conv2d({', '.join([sizes, *changed])})"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return f"{type(module).__name__}({_brief(module.kernel_size)})"
    return type(module).__name__


def _brief(size: object) -> object:
    return size[0] if isinstance(size, tuple) and len(set(size)) == 1 else size
