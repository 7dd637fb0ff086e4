"""Errors rise before they fall: what eigenvalues leave out, and by how much.

Each population alone would forget what it began with like exp(-t/tau). But what the populations above began with comes
down through the feedback, which may amplify it: after learning, samples that the network knows have gradients far below
activities, and the lower layers' errors rise.

Left: errors in a trained relu network, relative to those at the start, and what they can't exceed (dotted): of the
initial errors above, the largest that arrives. Right: the same from large steps instead: the largest factor by which
each scheme amplifies errors in 20 layers whose feedback amplifies nothing. All are stable up to eta = 2, rk4 to 2.79.

The last line on screen:  relu, hidden7: errors rise to 1.0 times the first, at most 1.0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from actrelax import Network, RelaxationProblem, backprop_backward, build, solve
from actrelax.analysis import figures
from actrelax.analysis.convergence import errors_over_time
from actrelax.analysis.transients import error_bounds, growth
from actrelax.models.engines import INTEGRATORS
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.learning import epochs_of

# network, and how it learns
NETWORK = "mlp-8x32"
ACTIVATIONS = ("tanh", "relu")  # the last one is drawn
EPOCHS = 20
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


def main(out: Path = Path("runs/studies"), epochs: int = EPOCHS) -> dict[str, dict[str, dict[str, float]]]:
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
        Activation -> population -> "rise", its largest error over that at the start, and "bound" on that.
    """
    measured: dict[str, dict[str, dict[str, float]]] = {activation: {} for activation in ACTIVATIONS}
    for activation in ACTIVATIONS:
        times, errors, bounds = relaxed(trained(activation, epochs))
        for name, error in errors.items():
            measured[activation][name] = {"rise": float(error.max()), "bound": bounds[name]}
            print(f"{activation}, {name}: errors rise to {error.max():.1f} times the first, at most {bounds[name]:.1f}")
    with figures.saved(out / "transients.png", columns=2) as (_, (left, right)):
        for name, error in errors.items():
            (line,) = left.semilogy(times, error, label=name)
            left.axhline(bounds[name], color=line.get_color(), linewidth=0.8, linestyle=":")
        left.set(xlabel="time (tau)", ylabel="error / error at the start", xlim=(0, None), ylim=(1e-4, None))
        left.legend(fontsize="small")
        amplified(right, SCHEMES, ETAS)
    return measured


def relaxed(network: Network) -> tuple[Sequence[float], dict[str, Tensor], dict[str, float]]:
    """Return times, each population's error at them over the first one, and what bounds that."""
    images, labels = digits().test
    problem = RelaxationProblem.from_batch(network, images[:SAMPLES].flatten(1).double(), labels[:SAMPLES])
    gradients = solve(problem, "equilibrium").final
    errors = errors_over_time(problem, gradients, "euler", STEPS, eta=ETA)
    bounds = error_bounds(problem, gradients)
    relative = {name: error / error[0] for name, error in errors.recorded.items()}
    return errors.times, relative, {name: bound / float(errors[name][0]) for name, bound in bounds.items()}


def trained(activation: str, epochs: int) -> Network:
    """Return a network that has learned the digits by backprop."""
    generator = random_stream(SEED, "weights")
    network = build(NETWORK, input_shape=(64,), activation=activation, generator=generator).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in epochs_of(network, optimiser, backprop_backward, epochs=epochs, seed=SEED):
        pass
    return network


def amplified(ax: Axes, schemes: Sequence[str], etas: Sequence[float]) -> None:
    """Draw how far errors grow on the way, up to where each scheme stops being stable."""
    for name in schemes:
        stable = [eta for eta in etas if eta < INTEGRATORS[name].stability_limit - 0.05]
        ax.semilogy(stable, [growth(name, eta=eta, depth=DEPTH, steps=600) for eta in stable], label=name)
    ax.set(xlabel="eta", ylabel=f"largest amplification in {DEPTH} layers", xlim=(0, None))
    ax.legend()


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
