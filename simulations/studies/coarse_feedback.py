"""How coarse may feedback weights be?

Four values are enough. Feedback runs through the forward weights, each rounded to one of a few values, evenly spaced
between the largest magnitude and its negative. Most weights are much smaller than the largest: of three values they
have the middle one, 0, and of two a far too large one, which makes small angles and large steps.

Left: accuracy after training. Right: the angle of updates to backprop's, over training (lines) and at the first batch
(crosses); as in `sparse_feedback` the cosines of hops multiply at first (circles).

It takes a minute.

The last line on screen:  AR, coarse feedback: a point lost from 3 on, worse than fixed hidden weights at no level
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from actrelax.simulations.studies.common import OUT
from actrelax.simulations.studies.perturbation import EPOCHS, SEEDS, feedback_angles, study

LEVELS = (256, 64, 16, 8, 5, 4, 3, 2)


def main(out: Path = OUT, levels: Sequence[int] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train with feedback of every coarseness, and draw; see `perturbation.study`."""
    return study(
        out / "coarse_feedback.png",
        {"AR, coarse feedback": {float(n): {"feedback_transform": f"quantised-{n}"} for n in levels}},
        xlabel="values that a feedback weight can have",
        scale="log",
        seeds=seeds,
        epochs=epochs,
        predicted=feedback_angles,
        first=True,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
