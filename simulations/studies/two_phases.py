"""How long both phases of a network with loops must last: angles to the gradient at settled rates.

After twenty time constants per phase, from a zero state, the median digit is within a few degrees of its gradient. The
update of a batch is still far off: the few digits that the network gets wrong make up most of it, and their loops are
nearer to instability. From the rates, where AR starts on networks without loops, the median digit takes longer. A
forward phase that ends too early holds gains with which the relaxation may not settle at all.

A network that has learned the digits sees 200 test digits. Shown are the angle of the update for all of them, and the
median angle of the activities for single digits. Left: against the length of the relaxation, after rates have settled.
Middle: against the length of the forward phase, before a relaxation of 60 tau. Right: the largest real part of an
eigenvalue of the loop, over 8 digits, with the gains at the end of the forward phase. Dots are three networks, lines
their mean.

It takes 2 minutes.

The last line on screen:  relaxation of 10 tau from zero: 39 degrees from the gradient, half of the digits below 8
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from actrelax import ForwardProblem, RelaxationProblem, Steps, solve
from actrelax.analysis import figures
from actrelax.analysis.recurrent_gradients import along, updates
from actrelax.simulations.data import random_stream
from actrelax.simulations.studies.common import OUT, report
from actrelax.simulations.studies.loops import (
    MEASURES,
    Angles,
    Gradient,
    abscissae,
    angle,
    by_measure,
    learned,
    means,
    settled_problem,
)

# training
EPOCHS = 10
SEEDS = 3

# phases, in tau
DT = 0.1
BACKWARD = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60)
FORWARD = (1, 2, 3, 5, 10, 20, 40)

SAMPLES = 200
EIGENVALUES_OF = 8
NOISE_IN_RATES = 0.1
LATE = 20  # tau, with delays

Change = Callable[[RelaxationProblem, int], RelaxationProblem]
"""(settled problem, seed) -> the relaxation to measure."""


def main(
    out: Path = OUT,
    epochs: int = EPOCHS,
    seeds: int = SEEDS,
    samples: int = SAMPLES,
    forward: Sequence[float] = FORWARD,
    backward: Sequence[float] = BACKWARD,
) -> dict[str, Any]:
    """Train, measure the angles, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    epochs, seeds, samples : int
        Length and number of trainings; number of test digits.
    forward, backward : sequence of float
        Durations of both phases, in tau, ascending.

    Returns
    -------
    dict
        "from zero", "from the rates", "forward phase", "delays of 1 tau": measure -> duration -> angle in degrees;
        "noise in the relaxation", "noise in the rates": measure -> angle; "abscissa": duration of the forward phase or
        "settled" -> least and most; "right" and "wrong", of the network's answers: see `by_answer`, with the angle
        after 20 tau. Angles are means over the networks.
    """
    problems = [settled_problem(learned(epochs, seed), samples) for seed in range(seeds)]
    gradients = [Gradient.of(problem) for problem in problems]
    last, seen = backward[-1], min(EIGENVALUES_OF, samples)

    def measured(times: Sequence[float], change: Change) -> Angles:
        pairs = enumerate(zip(problems, gradients, strict=True))
        return by_measure(
            angles_after(change(problem, seed), gradient, times, seed) for seed, (problem, gradient) in pairs
        )

    curves = {
        "from zero": measured(backward, lambda problem, _: problem),
        "from the rates": measured(backward, lambda problem, _: replace(problem, start="feedforward")),
    }
    late = sorted({min(LATE, last), last})
    curves["delays of 1 tau"] = measured(late, lambda problem, _: replace(problem, delays=1.0))
    cut = {t: measured([last], partial(after, time=t)) for t in forward}
    curves["forward phase"] = {m: {t: cut[t][m][last] for t in forward} for m in MEASURES}
    others = {
        "noise in the relaxation": measured([last], lambda problem, seed: noisy(problem, gradients[seed])),
        "noise in the rates": measured([last], partial(after, time=last, noise=NOISE_IN_RATES)),
    }
    alphas = {t: [max(abscissae(after(p, time=t), seen)) for p in problems] for t in forward}
    answers = [by_answer(problem, gradient, LATE) for problem, gradient in zip(problems, gradients, strict=True)]
    at_rest = [abscissa for p in problems for abscissa in abscissae(p, seen)]
    draw(out / "two_phases.png", curves, alphas)
    numbers: dict[str, Any] = {
        **{label: {m: means(of[m]) for m in MEASURES} for label, of in curves.items()},
        **{label: {m: fmean(of[m][last]) for m in MEASURES} for label, of in others.items()},
        "abscissa": {t: ends(of) for t, of in alphas.items()} | {"settled": ends(at_rest)},
        **{label: {of: fmean(each[label][of] for each in answers) for of in answers[0][label]} for label in answers[0]},
    }
    report(
        out / "two_phases.json",
        numbers,
        *(f"{label}, {m}: {listed(numbers[label][m])}" for label in curves for m in MEASURES),
        *(f"{label}: {numbers[label]['update']:.1f}, {numbers[label]['digit']:.1f} degrees" for label in others),
        *(
            f"digits with the {label} answer: {numbers[label]['digits']:.0f} of {samples}, largest real part "
            f"{numbers[label]['abscissa']:.2f}, {numbers[label]['share']:.0f} % of the squared gradients, "
            f"update {numbers[label]['angle']:.1f} degrees off"
            for label in answers[0]
        ),
        f"largest real part: {listed({t: fmean(of) for t, of in alphas.items()}, 2)}",
        "relaxation of 10 tau from zero: {:.0f} degrees from the gradient, half of the digits below {:.0f}".format(
            *(numbers["from zero"][m].get(10, numbers["from zero"][m][last]) for m in MEASURES)
        ),
    )
    return numbers


def draw(path: Path, curves: Mapping[str, Angles], alphas: Mapping[float, Sequence[float]]) -> None:
    """Draw angles against the durations of both phases, and abscissae against that of the forward phase."""
    with figures.saved(path, columns=3) as (_, (left, middle, right)):
        shown = {f"{start}, {m}": of for start in ("from zero", "from the rates") for m, of in curves[start].items()}
        figures.sensitivity(left, shown, "relaxation (tau)")
        figures.sensitivity(middle, curves["forward phase"], "forward phase (tau)")
        for ax in (left, middle):
            ax.set(ylabel="angle to the gradient (degrees)", ylim=(0, 180), yticks=range(0, 181, 45))
            ax.legend(loc="upper right")
        figures.sensitivity(right, {"": alphas}, "forward phase (tau)")
        right.axhline(1, color="0.6", linewidth=1, linestyle="-")
        right.set(ylabel="largest real part of an eigenvalue")


def angles_after(
    problem: RelaxationProblem, gradient: Gradient, times: Sequence[float], seed: int
) -> Iterable[tuple[float, tuple[float, float]]]:
    """Yield the angles after several times of a relaxation by Euler's scheme."""
    if problem.delays or problem.noise:
        for t in times:
            steps, generator = Steps(round(t / DT), dt=DT), random_stream(seed, "noise")
            yield t, gradient.angles(problem, dict(solve(problem, "euler", steps, generator=generator).final))
        return
    for t, (_, state) in zip(times, along(problem, DT, [round(t / DT) for t in times]), strict=True):
        yield t, gradient.angles(problem, state)


def by_answer(problem: RelaxationProblem, gradient: Gradient, time: float) -> dict[str, dict[str, float]]:
    """Compare the digits that the network gets right with those that it gets wrong.

    Returns
    -------
    dict
        "right" or "wrong" -> "digits", their number; "abscissa", the mean of the largest real parts of their loops;
        "share" of the sum of squared gradients of the activities, in percent; "angle" of their update to the gradient
        after a relaxation of this time.
    """
    ((_, state),) = along(problem, DT, [round(time / DT)])
    squares = torch.cat([gradient.activities[name].flatten(1) for name in problem.relaxing], 1).square().sum(1)
    alphas = torch.tensor(abscissae(problem, len(squares)))
    right = problem.feedforward.activities[problem.network.output].argmax(1).eq(torch.as_tensor(problem.target))
    found = {}
    for label, these in (("right", right), ("wrong", ~right)):
        both = state, {**state, **gradient.activities}
        only = [{name: x * these[:, None] for name, x in of.items()} for of in both]
        found[label] = {
            "digits": float(these.sum()),
            "abscissa": float(alphas[these].mean()),
            "share": 100 * float(squares[these].sum() / squares.sum()),
            "angle": angle(*(updates(problem, of) for of in only)),
        }
    return found


def after(problem: RelaxationProblem, seed: int = 0, *, time: float, noise: float = 0.0) -> RelaxationProblem:
    """Return the relaxation after a forward phase from silence that ends at `time`."""
    network = problem.network
    forward = ForwardProblem(network, problem.feedforward.activities[network.input], noise=noise)
    steps, generator = Steps(round(time / DT), dt=DT), random_stream(seed, "noise")
    passed = forward.feedforward_pass(solve(forward, "euler", steps, generator=generator).state)
    assert problem.target is not None
    return RelaxationProblem.from_batch(network, passed, problem.target, start="zero")


def noisy(problem: RelaxationProblem, gradient: Gradient) -> RelaxationProblem:
    """Return the relaxation with noise in each unit, whose standard deviation is the mean size of the gradients."""
    sizes = [float(gradient.activities[name].abs().mean()) for name in problem.network.hidden]
    return replace(problem, noise=fmean(sizes))


def ends(values: Sequence[float]) -> dict[str, float]:
    """Return the smallest and the largest value."""
    return {"least": min(values), "most": max(values)}


def listed(of: Mapping[float, float], digits: int = 1) -> str:
    """Return values against time as text."""
    return ", ".join(f"{t:g} tau {value:.{digits}f}" for t, value in of.items())


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
