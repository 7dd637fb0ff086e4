"""How coarse may feedback weights be?

Feedback runs through the forward weights, each rounded to one of a few values, evenly spaced between the largest
magnitude and its negative. As in `sparse_feedback` that moves the fixed point, at first (crosses) by the angle between
the weights and what has become of them, hop after hop (circles). Most weights are much smaller than the largest: of
three values they have the middle one, 0, and of two a far too large one, which makes small angles and large steps.

The last line on screen:  AR, coarse feedback: a point lost from 3 on, worse than fixed hidden weights at no level
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actrelax.simulations.studies.perturbation import BASE, feedback_angles, study
from actrelax.simulations.studies.perturbation_results import Learned

# how many values a weight can have
LEVELS = (256, 64, 16, 8, 5, 4, 3, 2)
SEEDS = 5


def main(
    out: Path = Path("runs/studies"), levels: Sequence[int] = LEVELS, seeds: int = SEEDS, epochs: int = BASE.epochs
) -> list[Learned]:
    """Train with feedback of every coarseness, and draw what comes of it.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its table.
    levels : sequence of int
        How many values a feedback weight can have, from many.
    seeds, epochs : int
        How many trainings a level, and how long.

    Returns
    -------
    list of Learned
        One per training.
    """
    return study(
        out / "coarse_feedback.png",
        {"AR, coarse feedback": {float(n): {"feedback_transform": f"quantised-{n}"} for n in levels}},
        xlabel="values that a feedback weight can have",
        scale="log",
        seeds=seeds,
        base=replace(BASE, epochs=epochs),
        predicted=feedback_angles,
        first=True,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
