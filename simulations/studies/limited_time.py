"""How long must relaxations take, for learning?

The time is what is varied, and where relaxations begin: at the activities of the feedforward pass, or from silence.
What is left of the feedforward activities turns updates away from the gradient; from silence there is nothing to be
left, only a gradient that is still too small, the smaller the lower: in a chain its direction is exact at any time.

The last line on screen:  from feedforward activities: a point lost from 3 on, worse than fixed hidden weights from 1 on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actrelax.simulations.studies.perturbation import BASE, study
from actrelax.simulations.studies.perturbation_results import Learned

# in units of tau, steps of 0.1, so that there are some in the shortest
LEVELS = (20.0, 10.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.5)
DT = 0.1
SEEDS = 5
STARTS = {"from silence": "zero", "from feedforward activities": "feedforward"}


def main(
    out: Path = Path("runs/studies"), levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = BASE.epochs
) -> list[Learned]:
    """Train with every duration, from either start, and draw what comes of it.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its table.
    levels : sequence of float
        How long relaxations take, in units of tau, from the longest.
    seeds, epochs : int
        How many trainings a level, and how long.

    Returns
    -------
    list of Learned
        One per training.
    """
    return study(
        out / "limited_time.png",
        {
            label: {duration: {"duration": duration, "start": start} for duration in levels}
            for label, start in STARTS.items()
        },
        xlabel="duration of a relaxation (tau)",
        scale="log",
        seeds=seeds,
        base=replace(BASE, epochs=epochs, relaxation=replace(BASE.relaxation, dt=DT)),
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
