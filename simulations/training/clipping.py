"""The closed form for relaxations with a clip, as long as the clip is not reached.

A clip makes a relaxation nonlinear, and the closed form knows none. But the papers' clip of 50 is a safety net: the
largest |-x + feedback| of their CNN is about 1 where derivatives are kept. So a run looks now and then at what brackets
can come to in a batch (`brackets.bracket_bound`, a few passes of feedback); while that is near the clip it looks at
every batch, and steps those in which the clip may have an effect.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm import tqdm

from actrelax.models.learning import Backward
from actrelax.models.learning.gradients import Rule
from actrelax.models.network import Network

MARGIN = 4.0
"""A bound of more than the clip over this is near: batches that are not looked at may differ by that much."""

Bound = Callable[[Network, Tensor, Tensor], float]


@dataclass
class Lookout:
    """Looks how near relaxations come to their clip.

    bound              (network, x, y) -> what |-x + feedback| does not exceed, in all processes
    clip               what it is held against
    every              batches between two looks
    batches_per_epoch  an epoch's first batch is always looked at
    batches            how many have been learned
    near               whether the last look found the clip near, so that every batch is looked at
    largest            bound of all batches that were looked at
    told               whether the user knows: batches that are replayed say nothing again
    """

    bound: Bound
    clip: float
    every: int
    batches_per_epoch: int
    batches: int = 0
    near: bool = False
    largest: float | None = None
    told: bool = False

    def may_clip(self, network: Network, x: Tensor, y: Tensor) -> bool:
        """Count a batch, and say whether the clip may have an effect; only to look at it, the device is waited for."""
        may = False
        if self.near or self.batches % self.batches_per_epoch % self.every == 0:
            found = self.bound(network, x, y)
            self.largest = found if self.largest is None else max(self.largest, found)
            self.near = not found < self.clip / MARGIN  # nan is too near
            may = not found <= self.clip
            if self.near and not self.told:
                self.told = True
                tqdm.write(
                    f"|-x + feedback| may come to {found:.3g} in batch {self.batches + 1}, the clip is {self.clip:g}: "
                    "batches are looked at one by one, and stepped if they may reach it.",
                    file=sys.stderr,
                )
        self.batches += 1
        return may

    def state_dict(self) -> dict[str, Any]:
        """What changes."""
        return {"batches": self.batches, "near": self.near, "seen": self.largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.batches, self.near, self.largest = state["batches"], state["near"], state["seen"]


def unclipped(may_clip: Callable[[Network, Tensor, Tensor], bool], free: Rule, clipped: Rule) -> Rule:
    """Return the rule that leaves the clip out of batches in which it has no effect.

    Parameters
    ----------
    may_clip : callable
        (network, x, y) -> whether it may have one.
    free : callable
        (network, x, y) -> Backward, by the closed form without the clip.
    clipped : callable
        The same stepped, with the clip.
    """

    def rule(network: Network, x: Tensor, y: Tensor) -> Backward:
        return (clipped if may_clip(network, x, y) else free)(network, x, y)

    return rule
