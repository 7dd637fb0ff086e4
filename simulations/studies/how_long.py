"""Relaxation time until every layer is within 1 % of its gradient, by depth.

About 6 tau plus 1.3 tau per layer in untrained deep networks. Feedback moves down one layer at a time, and the initial
activity of a layer must decay below a gradient that may be far smaller. The closed form (docs/closed-form.md) gives the
step from which the error stays below a tolerance, without relaxing.

Left: time for random networks, predicted (lines with 95 % intervals: mean over networks) and measured by relaxing
(circles: single networks). Right: cost at one depth, in evaluations of the whole feedback, against eta.

It takes 2 minutes.

The last line on screen:  measured otherwise than predicted: 0 of 96
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from actrelax import RelaxationProblem, activity_gradients, build
from actrelax.analysis import figures
from actrelax.analysis.convergence import errors_over_time, predicted_steps, stays_below
from actrelax.models.engines import INTEGRATORS
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.common import OUT, report

TOLERANCE = 0.01
MOST = 100_000  # steps of a relaxation that does not converge

# networks with random weights
DEPTHS = (2, 3, 4, 5, 10, 20, 35, 50)
WIDTH = 64
SEEDS = 3
SAMPLES = 4

# schemes
LEFT = {
    "euler, eta 0.1": ("euler", 0.1),
    "sequential, eta 0.1": ("sequential", 0.1),
    "euler, eta 0.5": ("euler", 0.5),
    "rk4, eta 0.5": ("rk4", 0.5),
}
RIGHT = ("euler", "sequential", "heun", "rk4", "exponential")
ETAS = (0.05, 0.1, 0.2, 0.5, 1.0)
AT_DEPTH = 10


def main(
    out: Path = OUT, depths: Sequence[int] = DEPTHS, seeds: int = SEEDS
) -> tuple[dict[str, dict[float, list[float]]], dict[str, dict[float, int]]]:
    """Predict and measure the relaxation times, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    depths : sequence of int
        Numbers of weight layers.
    seeds : int
        Number of networks per depth.

    Returns
    -------
    times : dict
        Scheme and eta -> depth -> relaxation time of each network, in tau.
    costs : dict
        Scheme -> eta -> number of evaluations of the whole feedback, at depth 10.
    """
    wrong = 0
    times: dict[str, dict[float, list[float]]] = {label: {} for label in LEFT}
    with figures.saved(out / "how_long.png", columns=2) as (_, (left, right)):
        for number, (label, (scheme, eta)) in enumerate(LEFT.items()):
            for depth in depths:
                problems = [random_problem(depth, seed) for seed in range(seeds)]
                predicted = [slowest(*problem, scheme, eta) for problem in problems]
                measured = [relaxed(*problem, scheme, eta, n) for problem, n in zip(problems, predicted, strict=True)]
                wrong += sum(m != p for m, p in zip(measured, predicted, strict=True))
                times[label][depth] = [eta * n for n in predicted]
                figures.circles(left, [depth] * seeds, [eta * n for n in measured])
            figures.band(left, label, times[label], number=number)
        figures.circles(left, [], [], label="measured")
        left.set(xlabel="depth (weight layers)", ylabel="time until all errors are below 1 % (tau)", xlim=(0, None))
        left.set_ylim(0, None)
        left.legend()

        problem = random_problem(AT_DEPTH, seed=0)
        costs = {name: {eta: cost(*problem, name, eta) for eta in ETAS} for name in RIGHT}
        for name, by_eta in costs.items():
            right.loglog(list(by_eta), list(by_eta.values()), label=name, marker=".")
        right.set(xlabel="eta", ylabel=f"feedback evaluations at depth {AT_DEPTH}")
        right.legend()
    ends = {label: {d: {"least": min(t), "most": max(t)} for d, t in of.items()} for label, of in times.items()}
    count = len(LEFT) * len(depths) * seeds
    report(
        out / "how_long.json",
        {"times": ends, "costs": costs, "relaxations": count, "wrong": wrong},
        *(
            f"{label}, depth {d}: {min(t):.1f} to {max(t):.1f} tau"
            for label, of in times.items()
            for d, t in of.items()
        ),
        f"measured otherwise than predicted: {wrong} of {count}",
    )
    return times, costs


def random_problem(depth: int, seed: int) -> tuple[RelaxationProblem, dict[str, Tensor]]:
    """Return a relaxation of digits in a random network, and its gradients."""
    images, labels = digits().test
    x, y = images[:SAMPLES].flatten(1).double(), labels[:SAMPLES]
    generator = random_stream(seed, "weights")
    network = build(f"mlp-{depth}x{WIDTH}", input_shape=(64,), generator=generator).double()
    return RelaxationProblem.from_batch(network, x, y), activity_gradients(network, x, y)


def slowest(problem: RelaxationProblem, gradients: dict[str, Tensor], scheme: str, eta: float) -> int:
    """Return the predicted number of steps of the slowest population."""
    steps = predicted_steps(problem, gradients, scheme, dt=eta, tolerance=TOLERANCE)
    return max(MOST if n is None else n for n in steps.values())


def relaxed(problem: RelaxationProblem, gradients: dict[str, Tensor], scheme: str, eta: float, expected: int) -> int:
    """Return the measured number of steps of the slowest population, from a relaxation that lasts 50 steps longer."""
    errors = errors_over_time(problem, gradients, scheme, expected + 50, eta=eta).recorded
    steps = [stays_below(error, TOLERANCE) for error in errors.values()]
    return max(MOST if n is None else n for n in steps)


def cost(problem: RelaxationProblem, gradients: dict[str, Tensor], scheme: str, eta: float) -> int:
    """Return the number of feedback evaluations until the slowest population has converged."""
    return slowest(problem, gradients, scheme, eta) * (INTEGRATORS[scheme].stages or 1)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
