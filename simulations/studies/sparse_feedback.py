"""How many feedback connections may be missing?

Half of them, without losing a point. Feedback runs through the forward weights, of which a share is missing, always the
same ones. That moves the fixed point itself: relaxations end at another vector than the gradient.

Left: accuracy after training. Right: the angle of updates to backprop's, over training (lines) and at the first batch
(crosses). While weights are random a hop turns the signal by the angle between the weights and the rest of them, and
the cosines of k hops multiply (circles): sqrt(p)^k for a share p. Once something is learned, three hops turn it hardly
more than one.

It takes a minute.

The last line on screen:  AR, sparse feedback: a point lost from 0.3 on, worse than fixed hidden weights at no level
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from actrelax.simulations.studies.common import OUT
from actrelax.simulations.studies.perturbation import EPOCHS, SEEDS, feedback_angles, study

LEVELS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train with every share of connections, and draw; see `perturbation.study`."""
    return study(
        out / "sparse_feedback.png",
        {"AR, sparse feedback": {share: {"feedback_transform": f"sparse-{share:g}"} for share in levels}},
        xlabel="share of feedback connections that is there",
        scale="log",
        seeds=seeds,
        epochs=epochs,
        predicted=feedback_angles,
        first=True,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
