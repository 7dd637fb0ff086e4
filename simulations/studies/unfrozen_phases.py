"""When does an unfrozen relaxation settle, and where? Weight scale, depth and activation function.

Gains are those of the moment. A chain with transposed weights is then a cascade of gradient flows (`fixed_points`):
with a smooth activation function every sample should come to rest. Does it, with the papers' steps of 0.1 tau as well,
and how far from backprop's gradient? `simulations/examples/unfrozen.py` shows one network over time.

Each square: weights of standard deviation gain / sqrt(fan-in), times sqrt(2) for relu; colour: the angle's cosine with
the gradient in the lowest population, where an implicit method of SciPy's ends (relu: small steps of Euler's); number:
percent of the digits that come to rest with Euler's steps of 0.1.

It takes 2 minutes.

The last line on screen:  gelu, gains 0.5 to 4: 16 starts come to rest at 1, 1, 8, 16, 16 places
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch.nn.functional import cosine_similarity

from actrelax import RelaxationProblem, SciPyOptions, build, solve
from actrelax.analysis import figures
from actrelax.analysis.fixed_points import resting_places, scattered
from actrelax.analysis.long_time import Ending, ending, fates
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.problem import State
from actrelax.simulations.data import digits, random_stream

ACTIVATIONS = ("tanh", "sigmoid", "gelu", "relu")
DEPTHS = (3, 5, 7)  # layers of weights
GAINS = (0.5, 1.0, 2.0, 3.0, 4.0)
WIDTH = 32
NETWORKS = 2
SAMPLES = 4

# time, in units of tau
ETA = 0.1
FINE = 0.025  # relu
IMPLICIT = SciPyOptions(rtol=1e-5)  # it comes to rest all the same
DURATION = 100.0

# assumptions: transposed weights, or random ones of their own
CURRENT = PRESETS["unfrozen-relaxation"]
OWN_FEEDBACK = replace(
    CURRENT, dense=replace(CURRENT.dense, feedback="random"), conv=replace(CURRENT.conv, feedback="random")
)

# several places to rest
DEEP = 5
STARTS = 16

KEYS = ("rests", "stepped", "cosine")


def main(
    out: Path = Path("runs/studies"),
    activations: Sequence[str] = ACTIVATIONS,
    depths: Sequence[int] = DEPTHS,
    gains: Sequence[float] = GAINS,
    networks: int = NETWORKS,
    samples: int = SAMPLES,
    starts: int = STARTS,
    duration: float = DURATION,
) -> dict[str, dict[str, float]]:
    """Relax with current gains over weight scales and depths, draw, and relax one digit from several states.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    activations : sequence of str
    depths : sequence of int
        Layers of weights.
    gains : sequence of float
        Weights relative to 1 / sqrt(fan-in).
    networks, samples : int
        Random networks a square, and digits each.
    starts : int
        States from which one digit is relaxed.
    duration : float
        Of Euler's relaxations, in units of tau; the implicit method's are ten times as long.

    Returns
    -------
    dict
        "ACTIVATION DEPTH GAIN" -> "rests", the share of digits that the equation brings to rest (relu: that are at
        rest, or chatter by the size of the steps), "stepped", with the papers' steps, "cosine"; "own feedback
        GAIN" -> "settled"; "ACTIVATION places" -> gain -> how many different states a digit comes to rest at.
    """
    measured: dict[str, dict[str, float]] = {}
    with figures.saved(out / "unfrozen_phases.png", columns=len(activations)) as (figure, axes):
        for ax, activation in zip(axes, activations, strict=True):
            for depth in depths:
                for gain in gains:
                    problems = [digits_of(activation, depth, gain, seed, samples) for seed in range(networks)]
                    means = np.mean([end(problem, duration) for problem in problems], axis=0).tolist()
                    measured[f"{activation} {depth} {gain:g}"] = dict(zip(KEYS, means, strict=True))
            for depth in depths:
                of_depth = [measured[f"{activation} {depth} {gain:g}"] for gain in gains]
                for key in KEYS:
                    listed = ", ".join(f"{row[key]:.2f}" for row in of_depth)
                    print(f"{activation}, depth {depth}, gains {gains[0]:g} to {gains[-1]:g}: {key} {listed}")
            image = draw(ax, activation, depths, gains, measured)
        figure.colorbar(image, ax=list(axes), label="cosine with the gradient", fraction=0.02, extend="min")
        axes[0].set_ylabel("gain: scale of the weights")

    for gain in gains:
        problem = digits_of("tanh", depths[0], gain, 0, samples, OWN_FEEDBACK)
        share = float(at_rest(problem, duration).settled.double().mean())
        measured[f"own feedback {gain:g}"] = {"settled": share}
        print(f"tanh, depth {depths[0]}, gain {gain:g}, random feedback weights: {share:.2f} settle")

    for activation in (name for name in activations if name != "relu"):
        places = {gain: places_of(activation, gain, starts, duration) for gain in gains}
        measured[f"{activation} places"] = {f"{gain:g}": float(len(found)) for gain, found in places.items()}
        listed = ", ".join(str(len(found)) for found in places.values())
        print(f"{activation}, gains {gains[0]:g} to {gains[-1]:g}: {starts} starts come to rest at {listed} places")
    return measured


def places_of(activation: str, gain: float, starts: int, duration: float) -> list[State]:
    """Return where the first digit comes to rest from several states, in a network of the depth DEEP."""
    problem = digits_of(activation, DEEP, gain, 0, 1)
    places = list(scattered(problem, starts, random_stream(0, "starts")))
    return resting_places(problem, places, duration=10 * duration, options=IMPLICIT)


def digits_of(
    activation: str, depth: int, gain: float, seed: int, samples: int, assumptions: Assumptions = CURRENT
) -> RelaxationProblem:
    """Return digits to be relaxed with current gains by a random network."""
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


def end(problem: RelaxationProblem, duration: float) -> tuple[float, float, float]:
    """Return the share of samples that come to rest, the same with the papers' steps, and the cosine with backprop."""
    network, lowest = problem.network, problem.network.hidden[0]
    stepped = ending(problem, "euler", eta=ETA, duration=duration)
    if network.populations[lowest].activation.name == "relu":
        reached = ending(problem, "euler", eta=FINE, duration=duration)
        settled = 1 - fates(stepped, reached).count("moves") / len(problem.clamped)
    else:
        reached = at_rest(problem, duration)
        settled = float(reached.settled.double().mean())
    gradient = solve(replace(problem, assumptions=PRESETS["ar"]), "equilibrium").final[lowest]
    return (
        settled,
        float(stepped.settled.double().mean()),
        float(cosine_similarity(reached.state[lowest], gradient).mean()),
    )


def at_rest(problem: RelaxationProblem, duration: float) -> Ending:
    """Return where the equation ends, its stiffness left to an implicit method."""
    # it takes few steps where little happens, and some approach slowly
    return ending(problem, "BDF", eta=5.0, duration=10 * duration, options=IMPLICIT)


def draw(
    ax: Axes,
    activation: str,
    depths: Sequence[int],
    gains: Sequence[float],
    measured: Mapping[str, Mapping[str, float]],
) -> AxesImage:
    """Draw one activation function's squares: cosines as colours, how many come to rest as numbers."""
    rows = [[measured[f"{activation} {depth} {gain:g}"] for depth in depths] for gain in gains]
    cosines = [[square["cosine"] for square in row] for row in rows]
    image = ax.imshow(cosines, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1)
    for i, row in enumerate(rows):
        for j, square in enumerate(row):
            colour = "black" if square["cosine"] > 0.5 else "white"
            ax.text(j, i, f"{100 * square['stepped']:.0f}", color=colour, ha="center", va="center")
    ax.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    ax.set_yticks(range(len(gains)), [f"{gain:g}" for gain in gains])
    ax.set(xlabel="layers of weights", title=activation)
    ax.grid(False)
    return image


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
