"""Coarse feedback weights.

Four values per feedback weight are enough. Feedback uses the forward weights, each rounded to the nearest of a few
values that are evenly spaced between plus and minus the largest magnitude. Most weights are much smaller than the
largest: with three values they become 0, with two values far too large, which gives small angles but large steps.

Left: accuracy after training. Right: angle to backprop's updates, over training (lines) and at the first batch
(crosses); as in `sparse_feedback`, the cosines of successive hops multiply at first (circles).

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
    """Train with each number of values, and draw the results; see `perturbation.study`."""
    return study(
        out / "coarse_feedback.png",
        {"AR, coarse feedback": {float(n): {"feedback_transform": f"quantised-{n}"} for n in levels}},
        xlabel="number of values of a feedback weight",
        scale="log",
        seeds=seeds,
        epochs=epochs,
        predicted=feedback_angles,
        first=True,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
