"""The closed form under a clip: only batches that may reach the clip are stepped.

A clip makes a relaxation nonlinear, so that the closed form does not apply. But while no neuron reaches it, it has no
effect: the papers' clip is 50, and |-x + feedback| in their CNN is about 1 where derivatives are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm import tqdm

from actrelax.models.learning import Backward, Rule
from actrelax.models.network import Network

EVERY = 1000
"""Batches between two checks in an epoch, while the clip is far; a check waits for the device."""

MARGIN = 4.0
"""The clip is near if the bound exceeds clip / MARGIN: batches in between are assumed to differ by less than that."""


@dataclass
class StepNearClip:
    """A rule that checks batches now and then, each one while the clip is near, and steps those that may reach it.

    bound    (network, x, y) -> a bound on |-x + feedback|, the same in all processes
    clip     the bound is compared with
    free     the rule without the clip, by the closed form
    clipped  the rule with the clip, by steps
    place    () -> the batch's number in its epoch, from 0: the first is always checked
    near     whether the last check found the clip near
    largest  the largest bound that a check has found
    told     whether the user knows
    """

    bound: Callable[[Network, Tensor, Tensor], float]
    clip: float
    free: Rule
    clipped: Rule
    place: Callable[[], int]
    near: bool = False
    largest: float | None = None
    told: bool = False

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Backward:
        """Learn from a batch."""
        may_reach = (self.near or self.place() % EVERY == 0) and self._check(network, x, y)
        return (self.clipped if may_reach else self.free)(network, x, y)

    def _check(self, network: Network, x: Tensor, y: Tensor) -> bool:
        bound = self.bound(network, x, y)
        self.largest = bound if self.largest is None else max(self.largest, bound)
        self.near = not bound < self.clip / MARGIN  # nan is near, too
        if self.near and not self.told:
            self.told = True
            tqdm.write(
                f"|-x + feedback| may reach {bound:.3g}, and the clip is {self.clip:g}: from here on every batch is "
                "checked, and stepped if it may reach the clip.",
                file=sys.stderr,
            )
        return not bound <= self.clip

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know to check and step the same batches."""
        return {"near": self.near, "largest": self.largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.near, self.largest = state["near"], state["largest"]
