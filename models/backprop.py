"""The baseline: the same network's exact gradients, by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

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
    chosen = loss_named(loss)
    updates = updates or Updates()
    with torch.enable_grad():
        output = network(x)
    top = chosen.gradient(output.detach(), y)
    parts = [(p, name) for p in network.projections.values() for name in ("weight", "bias")]
    learned = [(p, name, w) for p, name in parts if (w := getattr(p, name)) is not None and w.requires_grad]
    # a Parameter that two projections share is listed once: its gradient is the sum over both already
    unique = list({id(w): (p, name, w) for p, name, w in learned}.values())
    gradients = torch.autograd.grad(output, [w for _, _, w in unique], top) if unique else ()
    output = output.detach()
    for (p, _, w), gradient in zip(unique, gradients, strict=True):
        add_to_grad(w, updates.applied(gradient, len(x), network.kind(p)))
    return Backward(updates.reduced(chosen.value(output, y).sum(), len(x)), output, None)


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
