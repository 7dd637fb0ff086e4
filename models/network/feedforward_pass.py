"""The results of a feedforward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from actrelax.models.network.projection import ProjectionRoute


@dataclass(frozen=True)
class FeedforwardPass:
    """The results of the feedforward pass of one batch.

    drives      population -> abar, (batch, *population.shape), without the input; or only those that gains need
    activities  population -> xbar = f(abar), including the input
    routes      projection -> the batch's route through its pooling
    """

    drives: Mapping[str, Tensor]
    activities: Mapping[str, Tensor]
    routes: Mapping[str, ProjectionRoute]

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in the order that `with_tensors` expects."""
        winners = [route.winners for each in self.routes.values() for route in (*each.before, *each.after)]
        return [*self.drives.values(), *self.activities.values(), *(x for x in winners if x is not None)]

    def with_tensors(self, tensors: Iterable[Tensor]) -> FeedforwardPass:
        """Return the same pass with other tensors in place of its own."""
        given = iter(tensors)
        drives = {name: next(given) for name in self.drives}
        activities = {name: next(given) for name in self.activities}
        return FeedforwardPass(drives, activities, {name: r.with_winners(given) for name, r in self.routes.items()})
