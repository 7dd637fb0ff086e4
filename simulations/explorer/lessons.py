"""Trainings side by side that report after every epoch, and can be stopped within a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import digits
from actrelax.simulations.explorer.setting import Lesson
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.callbacks import Alignment, DivergenceCheck
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.loop import Callback, train
from actrelax.simulations.training.state import Training

ALIGNMENT_EVERY = 5
"""Batches between two measurements of angles."""


class Progress(NamedTuple):
    """A training after an epoch.

    epoch     0 for the untrained network
    accuracy  on the test images, in percent
    angle     between the rule's updates and backprop's, in degrees, a mean over projections and the epoch's batches;
              None for backprop itself and before the first epoch
    """

    epoch: int
    accuracy: float
    angle: float | None


class _StoppedError(Exception):
    """Somebody asked to stop."""


class _Watch(Callback):
    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def on_batch(self, training: Training) -> None:
        if self.stop.is_set():
            raise _StoppedError


def learn(
    lessons: Mapping[str, Lesson], report: Callable[[str, Progress], None], stop: threading.Event | None = None
) -> bool:
    """Train by each lesson in turn, an epoch at a time, and report after each; return whether all came to their end.

    Parameters
    ----------
    lessons : mapping
        Name -> what to train.
    report : callable
        (name, progress), called before the first epoch and after every one.
    stop : threading.Event, optional
        Ends the trainings after the batch in which it is set.

    Raises
    ------
    ActrelaxError
        For a lesson that can't be given, before any begins; if a training diverges.
    """
    stop, data = stop or threading.Event(), digits()
    begun: dict[str, tuple[Training, list[Callback]]] = {}
    for name, lesson in lessons.items():
        if not lesson.network.startswith("digits-"):
            raise ActrelaxError(f"networks for the digits learn here, got {lesson.network!r}: use actrelax train.")
        experiment = lesson.experiment()
        parts = assemble(experiment, Execution(compile="no"), data=data)
        callbacks: list[Callback] = [DivergenceCheck(100), _Watch(stop)]
        if Execution(measure_alignment=1).measuring(experiment).measure_alignment:
            knobs = experiment.relaxation.knobs
            callbacks.append(Alignment(ALIGNMENT_EVERY, parts.loss, parts.options, knobs))
        begun[name] = parts.training, callbacks
    last = {name: lesson.epochs for name, lesson in lessons.items()}
    try:
        for epoch in range(max(last.values()) + 1):
            for name, (training, callbacks) in begun.items():
                if epoch <= last[name]:
                    training.epochs = epoch
                    train(training, callbacks)
                    report(name, _progress(training))
    except _StoppedError:
        return False
    return True


def _progress(training: Training) -> Progress:
    row = training.tables["metrics"][-1]
    angle = row.get("angle mean")
    known = angle is not None and angle == angle
    return Progress(int(row["epoch"]), 100 * row["test_accuracy"], angle if known else None)
