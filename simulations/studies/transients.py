"""Errors rise before they fall: what eigenvalues leave out, and by how much.

About tenfold in a trained relu network, and never beyond a bound that is near. Each population alone would forget
its initial activity like exp(-t/tau). But the initial activities of the populations above come down through the
feedback, which may amplify them: after learning, samples that the network knows have gradients far below activities,
and the lower layers' errors rise.

Left: errors in a trained relu network, relative to the first ones, and their bound (dotted): of the initial errors
above, the largest that arrives. Right: the same from large steps instead: the largest factor by which each scheme
amplifies errors in 20 layers whose feedback amplifies nothing. All are stable up to eta = 2, rk4 to 2.79.

It takes half a minute.

The last line on screen:  relu, hidden7: errors rise to 1.0 times the first, at most 1.0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from torch import Tensor

from actrelax import Network, RelaxationProblem, solve
from actrelax.analysis import figures
from actrelax.analysis.convergence import errors_over_time
from actrelax.analysis.transients import error_bounds, growth
from actrelax.models.engines import INTEGRATORS
from actrelax.simulations.data import digits
from actrelax.simulations.studies.common import DIGITS, OUT, report, trained
from actrelax.simulations.suites.suite import varied

ACTIVATIONS = ("tanh", "relu")  # the last one is drawn
EPOCHS = 20
BASE = varied(
    DIGITS, {"rule": "backprop", "network": "mlp-8x32", "optimiser": "adam", "lr": 0.003, "precision": "fp64"}
)

# relaxation
SAMPLES = 32
ETA = 0.1
STEPS = 300

# large steps
SCHEMES = ("euler", "sequential", "heun", "rk4")
ETAS = [0.1 * k for k in range(1, 28)]
DEPTH = 20


def main(out: Path = OUT, epochs: int = EPOCHS) -> dict[str, dict[str, dict[str, float]]]:
    """Train, relax, draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    epochs : int

    Returns
    -------
    dict
        Activation -> population -> "rise", its largest error over the first, "at", its time in tau, and its "bound".
    """
    measured: dict[str, dict[str, dict[str, float]]] = {activation: {} for activation in ACTIVATIONS}
    lines = []
    for activation in ACTIVATIONS:
        times, errors, bounds = relaxed(trained(varied(BASE, {"activation": activation, "epochs": epochs})))
        for name, error in errors.items():
            rise, at, bound = float(error.max()), times[int(error.argmax())], bounds[name]
            measured[activation][name] = {"rise": rise, "at": at, "bound": bound}
            lines.append(f"{activation}, {name}: errors rise to {rise:.1f} times the first, at most {bound:.1f}")
    with figures.saved(out / "transients.png", columns=2) as (_, (left, right)):
        for name, error in errors.items():
            (line,) = left.semilogy(times, error, label=name)
            left.axhline(bounds[name], color=line.get_color(), linewidth=0.8, linestyle=":")
        left.set(xlabel="time (tau)", ylabel="error / error at the start", xlim=(0, None), ylim=(1e-4, None))
        left.legend(fontsize="small")
        factors = amplified(right, SCHEMES, ETAS)
    report(out / "transients.json", {**measured, "amplification": factors}, *lines)
    return measured


def relaxed(network: Network) -> tuple[Sequence[float], dict[str, Tensor], dict[str, float]]:
    """Return times, each population's error at them over the first one, and its bound."""
    images, labels = digits().test
    problem = RelaxationProblem.from_batch(network, images[:SAMPLES].double(), labels[:SAMPLES])
    gradients = solve(problem, "equilibrium").final
    errors = errors_over_time(problem, gradients, "euler", STEPS, eta=ETA)
    bounds = error_bounds(problem, gradients)
    relative = {name: error / error[0] for name, error in errors.recorded.items()}
    return errors.times, relative, {name: bound / float(errors[name][0]) for name, bound in bounds.items()}


def amplified(ax: Axes, schemes: Sequence[str], etas: Sequence[float]) -> dict[str, dict[float, float]]:
    """Draw the growth of errors on the way, up to each scheme's stability limit; return scheme -> eta -> factor."""
    found = {}
    for name in schemes:
        stable = [eta for eta in etas if eta < INTEGRATORS[name].stability_limit - 0.05]
        found[name] = {eta: growth(name, eta=eta, depth=DEPTH, steps=600) for eta in stable}
        ax.semilogy(stable, list(found[name].values()), label=name)
    ax.set(xlabel="eta", ylabel=f"largest amplification in {DEPTH} layers", xlim=(0, None))
    ax.legend()
    return found


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
