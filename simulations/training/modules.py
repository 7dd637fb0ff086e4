"""PyTorch modules in training: training and evaluation mode, their random numbers, buffers, and mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from actrelax.models.learning import Backward, Rule
from actrelax.models.network import CapturedNetwork, Network
from actrelax.simulations.data import random_stream


def is_module(network: nn.Module) -> bool:
    """Return whether a network is a captured PyTorch module, which has modes, buffers and random numbers."""
    return isinstance(network, CapturedNetwork)


def kinds(network: Network) -> dict[nn.Parameter, str]:
    """Return parameter -> kind of its projection, by which updates have factors; "phi" for a piece's own."""
    if not isinstance(network, CapturedNetwork):
        found = {w: network.kind(p) for p in network.projections.values() for w in (p.weight, p.bias)}
        return {w: kind for w, kind in found.items() if w is not None}
    named = {name: p.kind for p in network.projections.values() for name in (p.weight, p.bias, f"{p.psi}.feedback")}
    return {w: named.get(name, "phi") for name, w in network.named_parameters()}


def has_feedback(network: Network) -> bool:
    """Return whether a network has feedback weights of its own."""
    if isinstance(network, CapturedNetwork):
        return not network.feedback.is_empty
    return any(p.feedback is not None for p in network.projections.values())


def has_batch_norm(network: nn.Module) -> bool:
    """Return whether a network has a BatchNorm that uses the statistics of the batch in training."""
    parts = network.module.modules() if isinstance(network, CapturedNetwork) else ()
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a block; each of its modules is in its own mode again afterwards."""
    own = network.module if isinstance(network, CapturedNetwork) else network  # which is not among the network's
    modes = {module: module.training for module in (network, *own.modules())}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def draw_anew(seed: int, done: int, rank: int) -> None:
    """Let torch's generators draw what a captured network draws in the batch after `done` batches."""
    torch.manual_seed(random_stream(seed, "dropout", done, rank).initial_seed())


def with_own_stream(rule: Rule, seed: int, rank: int, done: Callable[[], int]) -> Rule:
    """Return the rule with random numbers, those of dropout, that follow from the seed and the batch.

    So a resumed run draws what an uninterrupted one does, and AR what backprop does. `rank` is the process's: each
    has its own share of a batch. `done` returns the number of batches learned so far.
    """

    def drawing(network: Network, x: Tensor, y: Tensor) -> Backward:
        draw_anew(seed, done(), rank)
        return rule(network, x, y)

    return drawing


def autocast(rule: Rule) -> Rule:
    """Return the rule with its forward pass in bfloat16, as torch.autocast chooses; weights stay as they are."""

    def casting(network: Network, x: Tensor, y: Tensor) -> Backward:
        with torch.autocast(x.device.type, torch.bfloat16):
            return rule(network, x, y)

    return casting
