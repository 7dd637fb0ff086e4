"""The time of a training step: several trainings take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch.utils.benchmark import Timer

from actrelax.simulations.data import Split
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.loop import Training, learn

WARM_UP = 1
"""Rounds that don't count: rules are traced, kernels chosen, memory is fetched."""
TURN = 3
"""Steps in a turn that count. The timer takes two before them, which fetch weights and code into the caches."""


class Stepper:
    """A training and its batches, one step after another, for ever."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self._batches = full_batches(training.batches)

    def step(self) -> None:
        """Gather a batch and learn from it, as `loop.train` does."""
        x, y = next(self._batches)
        learn(self.training, x, y)


def full_batches(batches: Batches) -> Iterator[Split]:
    """Yield epoch after epoch, but for a last batch that is smaller."""
    for number in itertools.count(1):
        yield from (batch for batch in batches.epoch(number) if len(batch.labels) == batches.size)


def step_times(trainings: Sequence[Training], rounds: Iterable[int]) -> list[list[float]]:
    """Return each training's times of a step in seconds, one per turn, the device's work included.

    Parameters
    ----------
    trainings : sequence of Training
        At their beginning, on one device; they go on.
    rounds : iterable of int
        Their numbers from 0 up; the first `WARM_UP` don't count. In a round each training has a turn.
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
