"""Accuracy: the share of images that a network classifies correctly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from actrelax.models.engines import Settle, settled_pass
from actrelax.models.network import Network
from actrelax.simulations.data import Split
from actrelax.simulations.training.processes import ALONE, Processes

Convert = Callable[[Tensor], Tensor]


@torch.no_grad()
def outputs(network: Network, how: Settle, stimuli: Tensor) -> Tensor:
    """Return the outputs of a batch, (batch, ...), from settled rates if the network has cycles."""
    if network.is_recurrent:
        return settled_pass(network, stimuli, how).activities[network.output]
    found: Tensor = network(stimuli)
    return found


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
    mine = range(len(part.labels))[processes.share(len(part.labels))]
    for start in mine[::1000]:
        chosen = slice(start, min(start + 1000, mine.stop))
        stimuli = part.images[chosen] if preprocess is None else preprocess(part.images[chosen])
        correct += (respond(stimuli).argmax(1) == part.labels[chosen]).sum()
    right: int = sum(processes.gathered(int(correct)))
    return right / len(part.labels)
