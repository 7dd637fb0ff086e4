"""Online learning inside Brian2, kept in a run's folder: one stimulus after another, in any number of sittings."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from actrelax.analysis.runs import RunFolder
from actrelax.models.learning.brian2 import Learner
from actrelax.simulations.data import Split, random_stream
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.signals import Stopped, stopping_cleanly


@dataclass
class Online:
    """A learner, what it learns from, and how far it is.

    learner      holds the network
    train, test  stimuli (n, features) and labels
    seed         fixes the order of the stimuli, a new one each pass
    folder       for checkpoint.pt and metrics.csv
    learned      stimuli so far
    seconds      of learning and testing so far, over all sittings
    metrics      a row per look
    """

    learner: Learner
    train: Split
    test: Split
    seed: int
    folder: RunFolder
    learned: int = 0
    seconds: float = 0.0
    metrics: list[dict[str, float]] = field(default_factory=list)

    def run(self, passes: int, every: int, advice: str) -> None:
        """Go on until so many passes are done; test and save every so many stimuli, whatever the sitting.

        Parameters
        ----------
        passes, every : int
        advice : str
            How to go on, for the message after Ctrl-C or SIGTERM.

        Raises
        ------
        Stopped
            After a signal, with a checkpoint.
        """
        total = passes * len(self.train.labels)
        with stopping_cleanly() as stop:
            while self.learned < total:
                self._sit(min(total, (self.learned // every + 1) * every))
                if stop.signal_number and self.learned < total:
                    message = f"stopped after {self.learned} of {total} stimuli: {advice}"
                    raise Stopped(message, stop.signal_number)

    def load(self) -> None:
        """Take up the folder's last checkpoint, if there is one."""
        state = self.folder.checkpoint()
        if state is None:
            return
        with self.folder.fitting():
            self.learner.network.load_state_dict(state["network"])
            self.learner.activities = state["activities"]
            self.learned, self.seconds, self.metrics = state["learned"], state["seconds"], state["metrics"]

    def _sit(self, until: int) -> None:
        begun = time.perf_counter()
        chosen = self._order(self.learned, until)
        labels = self.train.labels[chosen]
        output = self.learner.learn(self.train.images[chosen], labels)
        tested = accuracy(self.learner.respond, self.test)
        self.learned = until
        row = {
            "epoch": until / len(self.train.labels),
            "stimuli": until,
            "train_accuracy": _share(output, labels),
            "test_accuracy": tested,
        }
        self.metrics.append(row)
        self.seconds += time.perf_counter() - begun
        state = {
            "network": self.learner.network.state_dict(),
            "activities": self.learner.activities,
            "learned": self.learned,
            "seconds": self.seconds,
            "metrics": self.metrics,
        }
        self.folder.write_tables({"metrics": self.metrics})
        self.folder.write_checkpoint(state)
        print(
            f"{until:6} stimuli: {row['train_accuracy']:6.1%} of the last {len(chosen)} before learning them, "
            f"{tested:6.1%} of the test digits; {self.seconds:.0f} s",
            file=sys.stderr,
        )

    def _order(self, first: int, last: int) -> Tensor:
        """Indices of the stimuli from number `first` to before number `last`."""
        n = len(self.train.labels)
        passes = [
            torch.randperm(n, generator=random_stream(self.seed, "epoch", number + 1))
            for number in range(first // n, -(-last // n))
        ]
        start = first // n * n
        return torch.cat(passes)[first - start : last - start]


def _share(output: Tensor, labels: Tensor) -> float:
    return int((output.argmax(1) == labels).sum()) / len(labels)
