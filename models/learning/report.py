"""Whether the phases of a batch have settled, on a network with cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Phase = Literal["forward", "backward"]


@dataclass(frozen=True, eq=False)
class SettlingReport:
    """How far the rates and the relaxation of each sample are from their fixed points.

    The numbers stay on the device until they are printed or converted.

    Parameters
    ----------
    residual : mapping
        Phase, "forward" or "backward" -> (batch,): the largest difference between a unit's input and its activity,
        relative to the largest activity of its population in that sample. With the integrator "equilibrium", |b + A x -
        x| relative to |b|, for the input b and the feedback A of each cycle.
    above : mapping
        Phase -> residual above which a sample counts as unsettled.
    steps : mapping
        Phase -> number of steps taken. Where GMRES solves for the gradients, with "equilibrium" and in backprop, each
        of its products with the feedback of a cycle is a step: one pass through the weights, as in a relaxation.
    unsettled : {"keep", "drop"}
        Whether unsettled samples learn.

    Examples
    --------
    >>> residual = {"forward": torch.tensor([0.01, 0.02]), "backward": torch.tensor([0.01, 0.4])}
    >>> report = SettlingReport(residual, dict.fromkeys(residual, 0.1), {"forward": 12, "backward": 100})
    >>> report.settled["backward"]
    tensor([ True, False])
    >>> print(report)
    1 of 2 samples has not settled and learns; residual up to 0.02 after 12 forward and 0.4 after 100 \
backward steps
    """

    residual: Mapping[Phase, Tensor]
    above: Mapping[Phase, float]
    steps: Mapping[Phase, int]
    unsettled: Literal["keep", "drop"] = "keep"

    @property
    def settled(self) -> dict[Phase, Tensor]:
        """Phase -> whether each sample has settled, (batch,)."""
        return {phase: residual <= self.above[phase] for phase, residual in self.residual.items()}

    @property
    def in_both(self) -> Tensor:
        """Whether each sample has settled in both phases, (batch,)."""
        return torch.stack(list(self.settled.values())).all(0)

    @property
    def learning(self) -> Tensor:
        """Whether each sample learns, (batch,): all do unless unsettled ones are dropped."""
        settled = self.in_both
        return settled if self.unsettled == "drop" else torch.ones_like(settled)

    @property
    def count(self) -> Tensor:
        """The number of samples that have not settled in both phases, a zero-dimensional tensor on the device."""
        return (~self.in_both).sum()

    def __str__(self) -> str:
        count, batch = int(self.count), len(self.in_both)
        one, many = {"keep": ("learns", "learn"), "drop": ("doesn't learn", "don't learn")}[self.unsettled]
        if count == 0:
            said = "the sample has settled" if batch == 1 else f"all {batch} samples have settled"
        else:
            said = f"{count} of {batch} samples " + (
                f"has not settled and {one}" if count == 1 else f"have not settled and {many}"
            )
        phases = " and ".join(
            f"{float(residual.amax()) if batch else 0:.2g} after {self.steps[phase]} {phase}"
            for phase, residual in self.residual.items()
        )
        return f"{said}; residual up to {phases} steps"
