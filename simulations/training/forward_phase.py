"""Options of the forward phase of networks with cycles, whose rates have to settle."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from actrelax.models.engines import Settle, Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import SETTLE
from actrelax.models.network import Network
from actrelax.simulations.training.options import POSITIVE, require


@dataclass(frozen=True)
class Settling:
    """Options of networks with cycles: how rates settle."""

    settle_steps: int | None = None
    """Networks with cycles: number of steps of the forward phase; with --settle-tolerance the largest number. Default:
    until the tolerance, at most 100."""
    settle_eta: float | None = None
    """Networks with cycles: step size of the forward phase, relative to tau. Default: 0.5."""
    settle_tolerance: float | None = None
    """Networks with cycles: residual |f(a) - r| at which the rates have settled, relative to the largest rate of the
    population. Default: 0.01, unless --settle-steps is given."""

    def check(self) -> None:
        """Raise an error for values out of range."""
        require(
            settle_steps=(self.settle_steps, 1, math.inf),
            settle_eta=(self.settle_eta, POSITIVE, 2),
            settle_tolerance=(self.settle_tolerance, POSITIVE, 0.999),
        )

    @property
    def given(self) -> list[str]:
        """The options that are given, as on the command line."""
        return [f"--{f.name.replace('_', '-')}" for f in fields(self) if getattr(self, f.name) is not None]

    def check_network(self, network: Network, name: str) -> None:
        """Raise an error if options are given for a network without cycles."""
        given = self.given
        if given and not network.is_recurrent:
            raise ActrelaxError(f"{given[0]} needs a network with cycles, but {name} has none: leave it out.")

    @property
    def settle(self) -> Settle:
        """The forward phase as an option of the models."""
        eta = SETTLE.eta if self.settle_eta is None else self.settle_eta
        if self.settle_steps is not None and self.settle_tolerance is None:
            return Settle(Steps(self.settle_steps, eta=eta))
        tolerance = (SETTLE.tolerance or 0.0) if self.settle_tolerance is None else self.settle_tolerance
        most = (SETTLE.number or 0) if self.settle_steps is None else self.settle_steps
        return Settle(Steps.until(tolerance, eta=eta, most=most))


@dataclass(frozen=True)
class ForwardPhase(Settling):
    """Options of networks with cycles: how rates settle, and whether samples learn that have not settled."""

    unsettled: Literal["keep", "drop"] | None = None
    """Networks with cycles: whether samples learn that have not settled in both phases. Default: keep."""
    unsettled_above: float | None = None
    """Networks with cycles: residual above which a sample counts as unsettled. Default: ten times the tolerance;
    for a phase of t time constants from zero at most 1 / t, unless the tolerance is larger."""
    sample_clip: float | None = None
    """Networks with cycles: bound on the norm of each sample's relaxed activities, relative to its loss gradient.
    Default: no bound."""

    def check(self) -> None:
        """Raise an error for values out of range."""
        super().check()
        require(
            unsettled_above=(self.unsettled_above, POSITIVE, math.inf),
            sample_clip=(self.sample_clip, POSITIVE, math.inf),
        )
