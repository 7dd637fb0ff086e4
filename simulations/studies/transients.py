"""Transient growth of errors before they vanish.

Errors rise about tenfold in a trained relu network, close to their bound. An isolated population would lose its initial
activity like exp(-t/tau). Initial activities of the populations above, however, arrive through feedback, which may
amplify them. After learning, gradients of most samples are far smaller than activities, so errors of the lower layers
rise.

Left: errors in a trained relu network, relative to the initial errors, and their bounds (dotted): the largest initial
error that arrives from above. Right: growth from large steps, the largest factor by which each scheme amplifies errors
in 20 layers whose feedback itself does not amplify. All schemes are stable up to eta = 2, rk4 up to 2.79.

It takes half a minute.

The last line on screen:  relu, hidden7: errors rise to 1.0 times the first, at most 1.0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from actrelax import Network, RelaxationProblem, solve
from actrelax.analysis import figures
from actrelax.analysis.convergence import errors_over_time
from actrelax.analysis.transients import error_bounds, growth
from actrelax.models.engines import INTEGRATORS
from actrelax.simulations.data import digits
from actrelax.simulations.studies.common import DIGITS, OUT, report, trained
from actrelax.simulations.suites.suite import varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes


ACTIVATIONS = ("tanh", "relu")  # the last is drawn
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
    """Train, relax, measure the growth of errors, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    epochs : int

    Returns
    -------
    dict
        Activation -> population -> "rise", the largest error relative to the initial one, "at", the time of the largest
        error in tau, and "bound", the bound on "rise".
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
        left.set(xlabel="time (tau)", ylabel="error (relative to the initial error)", xlim=(0, None), ylim=(1e-4, None))
        left.legend(fontsize="small")
        factors = amplified(right, SCHEMES, ETAS)
    report(out / "transients.json", {**measured, "amplification": factors}, *lines)
    return measured


def relaxed(network: Network) -> tuple[Sequence[float], dict[str, Tensor], dict[str, float]]:
    """Return times, and each population's errors and bound, relative to its initial error."""
    images, labels = digits().test
    problem = RelaxationProblem.from_batch(network, images[:SAMPLES].double(), labels[:SAMPLES])
    gradients = solve(problem, "equilibrium").final
    errors = errors_over_time(problem, gradients, "euler", STEPS, eta=ETA)
    bounds = error_bounds(problem, gradients)
    relative = {name: error / error[0] for name, error in errors.recorded.items()}
    return errors.times, relative, {name: bound / float(errors[name][0]) for name, bound in bounds.items()}


def amplified(ax: Axes, schemes: Sequence[str], etas: Sequence[float]) -> dict[str, dict[float, float]]:
    """Draw the amplification by each scheme up to its stability limit, and return scheme -> eta -> factor."""
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
