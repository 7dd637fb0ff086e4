"""Angles between AR's weight updates and backprop's, and between feedback and forward weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from actrelax.models._names import look_up
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.learning import BackwardOptions, parameter_gradients
from actrelax.models.network import CapturedNetwork, Network, effective_feedback
from actrelax.models.problem import Loss, LossFunction


@torch.no_grad()
def update_angles(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    assumptions: str | Assumptions = "ar",
    options: BackwardOptions | None = None,
) -> dict[str, float]:
    """Return the angle between the update in each weight's `.grad` and backprop's gradient, in degrees.

    The angle between the flattened updates, as in the papers, for each projection of `aligned`; Kolen-Pollack's
    decay is subtracted first. Call it with the same arguments after `zero_grad` and `relax_backward`, and before the
    optimiser's step. nan if an update is zero, missing or not finite.
    """
    options, assumptions = options or BackwardOptions(), look_up("assumptions", assumptions, PRESETS)
    updates = options.updates
    exact = parameter_gradients(network, x, y, loss=loss, reduction=options.reduction, options=options)
    angles = {}
    for name, weight in aligned(network).items():
        ours = weight.grad if weight.grad is not None else torch.zeros_like(weight)
        ours = ours - (updates.decay or 0.0) * _decaying(network, weight, assumptions) * weight.detach()
        angles[name] = _angle(ours, exact[weight])
    return angles


def _decaying(network: Network, weight: nn.Parameter, assumptions: Assumptions) -> int:
    """Return how often Kolen-Pollack's decay of this weight is added to its gradient: by each projection that has it.

    In a captured network projections with tied weights have one psi, and decay once.
    """
    if isinstance(network, CapturedNetwork):
        named = dict(network.named_parameters())
        return any(
            network.decays(p, assumptions) and named[p.parameter] is weight for p in network.projections.values()
        )
    return sum(network.decays(p, assumptions) for p in network.projections.values() if p.weight is weight)


def _angle(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = (update.to("cpu", torch.float64) for update in (ours, theirs))  # some devices have no float64
    cosine = (ours * theirs).sum() / (ours.norm() * theirs.norm())
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))


class FeedbackAlignment(NamedTuple):
    """Comparison of a projection's separate feedback weights psi with its forward weights W.

    angle     angle between the flattened weights, in degrees; 90 for independent weights
    distance  Frobenius norm |W - psi|; constant if both learn by the same rule, without weight decay
    rank      effective rank of psi
    """

    angle: float
    distance: float
    rank: float


@torch.no_grad()
def feedback_alignment(network: Network) -> dict[str, FeedbackAlignment]:
    """Return the `FeedbackAlignment` of each projection with separate feedback weights; tied weights have one.

    Sign-concordant feedback counts as the weights that it stands for.
    """
    pairs: Mapping[str, tuple[Tensor | None, Tensor | None]]
    if isinstance(network, CapturedNetwork):
        named = dict(network.named_parameters())
        own = {p.psi: p.parameter for p in network.projections.values() if p.parameter}
        pairs = {psi: (named.get(parameter), network.feedback.find(psi)) for psi, parameter in own.items()}
        return _alignments(pairs)
    pairs = {name: (p.weight, p.feedback) for name, p in network.projections.items()}
    return _alignments(pairs)


def _alignments(pairs: Mapping[str, tuple[Tensor | None, Tensor | None]]) -> dict[str, FeedbackAlignment]:
    found = {}
    for name, (w, psi) in pairs.items():
        if w is not None and psi is not None:
            carrying = effective_feedback(w, psi)
            found[name] = FeedbackAlignment(_angle(w, carrying), float((w - carrying).norm()), effective_rank(carrying))
    return found


def effective_rank(weight: Tensor) -> float:
    """Return the effective rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007).

    A convolution's weight counts as a matrix (out, in x height x width). The rank lies between 1 and the smaller
    side of the matrix; it is 0 if all weights are 0.

    Examples
    --------
    >>> round(effective_rank(torch.eye(3)), 6), round(effective_rank(torch.ones(4, 5)), 6)
    (3.0, 1.0)
    """
    values = torch.linalg.svdvals(weight.detach().flatten(1).to("cpu", torch.float64))
    if values[0] == 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def aligned(network: Network) -> dict[str, nn.Parameter]:
    """Return projection -> weight for weights that learn; a shared weight is listed under its first projection."""
    first: dict[nn.Parameter, str] = {}
    of_module: dict[str, nn.Parameter] | None = None
    if isinstance(network, CapturedNetwork):
        of_module = dict(network.named_parameters())
    for name, projection in network.projections.items():
        # a captured projection names its weight; one that is computed from parameters has no name
        weight = projection.weight if of_module is None else of_module.get(str(projection.weight))
        if weight is not None and weight.requires_grad:
            first.setdefault(weight, name)
    return {name: weight for weight, name in first.items()}
