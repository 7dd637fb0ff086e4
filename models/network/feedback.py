"""Feedback weights: those of a network, and those of a projection, by kind (docs/theory.md, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from actrelax.models._names import look_up
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.layers import Conv2d
from actrelax.models.network.projection import Projection


class FeedbackWeights:
    """The feedback weights of a network, by its projections' knobs: a base of `Network`, which has the projections."""

    input: str
    _kinds: dict[str, str]

    @property
    def projections(self) -> dict[str, Projection]:
        """Name -> projection."""
        raise NotImplementedError

    def knobs(self, projection: Projection, assumptions: Assumptions) -> Knobs:
        """Return the knobs of a projection: those of its name, else of its kind."""
        return assumptions.of(projection.name, self.kind(projection))

    def kind(self, projection: Projection) -> str:
        """Return the kind of a projection, "dense" or "conv"; a copy is "conv" if its target is spatial."""
        return self._kinds[projection.name]

    def add_feedback(self, assumptions: str | Assumptions, generator: GeneratorLike) -> None:
        """Create the feedback weights that the assumptions need; call it before making the optimiser.

        Learned and Kolen-Pollack weights are Parameters, random ones a buffer; both are normal with the current
        standard deviation of W, or 1/sqrt(fan-in) if W is constant, such as a readout of zeros. Sign-concordant
        feedback stores this standard deviation as its scale. In the state_dict they are ``NAME.feedback``. Projections
        from the input carry no feedback and get none.

        Parameters
        ----------
        assumptions : str or Assumptions
        generator : torch.Generator, numpy.random.Generator or int
            Generator on the CPU, or a seed. Use a separate generator for W, so that W is the same with and without
            feedback weights.

        Raises
        ------
        ActrelaxError
            If a projection already has feedback weights, or the assumptions name an unknown one.
        """
        assumptions, drawing = look_up("assumptions", assumptions, PRESETS), as_generator(generator)
        assumptions.check_names(self.projections)
        asked = [p for p in self.projections.values() if self.uses_psi(p, assumptions)]
        for p in asked:
            if p.feedback is not None:
                raise ActrelaxError(f"projection {p.name!r} already has feedback weights: build a new network.")
        for p in asked:
            draw_feedback(p, self.knobs(p, assumptions).feedback, drawing)

    def lacks_feedback(self, assumptions: Assumptions) -> bool:
        """Return whether any projection needs feedback weights that do not exist yet."""
        return any(p.feedback is None and self.uses_psi(p, assumptions) for p in self.projections.values())

    def carries_feedback(self, projection: Projection) -> bool:
        """Return whether the projection has feedback weights: it has weights and is not from the input."""
        return projection.map is not None and projection.source != self.input

    def uses_psi(self, projection: Projection, assumptions: Assumptions) -> bool:
        """Return whether psi carries a projection's feedback under the assumptions, rather than W."""
        return self.carries_feedback(projection) and self.knobs(projection, assumptions).feedback != "transpose"

    def decays(self, projection: Projection, assumptions: Assumptions) -> bool:
        """Return whether the projection's W and psi decay together by Kolen and Pollack's rule."""
        return self.carries_feedback(projection) and self.knobs(projection, assumptions).feedback == "kolen-pollack"

    def feedback_weight(self, projection: Projection, assumptions: Assumptions) -> Tensor | None:
        """Return psi, the weights that carry a projection's feedback under the assumptions; None for a copy.

        Raises an ActrelaxError if they are missing; `add_feedback` creates them.
        """
        if not self.uses_psi(projection, assumptions):
            return projection.weight
        return existing_feedback(projection, self.knobs(projection, assumptions).feedback)


def kind_of(projection: Projection, shape: Sequence[int]) -> str:
    """Return the kind of a projection to a population of this shape: "dense" or "conv"."""
    if projection.map is None:
        return "conv" if len(shape) > 1 else "dense"
    return "conv" if isinstance(projection.map, Conv2d) else "dense"


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
    return effective_feedback(weight, checked)


def effective_feedback(weight: Tensor, psi: Tensor) -> Tensor:
    """Return the weights that carry feedback: psi, or W's signs times psi where it is a scale alone ("sign")."""
    return weight.sign() * psi if psi.dim() == 0 else psi


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
