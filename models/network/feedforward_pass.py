"""The feedforward pass of a batch, and its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import Activation
from actrelax.models.network.projection import Projection, ProjectionRoute


@dataclass(frozen=True)
class FeedforwardPass:
    """The results of the feedforward pass of one batch.

    drives      population -> abar, (batch, *population.shape), except the input; possibly only those that gains need
    activities  population -> xbar = f(abar), including the input
    routes      projection -> the batch's route through its pooling
    responses   population -> f(abar), where the activity differs: rates that have not settled yet
    steps       number of steps in which the rates of cycles have settled; None without cycles
    reached     whether they have reached the tolerance of the steps; None without a tolerance
    """

    drives: Mapping[str, Tensor]
    activities: Mapping[str, Tensor]
    routes: Mapping[str, ProjectionRoute]
    responses: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    steps: int | None = field(default=None, kw_only=True)
    reached: bool | None = field(default=None, kw_only=True)

    def activity(self, population: str) -> Tensor:
        """Return xbar of a population."""
        return self.activities[population]

    def response(self, population: str) -> Tensor:
        """Return f(abar), from which some activation functions compute their gain."""
        return self.responses.get(population, self.activities[population])

    def of_samples(self, chosen: slice) -> FeedforwardPass:
        """Return the pass of some samples of the batch; its tensors are views."""
        drives, activities, responses = (
            {name: x[chosen] for name, x in named.items()} for named in (self.drives, self.activities, self.responses)
        )
        routes = {name: route.of_samples(chosen) for name, route in self.routes.items()}
        return FeedforwardPass(drives, activities, routes, responses=responses)

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in the order that `with_tensors` expects."""
        winners = [route.winners for each in self.routes.values() for route in (*each.before, *each.after)]
        named = [*self.drives.values(), *self.activities.values(), *self.responses.values()]
        return [*named, *(x for x in winners if x is not None)]

    def with_tensors(self, tensors: Iterable[Tensor]) -> FeedforwardPass:
        """Return a copy of the pass that holds these tensors, in the order of `tensors`."""
        given = iter(tensors)
        drives = {name: next(given) for name in self.drives}
        activities = {name: next(given) for name in self.activities}
        responses = {name: next(given) for name in self.responses}
        routes = {name: r.with_winners(given) for name, r in self.routes.items()}
        return replace(self, drives=drives, activities=activities, routes=routes, responses=responses)


def pass_forward(
    x: Tensor,
    order: Sequence[str],
    incoming: Mapping[str, Sequence[Projection]],
    activations: Mapping[str, Activation],
    *,
    keep_drives: bool = False,
) -> FeedforwardPass:
    """Pass a batch x through the populations in `order`, the first of which is the input.

    Keeps a drive only if the gain can't be computed from the activity, or all drives with `keep_drives`.
    """
    drives: dict[str, Tensor] = {}
    activities = {order[0]: x}
    routes: dict[str, ProjectionRoute] = {}
    for name in order[1:]:
        parts = {}
        for p in incoming[name]:
            parts[p.name], routes[p.name] = p.find(activities[p.source])
        check_shapes(name, parts)
        drive = sum_in_order(list(parts.values()))
        activities[name] = activations[name](drive)
        if keep_drives or activations[name].needs_drive:
            drives[name] = drive
    return FeedforwardPass(drives, activities, routes)


def check_shapes(population: str, drives: Mapping[str, Tensor]) -> None:
    """Refuse drives of one population, projection -> (batch, ...), that differ in shape."""
    shapes = {key: tuple(drive.shape[1:]) for key, drive in drives.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{key!r} {shape}" for key, shape in shapes.items())
        raise ActrelaxError(f"drives of population {population!r} differ in shape: {listed}.")


def sum_in_order(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of one or more tensors, from the first to the last."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
