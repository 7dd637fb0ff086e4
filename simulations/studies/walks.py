"""How many hops a relaxation needs on a network with loops: angle of the update and accuracy after training.

A hop is a step of eta = 1 from a zero state, which carries signals across one more connection; after k hops the state
is the sum over all walks of at most k connections from the output. The three populations get their first signals after
one, two and three hops, and learn nothing before. Three hops are enough for the accuracy of a settled relaxation,
although the angle to the gradient is far from zero. From the rates, where AR starts on networks without loops, a few
hops are worse than no learning in the loop.

With smaller steps the walks are weighted by the probability that the steps suffice, P(K >= k) with K ~ Binomial(n, eta)
(docs/theory.md); this holds to rounding.

Left: angle to the gradient at settled rates, for 200 test digits and trained networks. Middle: contribution of walks of
k connections to each population, relative to its gradient. Right: test accuracy of networks trained with few hops, with
controls. Dots are networks, lines the means of three. It takes 6 minutes.

The last line on screen:  accuracy (%): 1 hop 83.1, 2 hops 91.1, 3 hops 94.9, 5 hops 95.3, 10 hops 95.4, settled 95.5
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import binom

from actrelax import RelaxationProblem
from actrelax.analysis import figures
from actrelax.analysis.recurrent_gradients import along
from actrelax.models.problem import State
from actrelax.models.results import relative_error
from actrelax.simulations.studies.common import OUT, followed, mean_and_range, report
from actrelax.simulations.studies.loops import HIERARCHY, Angles, Gradient, by_measure, learned, settled_problem
from actrelax.simulations.suites.recurrent import BY_HOPS, INPUT, WITHIN_CYCLES
from actrelax.simulations.suites.suite import Options, varied

# training
EPOCHS = 10
SEEDS = 3
INSIDE = WITHIN_CYCLES["hierarchy"]
CONTROLS: dict[str, Options] = {
    "settled": {},
    "loop frozen": {"freeze": tuple(f"{name}.weight" for name in INSIDE)},
    "readout only": {"freeze": (INPUT["hierarchy"], *INSIDE)},
}
FROM_ZERO = (1, 2, 3, 5, 10)
FROM_THE_RATES = (3, 10, 30)

# angles
HOPS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
SAMPLES = 200
CHECKED = ((0.5, 8), (0.2, 30))  # eta and steps of the law

Curves = Mapping[str, Mapping[float, Sequence[float]]]
"""Label -> number of hops or length of walks -> value for each network."""


def main(
    out: Path = OUT,
    epochs: int = EPOCHS,
    seeds: int = SEEDS,
    samples: int = SAMPLES,
    zero: Sequence[int] = FROM_ZERO,
    rates: Sequence[int] = FROM_THE_RATES,
    controls: Mapping[str, Options] = CONTROLS,
) -> dict[str, Any]:
    """Measure angles in trained networks, train with few hops, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    epochs, seeds, samples : int
        Length and number of trainings; number of test digits.
    zero, rates : sequence of int
        Numbers of hops to train with, from a zero state and from the rates.
    controls : mapping
        Further conditions, "settled" among them.

    Returns
    -------
    dict
        "angle": start -> measure -> hops -> degrees; "size": population -> length of walks -> contribution relative to
        the gradient; "law": largest relative difference; "accuracy": condition -> percent for each network.
    """
    problems = [settled_problem(learned(epochs, seed), samples) for seed in range(seeds)]
    gradients = [Gradient.of(problem) for problem in problems]
    angles = {
        "from zero": angles_by_hops(problems, gradients),
        "from the rates": angles_by_hops([replace(p, start="feedforward") for p in problems], gradients),
    }
    walks = [by_length(problem, max(HOPS)) for problem in problems]
    sizes = {name: contributions(name, walks, gradients) for name in problems[0].network.hidden}
    law = max(off_the_law(p, of) for p, of in zip(problems, walks, strict=True))
    conditions = {**controls, **hops_of(zero, "zero"), **hops_of(rates, "feedforward")}
    accuracy = accuracies(conditions, epochs, seeds)
    trained_with: Curves = {
        "from zero": {k: accuracy[f"{k} hops from zero"] for k in zero},
        "from the rates": {k: accuracy[f"{k} hops from the rates"] for k in rates},
    }
    draw(out / "walks.png", angles, sizes, trained_with, {control: accuracy[control] for control in controls})
    numbers = {
        "angle": {s: {m: {k: fmean(v) for k, v in by.items()} for m, by in of.items()} for s, of in angles.items()},
        "size": {name: {k: fmean(v) for k, v in of.items()} for name, of in sizes.items()},
        "law": law,
        "accuracy": {c: mean_and_range(v) for c, v in accuracy.items()},
    }
    report(
        out / "walks.json",
        numbers,
        *(f"{c}: {fmean(v):.1f} % ({min(v):.1f} to {max(v):.1f})" for c, v in accuracy.items()),
        f"law of walks: {law:.0e} off",
        "accuracy (%): "
        + ", ".join(f"{k} hop{'s' * (k > 1)} {fmean(accuracy[f'{k} hops from zero']):.1f}" for k in zero)
        + f", settled {fmean(accuracy['settled']):.1f}",
    )
    return numbers


def angles_by_hops(problems: Sequence[RelaxationProblem], gradients: Sequence[Gradient]) -> Angles:
    """Return the angles after each number of hops."""
    return by_measure(
        ((k, gradient.angles(problem, state)) for k, state in along(problem, 1.0, HOPS))
        for problem, gradient in zip(problems, gradients, strict=True)
    )


def by_length(problem: RelaxationProblem, most: int) -> list[State]:
    """Return the sums over all walks of 1, 2, ... connections from the output."""
    before, found = problem.initial_state(), []
    for _, state in along(problem, 1.0, range(1, most + 1)):
        found.append({name: state[name] - before[name] for name in problem.network.hidden})
        before = state
    return found


def contributions(
    population: str, walks: Sequence[Sequence[State]], gradients: Sequence[Gradient]
) -> dict[float, list[float]]:
    """Return length of walks -> their sum's norm over the gradient's, per network; lengths up to 30 that arrive."""
    norms = [gradient.activities[population].norm() for gradient in gradients]
    return {
        k + 1: [float(of[k][population].norm() / norm) for of, norm in zip(walks, norms, strict=True)]
        for k in range(30)
        if walks[0][k][population].any()
    }


def off_the_law(problem: RelaxationProblem, walks: Sequence[State]) -> float:
    """Return the largest relative difference of states after several steps from the weighted sum over walks."""
    off = []
    for eta, steps in CHECKED:
        ((_, state),) = along(problem, eta, [steps])
        for name in problem.network.hidden:
            terms = [float(binom.sf(k, steps, eta)) * walks[k][name] for k in range(steps)]
            off.append(relative_error(sum(terms[1:], terms[0]), state[name]))
    return max(off)


def hops_of(counts: Sequence[int], start: str) -> dict[str, Options]:
    """Return one condition for each number of hops."""
    place = "the rates" if start == "feedforward" else start
    how = {**BY_HOPS, "start": start}
    return {f"{k} hops from {place}": {"steps": k, **how} for k in counts}


def accuracies(conditions: Mapping[str, Options], epochs: int, seeds: int) -> dict[str, list[float]]:
    """Train under each condition; return the final accuracies on the test images, in percent."""
    with warnings.catch_warnings(action="ignore"):  # about samples that do not settle during training
        rows = followed(varied(HIERARCHY, {"epochs": epochs}), conditions, lambda training, options: {}, seeds)
    final = rows[rows["epoch"] == epochs]
    return {c: (100 * final["accuracy"][final["condition"] == c]).tolist() for c in conditions}


def draw(
    path: Path,
    angles: Mapping[str, Angles],
    sizes: Curves,
    trained_with: Curves,
    controls: Mapping[str, Sequence[float]],
) -> None:
    """Draw angles against hops, contributions against length, and accuracies (percent) against hops in training."""
    with figures.saved(path, columns=3) as (_, (left, middle, right)):
        shown = {f"{start}, {measure}": by_hops for start, of in angles.items() for measure, by_hops in of.items()}
        figures.sensitivity(left, shown, "hops")
        left.set(ylabel="angle to the gradient (degrees)", ylim=(0, 180), yticks=range(0, 181, 45))
        left.legend(loc="upper right")
        for name, of_length in sizes.items():
            middle.semilogy(list(of_length), [fmean(values) for values in of_length.values()], label=name)
        middle.set(xlabel="length of the walks", ylabel="contribution (relative to the gradient)")
        middle.legend()
        figures.sensitivity(right, trained_with, "hops in training")
        for (control, accuracy), style in zip(controls.items(), ("-", "--", ":"), strict=False):
            right.axhline(fmean(accuracy), color="0.4", linewidth=1, linestyle=style, label=control)
        right.set(ylabel="accuracy on test images (%)", ylim=(0, 100))
        right.legend(loc="center left", bbox_to_anchor=(1, 0.5))


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
