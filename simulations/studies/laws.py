"""One law, every engine: measured and predicted errors coincide, for each engine and integrator.

A digit relaxes in a network of three hidden populations by PyTorch, SciPy and Brian2, by fixed steps and adaptive ones.
While gains are frozen each scheme has a law (docs/closed-form.md): it needs the network's feedback maps and no
relaxation.

Left: the lowest population's error by PyTorch's integrators, a line each; circles are predicted. Right: the largest
difference between measured and predicted errors, of any population at any time, for everything that can relax this
network. Fixed steps agree to rounding, adaptive ones to the tolerance they were given.

The last line on screen:  fixed steps: 17 ways, at most 8e-16 off their laws
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from actrelax import RelaxationProblem, Steps, activity_gradients, build
from actrelax.analysis import figures
from actrelax.analysis.checks.solvers import entries
from actrelax.analysis.convergence import predicted_errors
from actrelax.models.engines import ENGINES
from actrelax.simulations.data import digits, random_stream

# time, in units of tau
DT = 0.2
STEPS = 60

# network
NETWORK = "mlp-4x32"
SEED = 0


def main(out: Path = Path("runs/studies"), steps: int = STEPS) -> dict[str, float]:
    """Relax in every way there is, compare each with its law, draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    steps : int
        How many of dt = 0.2 tau.

    Returns
    -------
    dict
        Engine and integrator -> largest difference between its errors and its law's, relative to the largest error.
    """
    images, labels = digits().test
    x, y = images[:1].flatten(1).double(), labels[:1]
    network = build(NETWORK, input_shape=(64,), generator=random_stream(SEED, "weights")).double()
    problem = RelaxationProblem.from_batch(network, x, y)
    gradients = activity_gradients(network, x, y)
    ways, left_out = entries(problem, Steps(steps, dt=DT), engines=list(ENGINES))
    print("\n".join(left_out))

    found: dict[str, float] = {}
    with figures.saved(out / "laws.png", columns=2) as (_, (left, right)):
        for way in ways:
            if not way.scheme.takes_time:
                continue
            trajectory = way.solve(problem, Steps(steps, dt=DT), record=True)
            measured = trajectory.error(gradients)
            law = predicted_errors(problem, gradients, way.scheme, dt=DT, at=range(steps + 1))
            found[way.title] = max(
                abs(m - p) / max(law[name])
                for name in law
                for m, p in zip(measured[name].tolist(), law[name], strict=True)
            )
            if way.engine == "torch":
                draw(left, way.scheme.name, measured["hidden1"].tolist(), law["hidden1"])
        compare(right, found)
    for title, difference in found.items():
        print(f"{title:25} {difference:.0e}")
    fixed = [d for title, d in found.items() if not title.startswith("scipy:")]
    print(f"fixed steps: {len(fixed)} ways, at most {max(fixed):.0e} off their laws")
    return found


def draw(ax: Axes, name: str, measured: list[float], law: list[float]) -> None:
    """Draw one integrator's error, and its prediction at some steps."""
    (line,) = ax.semilogy([n * DT for n in range(len(law))], measured, label=name)
    at = range(0, len(law), 5)
    figures.circles(ax, [n * DT for n in at], [law[n] for n in at], color=line.get_color())
    ax.set(xlabel="time (tau)", xlim=(0, None), ylabel="error of hidden1 against backprop\n(largest, relative)")
    ax.legend()


def compare(ax: Axes, found: dict[str, float]) -> None:
    """Draw the differences, a row each."""
    ax.plot(list(found.values()), range(len(found)), "o", markersize=4)
    ax.set_yticks(range(len(found)), list(found), fontsize="x-small")
    ax.set(xscale="log", xlabel="measured minus predicted error (largest, relative)")
    ax.invert_yaxis()


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
