"""Checks of stimuli."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError


def check_tensor(x: object) -> None:
    """Refuse stimuli that are not a tensor."""
    if not isinstance(x, Tensor):
        raise ActrelaxError(f"stimuli must be a torch.Tensor, got {type(x).__name__}: use torch.as_tensor.")


def check_batch(x: Tensor) -> None:
    """Refuse stimuli of any shape that are not a tensor, or without a sample."""
    check_tensor(x)
    if x.dim() == 0 or len(x) == 0:
        check_stimuli(x, x.shape[1:], [])


def check_stimuli(x: Tensor, shape: Sequence[int], weights: Sequence[Tensor]) -> None:
    """Refuse stimuli of the wrong shape, and stimuli and weights that differ in dtype or device."""
    check_tensor(x)
    if tuple(x.shape[1:]) != tuple(shape) or x.dim() == 0:
        sizes = ", ".join(map(str, shape))
        raise ActrelaxError(f"the network takes (batch, {sizes}), got {tuple(x.shape)}.")
    if len(x) == 0:
        raise ActrelaxError(f"a batch needs at least one sample, got stimuli of shape {tuple(x.shape)}: skip it.")
    places = dict.fromkeys((w.dtype, w.device) for w in weights)
    if len(places) > 1:
        listed = " and ".join(f"{dtype} on {device}" for dtype, device in places)
        raise ActrelaxError(
            f"the network's weights, feedback weights included, are {listed}: bring them together with network.to()."
        )
    for dtype, device in places:
        if x.device != device or not (x.dtype == dtype or torch.is_autocast_enabled(x.device.type)):
            raise ActrelaxError(
                f"the network's weights are {dtype} on {device}, got stimuli of {x.dtype} on {x.device}: "
                "bring them together with .to()."
            )
