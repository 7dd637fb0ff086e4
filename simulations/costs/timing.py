"""Time of a training step; several trainings take turns, so that disturbances affect all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch.utils.benchmark import Timer

from actrelax.simulations.data import Split
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.loop import learn
from actrelax.simulations.training.state import Training

WARM_UP = 1
"""Number of warm-up rounds, in which rules are traced, kernels chosen and memory allocated."""
TURN = 3
"""Number of measured steps per turn. The timer runs two more steps before them, which fill the caches."""


class Stepper:
    """Training that can be stepped endlessly."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self._batches = full_batches(training.batches)

    def step(self) -> None:
        """Learn from the next batch, as `loop.train` does."""
        x, y = next(self._batches)
        learn(self.training, x, y)


def full_batches(batches: Batches) -> Iterator[Split]:
    """Yield the batches of endless epochs, without smaller last batches."""
    for number in itertools.count(1):
        yield from (batch for batch in batches.epoch(number) if len(batch.labels) == batches.size)


def step_times(trainings: Sequence[Training], rounds: Iterable[int]) -> list[list[float]]:
    """Return the step times of each training in seconds, one per turn, including the device's work.

    Parameters
    ----------
    trainings : sequence of Training
        New trainings on one device; they are trained further.
    rounds : iterable of int
        Round numbers from 0; the first `WARM_UP` are not measured. Each training has one turn per round.
    """
    device, threads = trainings[0].batches.data.train.images.device, torch.get_num_threads()
    timers = [Timer("step()", globals={"step": Stepper(training).step}, num_threads=threads) for training in trainings]
    times: list[list[float]] = [[] for _ in timers]
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # timers wait for the current one
        for number in rounds:
            for timer, mine in zip(timers, times, strict=True):
                seconds = timer.timeit(TURN).mean
                if number >= WARM_UP:
                    mine.append(seconds)
    return times
