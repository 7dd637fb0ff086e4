"""From scratch: activation relaxation in plain PyTorch, compared with autograd and with this package.

Activation relaxation: Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain", arXiv 2009.05359.

Read this script first. It contains the whole method, and imports the package only at the end, for comparison. A network
with three hidden layers of tanh units sees 32 digits. The feedforward pass computes drives a[l] = W[l] x[l-1] + b[l]
and activities x[l] = f(a[l]), and freezes the gains f'(a[l]). Then the output is clamped to the gradient of the loss,
and each hidden layer relaxes from its feedforward activity to dLoss/dx[l], backpropagation's gradient:

    tau dx[l]/dt = -x[l] + W[l+1]^T (f'(a[l+1]) x[l+1])

The gradient of a weight is a Hebbian product: the presynaptic activity in the feedforward pass times the postsynaptic
gain times the relaxed activity.

The ODE is solved by Euler steps. In "euler" all layers move at once; in "sequential", the papers' loop, each layer
reads the new activity of the layer above.

The last line on screen:  actrelax.relax_backward gives the same updates to 1e-12
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

# network
WIDTHS = (64, 32, 32, 32, 10)
SEED = 0

# relaxation
STEPS = 200
ETA = 0.1  # dt/tau


def feedforward(layers: Sequence[nn.Linear], stimuli: Tensor) -> list[Tensor]:
    """Return the activities of all layers, beginning with the stimuli, each (batch, width)."""
    activities = [stimuli]
    for layer in layers[:-1]:
        activities.append(torch.tanh(layer(activities[-1])))
    return [*activities, layers[-1](activities[-1])]


def relax(layers: Sequence[nn.Linear], gains: Sequence[Tensor], x: list[Tensor], steps: int, scheme: str) -> None:
    """Relax the hidden layers of x in place by Euler steps; the input x[0] and the clamped output x[-1] stay fixed."""
    for _ in range(steps):
        read = x if scheme == "sequential" else list(x)
        for i in reversed(range(1, len(layers))):
            feedback = (gains[i + 1] * read[i + 1]) @ layers[i].weight  # layers[i] leads from x[i] to x[i + 1]
            x[i] = x[i] + ETA * (-x[i] + feedback)


def hebbian(activities: Sequence[Tensor], gains: Sequence[Tensor], relaxed: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of all weights and biases, averaged over the batch."""
    gradients = []
    for i in range(1, len(relaxed)):
        postsynaptic = gains[i] * relaxed[i]
        gradients += [postsynaptic.T @ activities[i - 1] / len(postsynaptic), postsynaptic.mean(0)]
    return gradients


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor | None]) -> float:
    """Return the largest difference between two lists of gradients, relative to each gradient's largest element."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def main(steps: int = STEPS) -> dict[str, tuple[float, float]]:
    """Compute updates by both schemes, and compare them with autograd and with the package.

    Parameters
    ----------
    steps : int
        Number of Euler steps.

    Returns
    -------
    dict
        Scheme -> relative differences of its updates from autograd's gradients and from the package's updates.
    """
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images[:32] / 16), torch.tensor(labels[:32])
    torch.manual_seed(SEED)
    layers = [nn.Linear(*sizes, dtype=x.dtype) for sizes in pairwise(WIDTHS)]
    parameters = [p for layer in layers for p in layer.parameters()]
    autograd = torch.autograd.grad(F.cross_entropy(feedforward(layers, x)[-1], y), parameters)

    updates = {}
    with torch.no_grad():
        activities = feedforward(layers, x)
        gains = [*(1 - a**2 for a in activities[:-1]), torch.ones_like(activities[-1])]  # f' of tanh, of identity
        clamp = activities[-1].softmax(1) - F.one_hot(y, WIDTHS[-1])  # dLoss/doutput, cross-entropy
        for scheme in ("euler", "sequential"):
            relaxed = [*activities[:-1], clamp]
            relax(layers, gains, relaxed, steps, scheme)
            updates[scheme] = hebbian(activities, gains, relaxed)
            error = difference(updates[scheme], autograd)
            print(f"{scheme}, {steps} steps: {error:.0e} from autograd's gradients")

    from actrelax import Network, relax_backward

    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2], nn.Tanh(), layers[3])
    network, measured = Network.from_sequential(model, WIDTHS[:1]), {}
    for scheme, ours in updates.items():
        network.zero_grad()
        relax_backward(network, x, y, integrator=scheme, steps=steps, eta=ETA)
        measured[scheme] = difference(ours, autograd), difference(ours, [p.grad for p in parameters])
        assert measured[scheme][1] < 1e-12
    print("actrelax.relax_backward gives the same updates to 1e-12")
    return measured


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
