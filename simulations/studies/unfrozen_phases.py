"""Equilibria of unfrozen relaxations, by weight scale, depth and activation function.

With transposed weights and a smooth activation function every relaxation comes to rest: close to the gradient for small
weights, possibly far from it for large ones. Gains are current, so a chain with transposed weights is a cascade of
gradient flows (`fixed_points`). This study tests that prediction, also for the papers' steps of 0.1 tau, and measures
the distance from backprop's gradient. `simulations/examples/unfrozen.py` shows one network over time.

Each square: weights with standard deviation gain / sqrt(fan-in), times sqrt(2) for relu. Colour: cosine with the
gradient in the lowest population, at the end of an implicit method of SciPy (relu: of small Euler steps). Number:
percentage of digits that come to rest with Euler steps of 0.1.

It takes 2 minutes.

The last line on screen:  gelu, gains 0.5 to 4: 16 starts come to rest at 1, 1, 8, 16, 16 places
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity

from actrelax import RelaxationProblem, SciPyOptions, build, solve
from actrelax.analysis import figures
from actrelax.analysis.fixed_points import resting_places, scattered
from actrelax.analysis.long_time import Ending, ending, fates
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.problem import State
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.common import OUT, report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


ACTIVATIONS = ("tanh", "sigmoid", "gelu", "relu")
DEPTHS = (3, 5, 7)  # layers of weights
GAINS = (0.5, 1.0, 2.0, 3.0, 4.0)
WIDTH = 32
NETWORKS = 2
SAMPLES = 4

# time, in units of tau
ETA = 0.1
FINE = 0.025  # relu
IMPLICIT = SciPyOptions(rtol=1e-5)  # coarse, but sufficient to come to rest
DURATION = 100.0

# assumptions: transposed weights, or separate random feedback weights
CURRENT = PRESETS["unfrozen-relaxation"]
OWN_FEEDBACK = replace(
    CURRENT, dense=replace(CURRENT.dense, feedback="random"), conv=replace(CURRENT.conv, feedback="random")
)

# search for several equilibria
DEEP = 5
STARTS = 16


def main(
    out: Path = OUT,
    activations: Sequence[str] = ACTIVATIONS,
    depths: Sequence[int] = DEPTHS,
    gains: Sequence[float] = GAINS,
    networks: int = NETWORKS,
    samples: int = SAMPLES,
    starts: int = STARTS,
    duration: float = DURATION,
) -> dict[str, dict[Any, Any]]:
    """Relax with current gains for all weight scales and depths, search for several equilibria, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    activations, depths, gains
        Squares of the figure: activation functions, numbers of weight layers, and weights relative to 1 / sqrt(fan-in).
    networks, samples : int
        Number of random networks per square, and of digits per network.
    starts : int
        Number of start states for the search for several equilibria.
    duration : float
        Duration of Euler's relaxations, in units of tau; the implicit method runs ten times as long.

    Returns
    -------
    dict
        Activation -> depth -> gain -> "rests", the share of digits that come to rest (relu: at rest or chattering),
        "stepped", the same with the papers' steps, and "cosine" with the gradient; "smooth" and "relu in all" -> the
        numbers "relaxations" and "rests", "least cosine" and "largest cosine"; "own feedback" -> gain -> share of
        digits that come to rest with random feedback weights; "places" -> activation -> gain -> number of equilibria.
    """
    keys = ["activation", "depth", "gain"]
    ends = (
        dict(zip(keys, square, strict=True)) | end(digits_of(*square, seed, samples), duration)
        for square in itertools.product(activations, depths, map(float, gains))
        for seed in range(networks)
    )
    squares = pd.DataFrame(ends).groupby(keys, sort=False, as_index=False).mean()
    measured: dict[str, dict[Any, Any]] = {}
    lines: list[str] = []
    with figures.saved(out / "unfrozen_phases.png", columns=len(activations)) as (figure, axes):
        for ax, (activation, of) in zip(axes, squares.groupby("activation", sort=False), strict=True):
            columns = of.set_index("gain").groupby("depth")[["rests", "stepped", "cosine"]]
            measured[activation] = {str(depth): by_gain.to_dict("index") for depth, by_gain in columns}
            lines += [f"{activation}, depth {depth}:\n{by_gain.round(2)}" for depth, by_gain in columns]
            image = draw(ax, of)
            ax.set_title(activation)
        figure.colorbar(image, ax=list(axes), label="cosine with the gradient", fraction=0.02, extend="min")
        axes[0].set_ylabel("gain (scale of the weights)")
    for kind, of in squares.groupby(np.where(squares["activation"] == "relu", "relu in all", "smooth")):
        measured[str(kind)] = {
            "relaxations": networks * samples * len(of),
            "rests": round(networks * samples * of["rests"].sum()),
            "least cosine": of["cosine"].min(),
            "largest cosine": of["cosine"].max(),
        }

    random = {gain: digits_of("tanh", depths[0], gain, 0, samples, OWN_FEEDBACK) for gain in gains}
    settled = {gain: float(at_rest(problem, duration).settled.double().mean()) for gain, problem in random.items()}
    measured["own feedback"] = settled
    lines.append(f"tanh, depth {depths[0]}, random feedback weights, settled by gain: {settled}")
    measured["places"] = {}
    for activation in (name for name in activations if name != "relu"):
        places = {gain: len(places_of(activation, gain, starts, duration)) for gain in gains}
        measured["places"][activation] = places
        listed = ", ".join(map(str, places.values()))
        said = f"{starts} starts come to rest at {listed} places"
        lines.append(f"{activation}, gains {gains[0]:g} to {gains[-1]:g}: {said}")
    report(out / "unfrozen_phases.json", measured, *lines)
    return measured


def places_of(activation: str, gain: float, starts: int, duration: float) -> list[State]:
    """Return the distinct equilibria of the first digit from several start states, in a network of depth DEEP."""
    problem = digits_of(activation, DEEP, gain, 0, 1)
    places = list(scattered(problem, starts, random_stream(0, "starts")))
    return resting_places(problem, places, duration=10 * duration, options=IMPLICIT)


def digits_of(
    activation: str, depth: int, gain: float, seed: int, samples: int, assumptions: Assumptions = CURRENT
) -> RelaxationProblem:
    """Return a relaxation of digits with current gains in a random network."""
    network = build(
        f"mlp-{depth}x{WIDTH}", input_shape=(64,), activation=activation, generator=random_stream(seed, "weights")
    ).double()
    with torch.no_grad():
        for p in network.projections.values():
            assert p.weight is not None
            p.weight.mul_(gain)
    network.add_feedback(assumptions, random_stream(seed, "feedback"))
    x, y = (part[:samples] for part in digits().test)
    return RelaxationProblem.from_batch(network, x.flatten(1).double(), y, assumptions=assumptions)


def end(problem: RelaxationProblem, duration: float) -> dict[str, float]:
    """Return the shares of samples that come to rest, exactly and with the papers' steps, and the cosine."""
    network, lowest = problem.network, problem.network.hidden[0]
    stepped = ending(problem, "euler", eta=ETA, duration=duration)
    if network.populations[lowest].activation.name == "relu":
        reached = ending(problem, "euler", eta=FINE, duration=duration)
        settled = 1 - fates(stepped, reached).count("moves") / len(problem.clamped)
    else:
        reached = at_rest(problem, duration)
        settled = float(reached.settled.double().mean())
    gradient = solve(replace(problem, assumptions=PRESETS["ar"]), "equilibrium").final[lowest]
    cosine = float(cosine_similarity(reached.state[lowest], gradient).mean())
    return {"rests": settled, "stepped": float(stepped.settled.double().mean()), "cosine": cosine}


def at_rest(problem: RelaxationProblem, duration: float) -> Ending:
    """Return the long-time behaviour of the ODE, by an implicit method because it is stiff."""
    # ten times as long, since some samples converge slowly and an implicit method takes few steps then
    return ending(problem, "BDF", eta=5.0, duration=10 * duration, options=IMPLICIT)


def draw(ax: Axes, squares: pd.DataFrame) -> AxesImage:
    """Draw the squares of one activation function: cosines as colours, percentages at rest as numbers."""
    cosines, stepped = (squares.pivot(index="gain", columns="depth", values=key) for key in ("cosine", "stepped"))
    image = ax.imshow(cosines, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(stepped):
        colour = "black" if cosines.iloc[row, column] > 0.5 else "white"
        ax.text(column, row, f"{100 * share:.0f}", color=colour, ha="center", va="center")
    ax.set_xticks(range(len(cosines.columns)), map(str, cosines.columns))
    ax.set_yticks(range(len(cosines)), [f"{gain:g}" for gain in cosines.index])
    ax.set(xlabel="depth (weight layers)")
    ax.grid(False)
    return image


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
