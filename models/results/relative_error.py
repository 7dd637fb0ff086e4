"""The relative error used throughout by tests, checks and analysis."""

from __future__ import annotations

from torch import Tensor

FLOOR = 1e-30
"""Smallest denominator, for references that are all zero (dead units)."""


def relative_error(value: Tensor, reference: Tensor, *, magnitude: Tensor | None = None) -> float:
    """Return max |value - reference| / max |reference|, for one population or parameter.

    `magnitude` replaces the reference in the denominator: pass the terms' magnitudes for a sum with cancellation. The
    result is nan or infinite for non-finite values, so that ``relative_error(...) < bound`` fails.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import torch
    >>> relative_error(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]))
    0.25
    """
    if value.shape != reference.shape:
        raise ValueError(f"can't compare shapes {tuple(value.shape)} and {tuple(reference.shape)}.")
    scale = (reference if magnitude is None else magnitude).detach()
    if reference.numel() == 0:
        return 0.0
    return float((value - reference).detach().abs().max() / scale.abs().max().clamp(min=FLOOR))
