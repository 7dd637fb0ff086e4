"""How many feedback connections may be missing?

Feedback runs through the forward weights, of which a share is missing, always the same ones. That moves the fixed
point itself: what is relaxed to is another vector than the gradient. While weights are random a hop turns the signal by
the angle between the weights and what is left of them, and the cosines of k hops multiply (circles): sqrt(p)^k for a
share p. So it is at the first batch (crosses). Over the course of learning (lines) three hops come to turn it hardly
more than one.

The last line on screen:  AR, sparse feedback: a point lost from 0.3 on, worse than fixed hidden weights at no level
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actrelax.simulations.studies.perturbation import BASE, feedback_angles, study
from actrelax.simulations.studies.perturbation_results import Learned

# share of connections that is there
LEVELS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
SEEDS = 5


def main(
    out: Path = Path("runs/studies"), levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = BASE.epochs
) -> list[Learned]:
    """Train with every share of connections, and draw what comes of it.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its table.
    levels : sequence of float
        Shares of feedback connections that are there, from all of them.
    seeds, epochs : int
        How many trainings a level, and how long. Each seed lacks other connections.

    Returns
    -------
    list of Learned
        One per training.
    """
    return study(
        out / "sparse_feedback.png",
        {"AR, sparse feedback": {share: {"feedback_transform": f"sparse-{share:g}"} for share in levels}},
        xlabel="share of feedback connections that is there",
        scale="log",
        seeds=seeds,
        base=replace(BASE, epochs=epochs),
        predicted=feedback_angles,
        first=True,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
