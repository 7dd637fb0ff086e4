"""The project's one norm for "these two agree": used by tests, by checks and by analysis."""

from __future__ import annotations

from torch import Tensor

FLOOR = 1e-30
"""A population whose reference is everywhere smaller is silent (dead units): its differences count against this."""


def relative_error(value: Tensor, reference: Tensor, *, magnitude: Tensor | None = None, floor: float = FLOOR) -> float:
    """max |value - reference| / max |reference|: how far two results of one population or parameter are apart.

    Parameters
    ----------
    value, reference : torch.Tensor
        Of one shape.
    magnitude : torch.Tensor, optional
        For a reference that is a sum of cancelling terms: the terms, whose largest magnitude takes the place of
        the reference's.
    floor : float
        Least value of the denominator.

    Returns
    -------
    float
        Not a number or infinite where either is; so that ``relative_error(...) < bound`` fails then.

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
    return float((value - reference).detach().abs().max() / scale.abs().max().clamp(min=floor))
