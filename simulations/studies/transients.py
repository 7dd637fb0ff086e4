"""Errors rise before they fall: what eigenvalues leave out, and by how much.

Each population alone would forget what it began with like exp(-t/tau). But what the populations above began with comes
down through the feedback, which may amplify it: after learning, samples that the network knows have gradients far below
activities, and the lower layers' errors rise.

Left: errors in a trained network, relative to those at the start, and what they can't exceed (dotted): of the initial
errors above, the largest that arrives. Right: the same from large steps instead: the largest factor by which each
scheme amplifies errors in 20 layers whose feedback amplifies nothing. All are stable up to eta = 2, and rk4 to 2.79.

The last line on screen:  hidden7: errors rise to 1.0 of the first, and can't to 1.0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes

from actrelax import Network, RelaxationProblem, Updates, backprop_backward, build, solve
from actrelax.analysis import figures
from actrelax.analysis.convergence import errors_over_time
from actrelax.analysis.transients import error_bounds, growth
from actrelax.models.integrators import INTEGRATORS
from actrelax.simulations.datasets import digits
from actrelax.simulations.streams import random_stream

# network, and how it learns
NETWORK = "mlp-8x32"
ACTIVATION = "relu"
EPOCHS = 20
BATCH = 64
RATE = 0.003
SEED = 0

# relaxation
SAMPLES = 32
ETA = 0.1
STEPS = 300

# large steps
SCHEMES = ("euler", "sequential", "heun", "rk4")
ETAS = [0.1 * k for k in range(1, 28)]
DEPTH = 20


def main(out: Path = Path("runs/studies"), epochs: int = EPOCHS) -> dict[str, dict[str, float]]:
    """Train, relax, draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    epochs : int
        Passes through the training images.

    Returns
    -------
    dict
        Population -> "rise", its largest error over that at the start, and "bound", what that could be.
    """
    network = trained(epochs)
    images, labels = digits().test
    x, y = images[:SAMPLES].flatten(1).double(), labels[:SAMPLES]
    problem = RelaxationProblem.from_batch(network, x, y)
    gradients = solve(problem, "equilibrium").final
    errors = errors_over_time(problem, gradients, integrator="euler", eta=ETA, steps=STEPS)
    bounds = error_bounds(problem, gradients)

    measured = {}
    with figures.saved(out / "transients.png", columns=2) as (_, (left, right)):
        for name, error in errors.recorded.items():
            relative, bound = error / error[0], bounds[name] / float(error[0])
            measured[name] = {"rise": float(relative.max()), "bound": bound}
            print(f"{name}: errors rise to {measured[name]['rise']:.1f} of the first, and can't to {bound:.1f}")
            (line,) = left.semilogy(errors.times, relative, label=name)
            left.axhline(bound, color=line.get_color(), linewidth=0.8, linestyle=":")
        left.set(xlabel="time (tau)", ylabel="error / error at the start", xlim=(0, None), ylim=(1e-4, None))
        left.legend(fontsize="small")
        amplified(right, SCHEMES, ETAS)
    return measured


def trained(epochs: int) -> Network:
    """Return a network that has learned the digits by backprop."""
    images, labels = digits().train
    x = images.flatten(1).double()
    generator = random_stream(SEED, "weights")
    network = build(NETWORK, input_shape=(64,), activation=ACTIVATION, generator=generator).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=random_stream(SEED, "order", epoch))
        for i in torch.split(order, BATCH):
            optimiser.zero_grad()
            backprop_backward(network, x[i], labels[i], updates=Updates(reduction="mean"))
            optimiser.step()
    return network


def amplified(ax: Axes, schemes: Sequence[str], etas: Sequence[float]) -> None:
    """Draw how far errors grow on the way, up to where each scheme stops to be stable."""
    for name in schemes:
        stable = [eta for eta in etas if eta < INTEGRATORS[name].stability_limit - 0.05]
        ax.semilogy(stable, [growth(name, eta=eta, depth=DEPTH, steps=600) for eta in stable], label=name)
    ax.set(xlabel="eta", ylabel=f"largest amplification in {DEPTH} layers", xlim=(0, None))
    ax.legend()


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
