"""Measured and predicted errors of every engine and integrator.

They agree to rounding for fixed steps, and to the requested tolerance for adaptive steps. A digit relaxes in a network
of three hidden populations, by PyTorch, SciPy and Brian2. With frozen gains each scheme has a closed form
(docs/closed-form.md), which needs the network's feedback maps and no relaxation.

Left: error of the lowest population, one line per PyTorch integrator; circles are predictions. Right: largest
difference between measured and predicted errors over populations and times, for every solver. It takes seconds.

The last line on screen:  fixed steps: 17 ways, at most 8e-16 off their laws
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actrelax import RelaxationProblem, Steps, activity_gradients, build
from actrelax.analysis import figures
from actrelax.analysis.checks.solvers import entries
from actrelax.analysis.convergence import predicted_errors
from actrelax.models.engines import ENGINES
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.common import OUT, report

# time, in units of tau
DT = 0.2
STEPS = 60

# network
NETWORK = "mlp-4x32"
SEED = 0


def main(out: Path = OUT, steps: int = STEPS) -> dict[str, float]:
    """Relax by every engine and integrator, compare the errors with their prediction, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    steps : int
        Number of steps of 0.2 tau.

    Returns
    -------
    dict
        Engine and integrator -> largest difference between measured and predicted errors, over the largest error.
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
        for way in (way for way in ways if way.scheme.takes_time):
            measured = way.solve(problem, Steps(steps, dt=DT), record=True).error(gradients)
            law = predicted_errors(problem, gradients, way.scheme, dt=DT, at=range(steps + 1))
            found[way.title] = max(np.abs(measured[name].numpy() - law[name]).max() / max(law[name]) for name in law)
            if way.engine == "torch":
                times = [DT * n for n in range(steps + 1)]
                (line,) = left.semilogy(times, measured["hidden1"], label=way.scheme.name)
                figures.circles(left, times[::5], law["hidden1"][::5], color=line.get_color())
        left.set(xlabel="time (tau)", xlim=(0, None), ylabel="error of hidden1 against backprop\n(largest, relative)")
        left.legend()
        right.plot(list(found.values()), range(len(found)), "o", markersize=4)
        right.set_yticks(range(len(found)), list(found), fontsize="x-small")
        right.set(xscale="log", xlabel="measured minus predicted error (largest, relative)")
        right.invert_yaxis()
    fixed = [d for title, d in found.items() if not title.startswith("scipy:")]
    report(
        out / "laws.json",
        {"fixed": {"ways": len(fixed), "largest": max(fixed)}, "adaptive": len(found) - len(fixed)},
        *(f"{title:25} {difference:.0e}" for title, difference in found.items()),
        f"fixed steps: {len(fixed)} ways, at most {max(fixed):.0e} off their laws",
    )
    return found


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
