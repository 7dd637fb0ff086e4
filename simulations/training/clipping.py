"""The closed form for relaxations with a clip, as long as the clip is far from being reached.

A clip makes a relaxation nonlinear, and the closed form knows none. But the papers' clip of 50 is a safety net: the
largest |-x + feedback| of their CNN is about 1. So a run learns by the closed form, steps one batch now and then to see
how large it really gets, and goes over to stepping, for good, once that comes near the clip.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm import tqdm

from actrelax.models.network import Network
from actrelax.models.updates import Backward, Rule

MARGIN = 4.0
"""A largest |-x + feedback| of more than the clip over this is too near."""


@dataclass
class Lookout:
    """Looks how near relaxations come to their clip.

    largest   (network, x, y) -> the largest |-x + feedback| on the way, of all processes
    clip      what it is held against
    every     batches between two looks
    epoch     batches an epoch: its first one is always looked at
    batches   how many have been learned
    stepping  whether the clip came too near, so that relaxations are to be stepped
    seen      the largest |-x + feedback| of all batches that were looked at
    told      whether the user knows: batches that are replayed say nothing again
    """

    largest: Callable[[Network, Tensor, Tensor], float]
    clip: float
    every: int
    epoch: int
    batches: int = 0
    stepping: bool = False
    seen: float | None = None
    told: bool = False

    def pass_by(self, network: Network, x: Tensor, y: Tensor) -> None:
        """Count a batch, and look at it if it is time to: only then the device is waited for."""
        if not self.stepping and self.batches % self.epoch % self.every == 0:
            found = self.largest(network, x, y)
            self.seen = found if self.seen is None else max(self.seen, found)
            self.stepping = not found < self.clip / MARGIN  # nan is too near
            if self.stepping and not self.told:
                self.told = True
                tqdm.write(
                    f"|-x + feedback| reached {found:.3g} in batch {self.batches + 1}, the clip is "
                    f"{self.clip:g}: from here on relaxations are stepped.",
                    file=sys.stderr,
                )
        self.batches += 1

    def state_dict(self) -> dict[str, Any]:
        """What changes."""
        return {"batches": self.batches, "stepping": self.stepping, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.batches, self.stepping, self.seen = state["batches"], state["stepping"], state["seen"]


def unclipped(lookout: Lookout, free: Rule, clipped: Rule, looks: bool = True) -> Rule:
    """Return the rule that leaves the clip out while it has no effect.

    Parameters
    ----------
    lookout : Lookout
    free : callable
        (network, x, y) -> Backward, by the closed form without the clip.
    clipped : callable
        The same stepped, with the clip.
    looks : bool, default True
        Whether batches pass by the lookout, or only what it said before counts.
    """

    def rule(network: Network, x: Tensor, y: Tensor) -> Backward:
        if looks:
            lookout.pass_by(network, x, y)
        return (clipped if lookout.stepping else free)(network, x, y)

    return rule
