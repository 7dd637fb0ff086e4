"""The gradient of a settled network with cycles, by autograd alone: the reference for relaxations (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import FeedforwardPass, Network, sum_in_order
from actrelax.models.problem import Loss, LossFunction, loss_named

Vector = NDArray[np.float64]
RESTART = 100
CYCLES = 20
"""GMRES keeps `RESTART` vectors and restarts at most `CYCLES` times."""


def implicit_gradients(
    network: Network, rates: FeedforwardPass, y: Tensor, *, loss: str | Loss | LossFunction = "cross-entropy"
) -> dict[str, Tensor]:
    """Return dLoss/dr of the hidden populations and the output, where the loss is that of the settled rates.

    They solve (I - M^T) x = e with M the Jacobian of f(a(r)) at the rates and e the loss's derivative for constant
    rates, both as products by autograd; SciPy's GMRES solves the system. At this x a relaxation with the standard
    assumptions rests.

    Parameters
    ----------
    network : Network
    rates : FeedforwardPass
        What `settle` returns.
    y : torch.Tensor
        Targets: integer labels (batch,) or (batch, *output shape).
    loss : str, Loss or callable, default "cross-entropy"
        As for `RelaxationProblem.from_batch`.

    Returns
    -------
    dict
        Population -> (batch, *population.shape), in topological order, the gradient of each sample's loss.

    Raises
    ------
    ActrelaxError
        If GMRES does not reach the accuracy of the rates' dtype.
    """
    leaves = {name: rates.activities[name].detach().clone().requires_grad_() for name in network.hidden}
    with torch.enable_grad():
        read = {**leaves, network.input: rates.activities[network.input].detach()}
        responses = {}
        for name in [*network.hidden, network.output]:
            drive = sum_in_order([p.find(read[p.source])[0] for p in network.incoming[name]])
            responses[name] = network.populations[name].activation.function(drive)
    output = responses.pop(network.output)
    top = loss_named(loss).gradient(output.detach(), y)

    def derivatives(of: list[Tensor], signals: list[Tensor]) -> Vector:
        found = torch.autograd.grad(of, [*leaves.values()], signals, retain_graph=True, materialize_grads=True)
        return _joined([*found])

    def residual(x: Vector) -> Vector:
        return x - derivatives([*responses.values()], _parts(x, [*responses.values()]))

    e = derivatives([output], [top])
    x = _solved(residual, e, 1e-13 if top.dtype == torch.float64 else 1e-6)
    return {**dict(zip(leaves, _parts(x, [*leaves.values()]), strict=True)), network.output: top}


def _solved(residual: Callable[[Vector], Vector], e: Vector, tolerance: float) -> Vector:
    operator = LinearOperator((len(e), len(e)), residual, dtype=np.float64)
    x, _ = gmres(operator, e, rtol=tolerance, atol=0, restart=RESTART, maxiter=CYCLES)
    left = np.linalg.norm(residual(x) - e)
    if not left <= 100 * tolerance * np.linalg.norm(e):
        raise ActrelaxError(
            f"GMRES left a relative residual of {left / np.linalg.norm(e):.1e} in the gradient of the settled loss: "
            "give a network farther from instability."
        )
    return np.asarray(x)


def _joined(tensors: list[Tensor]) -> Vector:
    return torch.cat([x.detach().flatten() for x in tensors]).cpu().double().numpy()


def _parts(x: Vector, like: list[Tensor]) -> list[Tensor]:
    flat = torch.from_numpy(x).to(like[0])
    parts = torch.split(flat, [each.numel() for each in like])
    return [part.reshape(each.shape) for part, each in zip(parts, like, strict=True)]
