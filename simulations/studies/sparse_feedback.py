"""Missing feedback connections.

Half of the feedback connections may be missing without losing a point of accuracy. Feedback uses the forward weights, a
fixed random share of which is set to zero. That changes the equilibrium itself, which differs from the gradient.

Left: accuracy after training. Right: angle to backprop's updates, over training (lines) and at the first batch
(crosses). For random weights each hop rotates the signal by the angle between full and sparse weights, and the cosines
of k hops multiply (circles): sqrt(p)^k for a share p of connections. In trained networks three hops rotate the signal
hardly more than one.

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
    """Train with each share of connections, and draw the results; see `perturbation.study`."""
    return study(
        out / "sparse_feedback.png",
        {"AR, sparse feedback": {share: {"feedback_transform": f"sparse-{share:g}"} for share in levels}},
        xlabel="share of feedback connections kept",
        scale="log",
        seeds=seeds,
        epochs=epochs,
        predicted=feedback_angles,
        first=True,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
