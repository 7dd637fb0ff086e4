"""Projections: the drive of one population by another, and its feedback (docs/theory.md).

A projection is a pipeline of PyTorch modules: routing, at most one linear map with weights, routing. Without weights it
is a plain copy, for skip connections. It copies the modules' options and shares their Parameters.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from scipy import sparse
from torch import Tensor, nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.layers import LinearMap, linear_map
from actrelax.models.network.pooling import MaxPool2d, Route, Routing, is_channels_last, routing_stage
from actrelax.models.network.source import Source, refuse_ignored


class ProjectionRoute(NamedTuple):
    """The route of one batch through a projection, found by the feedforward pass.

    before, after  routes through the pooling stages before and after the weights
    weighted       shape and layout of the weighted map's input
    """

    before: tuple[Route, ...]
    weighted: Route
    after: tuple[Route, ...]

    def of_samples(self, chosen: slice) -> ProjectionRoute:
        """Return the route of some samples of the batch."""
        before, after = (tuple(route.of_samples(chosen) for route in routes) for routes in (self.before, self.after))
        return ProjectionRoute(before, self.weighted.of_samples(chosen), after)

    def repeated(self, times: int) -> ProjectionRoute:
        """Return the route of `times` concatenated copies of the batch."""
        if times == 1:
            return self
        before, after = (tuple(route.repeated(times) for route in routes) for routes in (self.before, self.after))
        return ProjectionRoute(before, self.weighted.repeated(times), after)

    def with_winners(self, winners: Iterator[Tensor]) -> ProjectionRoute:
        """Return a copy of the route that takes its winners from an iterator."""

        def renewed(routes: tuple[Route, ...]) -> tuple[Route, ...]:
            return tuple(r if r.winners is None else r._replace(winners=next(winners)) for r in routes)

        before = renewed(self.before)
        return ProjectionRoute(before, self.weighted, renewed(self.after))


class Projection(nn.Module):
    """All connections from one population to another: their drive, feedback and plasticity.

    Parameters
    ----------
    source, target : str
        Names of the presynaptic and the postsynaptic population.
    *stages : torch.nn.Module
        The pipeline: any of `nn.MaxPool2d`, `nn.AvgPool2d`, `nn.Upsample` (nearest neighbour, a whole scale factor)
        and `nn.Flatten` before and after at most one `nn.Linear` or `nn.Conv2d`, whose Parameters are shared, not
        copied. Without stages it is a plain copy.
    name : str, optional
        Name in the network and in the state_dict; by default ``source->target``.

    Attributes
    ----------
    weight, bias : torch.nn.Parameter or None
    feedback : torch.Tensor or None
        Feedback weights psi, created by `Network.add_feedback`: a Parameter if learned, a buffer if fixed, a
        zero-dimensional buffer (the scale) if sign-concordant.

    Raises
    ------
    ActrelaxError
        For an unsupported stage or a second weighted map.

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
        for stage in stages:
            if isinstance(stage, nn.Module):
                refuse_ignored(stage, type(stage).__name__)
        weighted = [position for position, stage in enumerate(stages) if type(stage) in (nn.Linear, nn.Conv2d)]
        if len(weighted) > 1:
            raise ActrelaxError(
                f"projection {self.name!r} must have at most one weighted map, got {len(weighted)}: "
                "put a population between them."
            )
        position = weighted[0] if weighted else len(stages)
        self.before = tuple(map(routing_stage, stages[:position]))
        self.after = tuple(map(routing_stage, stages[position + 1 :]))
        self.map: LinearMap | None = None
        weight: nn.Parameter | None = None
        bias: nn.Parameter | None = None
        if weighted:
            module = stages[position]
            assert isinstance(module, nn.Linear | nn.Conv2d)
            self.map = linear_map(module)
            weight, bias = module.weight, module.bias  # type: ignore[assignment]
        self.register_parameter("weight", weight)
        self.register_parameter("bias", bias)
        self.register_buffer("feedback", None)
        self.feedback_is_learned = False
        self.pipeline = ", ".join(_describe(stage) for stage in stages) or "copy"
        self._sources = tuple(Source(stage) for stage in stages)

    @property
    def slots(self) -> list[str]:
        """The tensors that the projection has, among "weight", "bias" and "feedback"."""
        return [slot for slot in ("weight", "bias", "feedback") if getattr(self, slot) is not None]

    @property
    def has_winners(self) -> bool:
        """Return whether the route holds winners of max pooling."""
        return any(isinstance(stage, MaxPool2d) for stage in (*self.before, *self.after))

    def with_weights(self, weights: Mapping[tuple[str, str], Tensor]) -> Projection:
        """Return a copy of the projection with other weight, bias and feedback tensors (`Network.with_weights`)."""
        other = copy.copy(self)
        other._parameters, other._buffers, other._sources = {}, {}, ()
        for slot in ("weight", "bias", "feedback"):
            other.__dict__[slot] = weights.get((self.name, slot))  # plain tensors, possibly with an autograd graph
        return other

    def _check_sources(self, *, options: bool = True) -> None:
        """Refuse a source layer whose Parameters are no longer shared or, with `options`, whose options changed."""
        for source in self._sources:
            layer = source.module
            if options:
                source.check()
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            for slot in ("weight", "bias"):
                own = self._parameters.get(slot)
                # `functional_call` puts plain tensors in place of Parameters
                if layer._parameters.get(slot) is not own and (own is None or isinstance(own, nn.Parameter)):
                    raise ActrelaxError(
                        f"projection {self.name!r} and its layer no longer share their {slot}, as after "
                        "load_state_dict(assign=True): load without assign, or make a new network."
                    )

    def find(self, x: Tensor) -> tuple[Tensor, ProjectionRoute]:
        """Return the drive of the target by activities x, (batch, *source shape), and the route of x."""
        before, after = [], []
        for stage in self.before:
            x, route = stage.find(x)
            before.append(route)
        weighted = Route(x.shape, channels_last=is_channels_last(x))
        x = self._apply_map(x)
        for stage in self.after:
            x, route = stage.find(x)
            after.append(route)
        return x, ProjectionRoute(tuple(before), weighted, tuple(after))

    def drive(self, x: Tensor, route: ProjectionRoute) -> Tensor:
        """Return the drive of the target by activities x along a given route, bias included."""
        return _apply_stages(self.after, self._apply_map(self.presynaptic(x, route)), route.after)

    def feedback_signal(self, y: Tensor, route: ProjectionRoute, weight: Tensor | None) -> Tensor:
        """Return op^T(y; weight), y (batch, *target shape) sent back through all stages: (batch, *source shape)."""
        return self.feedback_from_weights(self.postsynaptic(y, route), route, weight)

    def feedback_from_weights(self, y: Tensor, route: ProjectionRoute, weight: Tensor | None) -> Tensor:
        """Return op^T(y; weight) for a y that `postsynaptic` has already sent back to the weights."""
        if self.map is not None:
            assert weight is not None
            y = self.map.adjoint(y, weight, route.weighted)
        return _apply_adjoints(self.before, y, route.before)

    def as_sparse(self, route: ProjectionRoute, weight: Tensor | None) -> sparse.csr_array:
        """Return op(.; weight) along a route, without the bias, as one matrix; its transpose carries feedback.

        The weight is W for the drive, psi for the feedback, None for a copy. The matrix, (batch * target units, batch *
        source units) in float64, has one block per sample; each entry is the total connection between two units.
        """
        stages = [stage.as_sparse(taken) for stage, taken in zip(self.before, route.before, strict=True)]
        if self.map is not None:
            assert weight is not None
            stages.append(self.map.as_sparse(weight, route.weighted.shape))
        stages += [stage.as_sparse(taken) for stage, taken in zip(self.after, route.after, strict=True)]
        copy = sparse.eye_array(route.weighted.shape.numel(), format="csr")
        return functools.reduce(lambda before, stage: stage @ before, stages or [copy])

    def presynaptic(self, x: Tensor, route: ProjectionRoute) -> Tensor:
        """Return the presynaptic factor of plasticity: x sent through the routing before the weights."""
        return _apply_stages(self.before, x, route.before)

    def postsynaptic(self, y: Tensor, route: ProjectionRoute) -> Tensor:
        """Return the postsynaptic factor of plasticity: y sent back through the routing after the weights."""
        return _apply_adjoints(self.after, y, route.after)

    def plasticity(self, presynaptic: Tensor, postsynaptic: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        """Return dLoss/dW and dLoss/db by the local rule, summed over the batch, times `scale` (docs/theory.md).

        `presynaptic` and `postsynaptic` are the results of these two methods, for the source's activity and for the
        target's gain times activity. The result maps ``"weight"`` and, if there is one, ``"bias"`` to updates; it is
        empty for a copy.
        """
        if self.map is None:
            return {}
        assert self.weight is not None
        weight, bias = self.map.hebbian(presynaptic, postsynaptic, self.weight, self.bias, scale)
        return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}

    def _apply_map(self, x: Tensor) -> Tensor:
        if self.map is None:
            return x
        assert self.weight is not None
        return self.map.apply(x, self.weight, self.bias)

    def _save_to_state_dict(self, destination, prefix, keep_vars):  # type: ignore[no-untyped-def]
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # the tensor doesn't say whether feedback weights are learned; the state_dict's metadata do
        metadata = getattr(destination, "_metadata", {}).setdefault(prefix[:-1], {})
        metadata["feedback is learned"] = self.feedback_is_learned

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):  # type: ignore[no-untyped-def]
        # register saved feedback weights, as learned ones if the metadata are missing
        saved = state_dict.get(f"{prefix}feedback")
        if saved is not None and self.feedback is None and self.weight is not None:
            is_scale = saved.dim() == 0
            learned = not is_scale and local_metadata.get("feedback is learned", True)
            self.set_feedback(self.weight.new_empty(() if is_scale else self.weight.shape), learned=learned)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def set_feedback(self, feedback: Tensor, *, learned: bool) -> None:
        """Register feedback weights psi: as a Parameter if learned, else as a buffer."""
        del self.feedback
        self.feedback_is_learned = learned
        if learned:
            self.register_parameter("feedback", nn.Parameter(feedback))
        else:
            self.register_buffer("feedback", feedback)

    def __repr__(self) -> str:
        return f"{self.name}: {self.pipeline}"


def _apply_stages(stages: Iterable[Routing], x: Tensor, routes: Iterable[Route]) -> Tensor:
    for stage, route in zip(stages, routes, strict=True):
        x = stage.apply(x, route)
    return x


def _apply_adjoints(stages: Sequence[Routing], y: Tensor, routes: Sequence[Route]) -> Tensor:
    for stage, route in zip(reversed(stages), reversed(routes), strict=True):
        y = stage.adjoint(y, route)
    return y


def _describe(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"Linear({module.in_features}, {module.out_features})"
    if isinstance(module, nn.Conv2d):
        sizes = f"{module.in_channels}, {module.out_channels}, {_brief(module.kernel_size)}"
        defaults = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        options = {key: getattr(module, key) for key in defaults}
        changed = [f"{key}={_brief(value)}" for key, value in options.items() if value != defaults[key]]
        return f"Conv2d({', '.join([sizes, *changed])})"
    if isinstance(module, nn.Upsample):
        scale = module.scale_factor
        return f"Upsample({_brief(tuple(map(int, scale)) if isinstance(scale, tuple) else int(scale or 0))})"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return f"{type(module).__name__}({_brief(module.kernel_size)})"
    return type(module).__name__


def _brief(size: object) -> object:
    return size[0] if isinstance(size, tuple) and len(set(size)) == 1 else size
