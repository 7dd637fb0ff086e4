"""The baseline: the same network's exact gradients, by autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from actrelax.models.losses import Loss, LossFunction, loss_named
from actrelax.models.network import Network
from actrelax.models.updates import Backward, Updates, add_to_grad


def backprop_backward(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    updates: Updates | None = None,
) -> Backward:
    """Add the gradient of the loss to each parameter's `.grad`, by autograd.

    Everything but the rule is shared with `relax_backward`: feedforward pass, loss gradient, and what `updates`
    does to the weight updates.

    Parameters
    ----------
    network, x, y, loss, updates
        As for `relax_backward`.

    Returns
    -------
    Backward
        Its trajectory is None.
    """
    updates = updates or Updates()
    chosen = loss_named(loss)
    output, gradients = _swept(network, x, y, chosen)
    kinds = {w: network.kind(p) for p in reversed(network.projections.values()) for w in (p.weight, p.bias)}
    for w, gradient in gradients.items():
        add_to_grad(w, updates.applied(gradient, len(x), kinds[w]))
    return Backward(updates.reduced(chosen.value(output, y).sum(), len(x)), output, None)


def parameter_gradients(
    network: Network, x: Tensor, y: Tensor, *, loss: str | Loss | LossFunction = "cross-entropy"
) -> dict[nn.Parameter, Tensor]:
    """Return the gradient of the loss, summed over the batch, of each weight and bias that learns; `.grad` stays."""
    return _swept(network, x, y, loss_named(loss))[1]


def _swept(network: Network, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, dict[nn.Parameter, Tensor]]:
    with torch.enable_grad():
        output = network(x)
    top = loss.gradient(output.detach(), y)
    # a Parameter that two projections share is a key once: its gradient is the sum over both
    parts = (w for p in network.projections.values() for w in (p.weight, p.bias))
    learned = list(dict.fromkeys(w for w in parts if w is not None and w.requires_grad))
    gradients = torch.autograd.grad(output, learned, top) if learned else ()
    return output.detach(), dict(zip(learned, gradients, strict=True))


def activity_gradients(
    network: Network, x: Tensor, y: Tensor, *, loss: str | Loss | LossFunction = "cross-entropy"
) -> dict[str, Tensor]:
    """dLoss/dx of every hidden population and the output: where a frozen relaxation by transposed weights ends.

    Returns
    -------
    dict
        Population -> (batch, *population.shape), each sample's gradient of its own loss, in topological order.
    """
    with torch.enable_grad():
        passed = network.feedforward(x.detach().requires_grad_())
    names = [*network.hidden, network.output]
    output = passed.activities[network.output]
    top = loss_named(loss).gradient(output.detach(), y)
    gradients = torch.autograd.grad(output, [passed.activities[name] for name in names], top)
    return dict(zip(names, gradients, strict=True))
