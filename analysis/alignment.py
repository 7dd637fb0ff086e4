"""How far AR's weight updates point away from backprop's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from actrelax.models.backprop import parameter_gradients
from actrelax.models.losses import Loss, LossFunction
from actrelax.models.network import Network
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
        Projection -> angle, those of `aligned`; nan where either update is zero or not finite.
    """
    problem, undecayed = trajectory.problem, replace(updates, decay=None)
    network = problem.network
    state = {name: trajectory.final[name] for name in network.hidden}
    local: dict[nn.Parameter, Tensor] = {}
    for projection in network.projections.values():
        for parameter, update in local_updates(problem, projection, state, undecayed):
            local[parameter] = local[parameter] + update if parameter in local else update
    exact = parameter_gradients(network, x, y, loss=loss)
    angles = {}
    for name, weight in aligned(network).items():
        kind = network.kind(network.projections[name])
        # in float64 on the CPU: some devices have none
        ours = local[weight].to("cpu", torch.float64)
        theirs = updates.applied(exact[weight], len(x), kind).to("cpu", torch.float64)
        cosine = (ours * theirs).sum() / (ours.norm() * theirs.norm())
        angles[name] = float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))
    return angles


def aligned(network: Network) -> dict[str, nn.Parameter]:
    """Return projection -> its weight, those that learn; weights that projections share stand under the first."""
    first: dict[nn.Parameter, str] = {}
    for name, projection in network.projections.items():
        if projection.weight is not None and projection.weight.requires_grad:
            first.setdefault(projection.weight, name)
    return {name: weight for weight, name in first.items()}
