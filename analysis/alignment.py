"""How far AR's weight updates point away from backprop's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from actrelax.models.backprop import parameter_gradients
from actrelax.models.losses import Loss, LossFunction
from actrelax.models.trajectory import Trajectory
from actrelax.models.updates import Updates, local_updates


@torch.no_grad()
def update_angles(
    trajectory: Trajectory, x: Tensor, y: Tensor, *, loss: str | Loss | LossFunction, updates: Updates
) -> dict[str, float]:
    """Return the angle between a relaxation's update of each weight and backprop's gradient, in degrees.

    The papers' measure: arccos of the cosine of the flattened updates, a projection each. Kolen-Pollack's decay is no
    part of it. Call it before the optimiser moves the weights.

    Parameters
    ----------
    trajectory : Trajectory
        As `relax_backward` returns it.
    x, y : torch.Tensor
        The batch it was made from.
    loss, updates
        As for `relax_backward`.

    Returns
    -------
    dict
        Projection -> angle, those with weights; nan where either update is zero or not finite.
    """
    problem = trajectory.problem
    network = problem.network
    state = {name: trajectory.final[name] for name in network.hidden}
    exact = parameter_gradients(network, x, y, loss=loss)
    angles = {}
    for name, projection in network.projections.items():
        if projection.weight is None or not projection.weight.requires_grad:
            continue
        local = dict(local_updates(problem, projection, state, replace(updates, decay=None)))
        ours, theirs = local[projection.weight].double(), exact[projection.weight].double()
        theirs = updates.applied(theirs, len(x), network.kind(projection))
        cosine = (ours * theirs).sum() / (ours.norm() * theirs.norm())
        angles[name] = float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))
    return angles
