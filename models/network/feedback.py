"""Feedback weights of a projection, by kind (docs/theory.md, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.projection import Projection


def draw_feedback(projection: Projection, kind: str, generator: torch.Generator | None) -> None:
    """Draw a projection's feedback weights of a kind: "random", "learned", "kolen-pollack" or "sign"."""
    assert projection.weight is not None
    psi = drawn_feedback(projection.weight.detach(), kind, generator)
    projection.set_feedback(psi, learned=kind in LEARNED)


def drawn_feedback(weight: Tensor, kind: str, generator: torch.Generator | None) -> Tensor:
    """Return feedback weights of a kind for a weight; of "sign" the scale alone."""
    # the standard deviation of constant weights, such as a readout of zeros, is 0 or rounding error
    is_constant = (weight == weight.flatten()[0]).all()
    scale = torch.where(is_constant, weight[0].numel() ** -0.5, weight.std(correction=0))
    if kind == "sign":
        return scale
    return torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight) * scale


def existing_feedback(projection: Projection, kind: str) -> Tensor:
    """Return a projection's feedback weights; refuse missing weights and weights of another kind."""
    psi, weight = projection.feedback, projection.weight
    assert weight is not None
    checked = checked_feedback(projection.name, psi, kind, is_learned=projection.feedback_is_learned)
    return weight.sign() * checked if kind == "sign" else checked


def checked_feedback(projection: str, psi: Tensor | None, kind: str, *, is_learned: bool) -> Tensor:
    """Return feedback weights, or refuse missing ones and those of another kind."""
    if psi is None:
        raise ActrelaxError(
            f"projection {projection!r} has no {kind} feedback weights: "
            "call network.add_feedback(assumptions, generator) before making the optimiser."
        )
    if (psi.dim() == 0) != (kind == "sign") or (kind in LEARNED and not is_learned):
        raise ActrelaxError(f"projection {projection!r} has feedback weights of another kind: build a new network.")
    return psi


LEARNED = ("learned", "kolen-pollack")
"""Kinds of feedback weights that learn."""
