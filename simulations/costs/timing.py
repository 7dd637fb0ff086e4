"""How long a step of training takes: several trainings in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence

import torch

from actrelax.simulations.data import Split
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.loop import Training, learn

WARM_UP = 2
"""Rounds that don't count: rules are traced, kernels chosen, memory is fetched."""
TURN = 3
"""Steps in a turn that count. One before them fetches weights and code into the caches, where a training has them."""


class Stepper:
    """A training and its batches, one step after another, for ever."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.device = training.batches.data.train.images.device
        self._batches = full_batches(training.batches)

    def step(self) -> None:
        """Gather a batch and learn from it, as `loop.train` does."""
        x, y = next(self._batches)
        learn(self.training, self.training.rule, x, y)

    def timed(self) -> float:
        """Return the seconds of a step, the device's work included."""
        self.wait()
        begin = time.perf_counter()
        self.step()
        self.wait()
        return time.perf_counter() - begin

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def full_batches(batches: Batches) -> Iterator[Split]:
    """Yield epoch after epoch, but for a last batch that is smaller."""
    for number in itertools.count(1):
        yield from (batch for batch in batches.epoch(number) if len(batch.labels) == batches.size)


def step_times(trainings: Sequence[Training], rounds: Iterable[int]) -> list[list[float]]:
    """Return each training's times of a step in seconds.

    Parameters
    ----------
    trainings : sequence of Training
        At their beginning; they go on.
    rounds : iterable of int
        Their numbers from 0 up; the first `WARM_UP` don't count. In a round each training has a turn.
    """
    steppers = [Stepper(training) for training in trainings]
    times: list[list[float]] = [[] for _ in steppers]
    for number in rounds:
        for stepper, mine in zip(steppers, times, strict=True):
            stepper.step()
            turn = [stepper.timed() for _ in range(TURN)]
            if number >= WARM_UP:
                mine += turn
    return times
