"""Feedback weights of a projection, by kind (docs/theory.md, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.projection import Projection


def draw_feedback(projection: Projection, kind: str, generator: torch.Generator | None) -> None:
    """Draw a projection's feedback weights of a kind: "random", "learned", "kolen-pollack" or "sign"."""
    assert projection.weight is not None
    weight = projection.weight.detach()
    # the standard deviation of constant weights, such as a readout of zeros, is 0 or rounding error
    is_constant = (weight == weight.flatten()[0]).all()
    scale = torch.where(is_constant, weight[0].numel() ** -0.5, weight.std(correction=0))
    if kind == "sign":
        projection.set_feedback(scale, learned=False)
        return
    psi = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight) * scale
    projection.set_feedback(psi, learned=kind != "random")


def existing_feedback(projection: Projection, kind: str) -> Tensor:
    """Return a projection's feedback weights; refuse missing weights and weights of another kind."""
    psi, weight = projection.feedback, projection.weight
    assert weight is not None
    fits = psi is not None and (psi.dim() == 0) == (kind == "sign")
    if kind in ("learned", "kolen-pollack"):
        fits = fits and projection.feedback_is_learned
    if not fits:
        if psi is not None:
            raise ActrelaxError(
                f"projection {projection.name!r} has feedback weights of another kind: build a new network."
            )
        raise ActrelaxError(
            f"projection {projection.name!r} has no {kind} feedback weights: "
            "call network.add_feedback(assumptions, generator) before making the optimiser."
        )
    assert psi is not None
    return weight.sign() * psi if kind == "sign" else psi
