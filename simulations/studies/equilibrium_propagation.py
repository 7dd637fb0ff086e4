"""Equilibrium propagation on the same network as AR: does it find the same gradient, and learn as much?

Equilibrium propagation (Scellier and Bengio 2017) nudges the rates by beta times the gradient of the loss, and reads
the gradient of all activities from where they settle, where AR leaves the rates alone and relaxes a second variable.
In a network without symmetric weights the rates need a correction, which cancels the antisymmetric part of the loop
(Scurria et al. 2026); `analysis.recurrent_gradients.nudged` has the equation. With two phases, nudged by +beta and by
-beta, the error is of the second order in beta, with one phase of the first.

With beta at most 0.01 the update of 200 digits is as far from the gradient as AR's, because phases of 50 time constants
are short for a batch; larger beta take it farther off.

Left: angle between the activities and the gradient for the median of 200 test digits, in networks that have learned by
AR. Right: test accuracy after training. Dots are networks, lines the means of three. Three populations of 100 tanh
units with lateral and top-down connections learn the digits for five epochs at one rate, as in the other studies of
loops. Phases last 50 time constants, in double precision, since differences are divided by beta.

It takes 15 minutes.

The last line on screen:  accuracy (%) with beta 0.1: AR 91.4, EP 91.3, one phase 88.4, no correction 47.9
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from actrelax import Network, RelaxationProblem, Settle, Steps, settle
from actrelax.analysis import figures
from actrelax.analysis.recurrent_gradients import along, nudged, updates_of
from actrelax.models.learning import SETTLE, Backward, Rule
from actrelax.simulations.data import digits
from actrelax.simulations.studies.common import OUT, report, trained
from actrelax.simulations.studies.loops import (
    HIERARCHY,
    MEASURES,
    Gradient,
    by_measure,
    learned,
    means,
    settled_problem,
)
from actrelax.simulations.suites.suite import varied

EPOCHS = 5
SEEDS = 3
SAMPLES = 200
ETA, STEPS = 0.5, 100
FREE = Settle(Steps.until(1e-6, eta=0.5, most=200))
BETAS = (0.001, 0.01, 0.1, 1.0)
"""Strengths of the nudge for the angles."""
TRAINED = (0.01, 0.1)
"""Strengths of the nudge in training."""
WAYS: Mapping[str, Mapping[str, bool]] = {
    "EP": {},
    "one phase": {"is_centred": False},
    "no correction": {"is_corrected": False},
}


def main(
    out: Path = OUT,
    epochs: int = EPOCHS,
    seeds: int = SEEDS,
    samples: int = SAMPLES,
    betas: Sequence[float] = BETAS,
    train_with: Sequence[float] = TRAINED,
) -> dict[str, Any]:
    """Measure angles in trained networks, train, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    epochs, seeds, samples : int
        Length and number of trainings; number of test digits.
    betas, train_with : sequence of float
        Strengths of the nudge for the angles and in training.

    Returns
    -------
    dict
        "angle": way -> measure -> beta -> degrees, and "AR" -> measure -> degrees; "accuracy": way -> beta -> percent,
        and "AR" -> percent. Means over the networks.
    """
    problems = [settled_problem(learned(epochs, seed), samples) for seed in range(seeds)]
    pairs = [(problem, Gradient.of(problem)) for problem in problems]
    angles = {
        name: by_measure(
            ((beta, gradient.angles(problem, estimate(problem, beta, how))) for beta in betas)
            for problem, gradient in pairs
        )
        for name, how in WAYS.items()
    }
    relaxed = by_measure(
        ((n, gradient.angles(problem, state)) for n, state in along(problem, ETA, [STEPS]))
        for problem, gradient in pairs
    )
    accuracies = {
        name: {beta: [accuracy(seed, epochs, rule(beta, how)) for seed in range(seeds)] for beta in train_with}
        for name, how in WAYS.items()
    }
    references = [accuracy(seed, epochs) for seed in range(seeds)]

    with figures.saved(out / "equilibrium_propagation.png", columns=2) as (_, (left, right)):
        figures.sensitivity(left, {name: of["digit"] for name, of in angles.items()}, "beta")
        left.axhline(fmean(relaxed["digit"][STEPS]), color="0.4", linewidth=1, linestyle="-", label="AR")
        left.set(ylabel="angle to the gradient (degrees)", yscale="log", ylim=(1e-3, 180))
        left.legend(loc="center left")
        figures.sensitivity(right, accuracies, "beta in training")
        right.axhline(fmean(references), color="0.4", linewidth=1, linestyle="-", label="AR")
        right.set(ylabel="accuracy on test images (%)", ylim=(0, 100))
        right.legend(loc="lower right")
    numbers: dict[str, Any] = {
        "angle": {
            **{name: {m: means(of[m]) for m in MEASURES} for name, of in angles.items()},
            "AR": {m: fmean(of[STEPS]) for m, of in relaxed.items()},
        },
        "accuracy": {**{name: means(of) for name, of in accuracies.items()}, "AR": fmean(references)},
    }
    last = train_with[-1]
    report(
        out / "equilibrium_propagation.json",
        numbers,
        *(
            f"{name}, beta {beta:g}: {degrees:.1f} degrees for the median digit"
            for name in WAYS
            for beta, degrees in numbers["angle"][name]["digit"].items()
        ),
        *(f"{name}, beta {b:g}: {numbers['accuracy'][name][b]:.1f} %" for name in WAYS for b in train_with[:-1]),
        f"accuracy (%) with beta {last:g}: AR {numbers['accuracy']['AR']:.1f}, "
        + ", ".join(f"{name} {numbers['accuracy'][name][last]:.1f}" for name in WAYS),
    )
    return numbers


def estimate(problem: RelaxationProblem, beta: float, how: Mapping[str, bool]) -> dict[str, Tensor]:
    """Return the estimated gradient of the activities."""
    ((_, state),) = nudged(problem, ETA, beta, [STEPS], **how)
    return dict(state)


def rule(beta: float, how: Mapping[str, bool]) -> Rule:
    """Return a rule that learns from the estimated gradient of the activities, as AR from its activities."""

    def learn(network: Network, x: Tensor, y: Tensor) -> Backward:
        exact = copy.deepcopy(network).double()
        free = settle(exact, x.double(), FREE)
        problem = RelaxationProblem.from_batch(exact, free, y, start="zero")
        updates = {id(own): update for own, update in updates_of(problem, estimate(problem, beta, how))}
        for parameter, own in zip(network.parameters(), exact.parameters(), strict=True):
            parameter.grad = updates[id(own)].to(parameter)
        output = free.activities[network.output].to(x)
        finite = torch.stack([update.isfinite().all() for update in updates.values()]).all()
        return Backward(torch.nn.functional.cross_entropy(output, y), output, finite, len(x))

    return learn


def accuracy(seed: int, epochs: int, rule: Rule | None = None) -> float:
    """Train, by AR if no rule is given, and return the accuracy on the test images, in percent."""
    test = digits().test
    with warnings.catch_warnings(action="ignore"):  # of samples that have not settled
        network = trained(varied(HIERARCHY, {"epochs": epochs, "seed": seed}), rule=rule)
        output = settle(network, test.images, Settle(SETTLE)).activities[network.output]
    return 100 * float((output.argmax(1) == test.labels).double().mean())


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
