"""When a network with loops settles: gain, time constants, delays and assumptions.

With one time constant, both phases settle if the largest real part of the eigenvalues of the loop M = D W is below 1,
with D the gains. Feedback other than W^T D has its own eigenvalues.

Upper left: largest real part in a population of 300 units against the size of its random recurrent weights, sigma
sqrt(N), for the true feedback and its replacements; circles are the circular law, sigma sqrt(N <g^2>), for random
feedback. Upper right: largest real part of the eigenvalues of the Jacobian among 20 random sets of time constants per
population, against their spread; the phases settle below 0. Lower left: delay of all feedback up to which a population
with common inhibition settles, predicted (line), and relaxations with 0.9 and 1.1 times that delay (dots settle,
crosses grow). Lower right: the largest real part of the feedback, over 4 test digits, while a hierarchy learns the
digits with different feedback.

It takes 2 minutes.

The last line on screen:  random feedback: at most 0.10 off the circular law
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from actrelax import Network, Projection, RelaxationProblem, Settle, Steps, build, settle, solve
from actrelax.analysis import figures
from actrelax.analysis.stability import stability, worst_time_constants
from actrelax.analysis.style import written
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.examples.inhibition_stabilised import excitatory_inhibitory
from actrelax.simulations.studies.common import OUT, at_epoch, curves, followed, report
from actrelax.simulations.studies.loops import HIERARCHY, abscissae
from actrelax.simulations.suites.recurrent import DECAY
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.assumption_names import assumptions_named
from actrelax.simulations.training.state import Training

if TYPE_CHECKING:  # importing matplotlib first would look for a backend
    from matplotlib.axes import Axes

Curves = dict[str, dict[float, list[float]]]
"""Label -> position -> values."""

# random recurrent weights
GAINS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
DRAWS = 3
FEEDBACK = {
    "true feedback": "ar",
    "random": "random-feedback",
    "sign-concordant": "sign-feedback",
    "current gains": "unfrozen-relaxation",
    "no gains": "no-derivatives-relaxation",
}

# time constants
SPREADS = (1.5, 2.0, 3.0, 5.0, 10.0)
TRIES = 20

# delays
INHIBITION = (1.5, 2.0, 3.0, 4.0, 6.0)
SHARES = (0.9, 1.1)  # of the largest delay

# learning
EPOCHS = 8
CONDITIONS: dict[str, Options] = {
    "true feedback": {},
    "random": {"assumptions": "random-feedback"},
    "sign-concordant": {"assumptions": "sign-feedback"},
    "learned": {"assumptions": "learned-feedback", "unsettled": "drop"},
    "Kolen-Pollack": {"assumptions": "kolen-pollack", "decay": DECAY, "unsettled": "drop"},
    "no gains": {"assumptions": "no-derivatives-relaxation"},
}
SEEN = 4  # digits


def main(
    out: Path = OUT,
    gains: Sequence[float] = GAINS,
    draws: int = DRAWS,
    spreads: Sequence[float] = SPREADS,
    tries: int = TRIES,
    inhibition: Sequence[float] = INHIBITION,
    epochs: int = EPOCHS,
    conditions: Mapping[str, Options] = CONDITIONS,
) -> dict[str, Any]:
    """Measure, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    gains, spreads, inhibition : sequence of float
        Sizes of recurrent weights, spreads of time constants, and summed weights of common inhibition.
    draws, tries : int
        Number of random networks, and of sets of time constants.
    epochs : int
    conditions : mapping
        Label -> options of training.

    Returns
    -------
    dict
        "gain": feedback -> size of weights -> abscissa; "circular law": size -> predicted for random feedback; "off the
        law": random or sign-concordant -> largest difference of a network from it; "spread": network -> spread -> worst
        abscissa of the Jacobian; "margin": inhibition -> delay; "growth": inhibition -> share of the margin -> growth
        per tau; "learning": condition -> accuracy in percent and abscissa of both phases after the last epoch, and of
        the backward phase the "largest" after an epoch, and the first epoch "above 1 after" it (nan if there is none).
    """
    by_gain, law = against_gain(gains, draws)
    by_spread = against_spread(spreads, tries)
    margins, growth = against_inhibition(inhibition)
    with warnings.catch_warnings(action="ignore"):  # of samples that have not settled
        rows = followed(varied(HIERARCHY, {"epochs": epochs}), conditions, while_learning, seeds=1)
    with written(out / "recurrent_stability.png", (9.6, 7.4)) as figure:
        (upper_left, upper_right), (lower_left, lower_right) = figure.subplots(2, 2)
        draw(upper_left, by_gain, "size of recurrent weights, sigma sqrt(N)", "largest real part of the feedback")
        figures.circles(upper_left, list(law), list(law.values()), label="circular law")
        upper_left.legend(fontsize="small")
        draw(upper_right, by_spread, "spread of time constants", "largest real part of the Jacobian (1 / tau)", rest=0)
        upper_right.set(xscale="log", yscale="symlog")
        upper_right.set_xticks(spreads, [f"{spread:g}" for spread in spreads])
        upper_right.set_xticks([], minor=True)
        draw_delays(lower_left, margins, growth)
        figures.over_epochs(lower_right, curves(rows, "backward"), "largest real part of the feedback")
        lower_right.axhline(1, color="0.6", linewidth=1, linestyle="-")
        lower_right.legend(fontsize="small")
    learning = {label: {**at_epoch(of, epochs), **peak(of)} for label, of in rows.groupby("condition", sort=False)}
    numbers: dict[str, Any] = {
        "gain": {label: {gain: fmean(v) for gain, v in of.items()} for label, of in by_gain.items()},
        "circular law": law,
        "off the law": {
            label: max(abs(v - law[gain]) for gain, of in by_gain[label].items() for v in of)
            for label in ("random", "sign-concordant")
        },
        "spread": {label: {spread: v[0] for spread, v in of.items()} for label, of in by_spread.items()},
        "margin": margins,
        "growth": {strength: dict(zip(SHARES, rates, strict=True)) for strength, rates in growth.items()},
        "learning": learning,
    }
    report(
        out / "recurrent_stability.json",
        numbers,
        *(f"{label}: {listed(of)}" for label, of in numbers["gain"].items()),
        *(f"time constants, {label}: {listed(of)}" for label, of in numbers["spread"].items()),
        f"delay margins: {listed(margins)}; growth per tau at 0.9 and 1.1 of them: {growth}",
        *(f"learned with {label}: {listed(of)}" for label, of in learning.items()),
        f"random feedback: at most {numbers['off the law']['random']:.2f} off the circular law",
    )
    return numbers


def draw(ax: Axes, of: Curves, xlabel: str, ylabel: str, rest: float = 1) -> None:
    """Draw curves, and the line below which phases settle."""
    for number, (label, values) in enumerate(of.items()):
        figures.band(ax, label, values, number=number)
    ax.axhline(rest, color="0.6", linewidth=1, linestyle="-")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()


def draw_delays(ax: Axes, margins: Mapping[float, float], growth: Mapping[float, Sequence[float]]) -> None:
    """Draw the predicted delay margin against inhibition, and whether relaxations settle at shorter and longer ones."""
    ax.plot(list(margins), list(margins.values()), label="predicted margin")
    tried = [(s, share * margins[s], rate) for s in growth for share, rate in zip(SHARES, growth[s], strict=True)]
    for mark, outcome in ((".", "settles"), ("x", "grows")):
        points = [(s, delay) for s, delay, rate in tried if (rate > 0) == (outcome == "grows")]
        ax.plot(*zip(*points, strict=True), mark, color="0.3", label=outcome)
    ax.set(xlabel="common inhibition", ylabel="delay of all feedback (tau)", ylim=(0, None))
    ax.legend()


def listed(of: Mapping[Any, float]) -> str:
    """Return values as text."""
    return ", ".join(f"{key} {value:.2f}" for key, value in of.items())


def against_gain(gains: Sequence[float], draws: int) -> tuple[Curves, dict[float, float]]:
    """Return the abscissae of each feedback, and the circular law for random feedback, against sigma sqrt(N)."""
    found: Curves = {label: {gain: [] for gain in gains} for label in FEEDBACK}
    law: dict[float, list[float]] = {gain: [] for gain in gains}
    for gain in gains:
        for seed in range(draws):
            network = build("rec", input_shape=(64,), generator=random_stream(seed, "weights")).double()
            loop = network.projections["hidden1->hidden1"]
            assert loop.weight is not None
            with torch.no_grad():
                loop.weight.mul_(gain / (loop.weight.std() * loop.weight.shape[0] ** 0.5))
            problem = settled(network)
            g = 1 - problem.feedforward.activities["hidden1"] ** 2
            law[gain].append(gain * float((g**2).mean()) ** 0.5)
            for label, name in FEEDBACK.items():
                own = copy.deepcopy(network)
                own.add_feedback(name, random_stream(seed, "feedback"))
                (alpha,) = abscissae(replace(problem, network=own, assumptions=assumptions_named(name)), 1)
                found[label][gain].append(alpha)
    return found, {gain: fmean(values) for gain, values in law.items()}


def settled(network: Network, samples: int = 1) -> RelaxationProblem:
    """Return the relaxation from zero for test digits at settled rates."""
    test, shape = digits().test, network.populations[network.input].shape
    x, y = test.images[:samples].double().reshape(-1, *shape), test.labels[:samples]
    with warnings.catch_warnings(action="ignore"):  # of rates that have not settled
        rates = settle(network, x, Settle(Steps.until(1e-6, eta=0.3, most=1000)))
    return RelaxationProblem.from_batch(network, rates, y, start="zero")


def against_spread(spreads: Sequence[float], tries: int) -> Curves:
    """Return the largest abscissa of the Jacobian for random time constants, against their spread."""
    networks = {
        "excitatory and inhibitory": excitatory_inhibitory(),
        "hierarchy": build("hierarchy", input_shape=(64,), generator=random_stream(0, "weights")).double(),
    }
    found: Curves = {}
    for label, network in networks.items():
        problem = settled(network)
        found[label] = {
            spread: [worst_time_constants(problem, tries, random_stream(0, "taus"), spread=spread)[0]]
            for spread in spreads
        }
    return found


def against_inhibition(strengths: Sequence[float]) -> tuple[dict[float, float], dict[float, list[float]]]:
    """Return the predicted delay margins, and growth per tau at 0.9 and 1.1 times that delay."""
    margins, growth = {}, {}
    for strength in strengths:
        generator = random_stream(0, "weights")
        layers = [nn.Linear(*sizes, bias=False) for sizes in ((64, 60), (60, 60), (60, 10))]
        ends = ("input", "a"), ("a", "a"), ("a", "output")
        projections = [Projection(*pair, layer) for pair, layer in zip(ends, layers, strict=True)]
        network = Network((64,), {"a": "tanh", "output": "identity"}, projections).double()
        with torch.no_grad():
            for layer in layers:
                layer.weight.normal_(0, 0.3 / layer.in_features**0.5, generator=generator)
            layers[1].weight.sub_(strength / 60)
        problem = settled(network)
        margins[strength] = stability(problem).delay_margin
        growth[strength] = [growth_with_delay(problem, share * margins[strength]) for share in SHARES]
    return margins, growth


def growth_with_delay(problem: RelaxationProblem, delay: float, duration: float = 80.0) -> float:
    """Return the growth rate of a relaxation's deviation from the gradient, in 1 / tau, over its last half."""
    exact = solve(problem, "equilibrium", Steps.until(1e-12)).final["a"]
    late = replace(problem, delays=delay)
    found = solve(late, "euler", Steps(round(20 * duration / delay), dt=delay / 20), record=["a"])
    size = (found["a"] - exact).flatten(1).norm(dim=1)
    half, quarter = len(size) // 2, len(size) // 4
    return float((size[-quarter:].max() / size[half:-quarter].max()).log()) / (duration / 4)


def while_learning(training: Training, options: Options) -> dict[str, float]:
    """Return the abscissae of both phases, over the first test digits."""
    network = copy.deepcopy(training.network).double()
    problem = settled(network, SEEN)
    feedback = replace(problem, assumptions=assumptions_named(str(options.get("assumptions", "ar"))))
    return {"forward": max(abscissae(problem, SEEN, "forward")), "backward": max(abscissae(feedback, SEEN))}


def peak(rows: pd.DataFrame) -> dict[str, float]:
    """Return the largest abscissa of the backward phase, and the first epoch after which it is above 1."""
    return {"largest": rows["backward"].max(), "above 1 after": rows["epoch"][rows["backward"] > 1].min()}


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
