"""Accuracy: the share of images that a network classifies correctly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from actrelax.models.engines import Agree, Settle, settled_pass
from actrelax.models.network import Network
from actrelax.simulations.data import Split
from actrelax.simulations.training.processes import ALONE, Processes

Convert = Callable[[Tensor], Tensor]
AT_ONCE = 1000
"""Number of images of a batch, which processes share."""


@torch.no_grad()
def outputs(
    network: Network, how: Settle, stimuli: Tensor, *, check_finite: bool = True, agree: Agree | None = None
) -> Tensor:
    """Return the outputs of a batch, (batch, ...), from settled rates if the network has cycles."""
    if network.is_recurrent:
        passed = settled_pass(network, stimuli, how, check_finite=check_finite, agree=agree)
        return passed.activities[network.output]
    found: Tensor = network(stimuli)
    return found


def is_right(answers: Tensor, labels: Tensor) -> Tensor:
    """Return whether the largest output of each image belongs to its label, (batch,); nan and inf count as wrong."""
    return (answers.argmax(1) == labels) & answers.isfinite().all(1)


@torch.no_grad()
def accuracy(respond: Convert, part: Split, preprocess: Convert | None = None, processes: Processes = ALONE) -> float:
    """Return the share of images whose largest output belongs to their label.

    Parameters
    ----------
    respond : callable
        Function of stimuli, (batch, ...), that returns outputs, (batch, classes), such as a network.
    part : Split
    preprocess : callable, optional
        Function of stored images that returns stimuli for `respond`.
    processes : Processes, optional
        Processes that share the images.
    """
    correct = torch.zeros((), dtype=torch.int64, device=part.labels.device)
    for start in range(0, len(part.labels), AT_ONCE):
        batch = Split(*(x[start : start + AT_ONCE] for x in part))
        mine = processes.share(len(batch.labels))
        chosen = Split(*(x[mine] for x in batch))
        images = chosen.images if len(chosen.labels) else batch.images[:1]  # to settle along with others
        answers = respond(images if preprocess is None else preprocess(images))[: len(chosen.labels)]
        correct += is_right(answers, chosen.labels).sum()
    right: int = sum(processes.gathered(int(correct)))
    return right / len(part.labels)
