"""Accuracy against the angle to backprop's update.

Within one kind of perturbation the angle predicts accuracy; across kinds it does not. Noise rotates each update in a
different direction, which averages out over a training, so learning succeeds at angles at which a relaxation that
stops too early learns nothing.

The figure shows all trainings of the perturbation studies: test accuracy against the mean angle of the updates.
Run noise, delays_in_learning, time_constants, sparse_feedback, coarse_feedback and limited_time first.

The last line on screen:  noise: 95 % of accuracy at angles of up to 69 degrees
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from actrelax.analysis import figures
from actrelax.simulations.studies.common import OUT, report
from actrelax.simulations.studies.perturbation import RATE, mean_angles

# perturbation -> table of its study, and a series of that table
TABLES = {
    "noise": ("noise", f"rate {RATE:g}"),
    "delays": ("delays_in_learning", "AR, delayed"),
    "time constants of neurons": ("time_constants", "neurons, 10 tau"),
    "time constants of populations": ("time_constants", "populations, 10 tau"),
    "limited time": ("limited_time", "from feedforward activities"),
    "sparse feedback": ("sparse_feedback", "AR, sparse feedback"),
    "coarse feedback": ("coarse_feedback", "AR, coarse feedback"),
}

# accuracy of a successful training
GOOD = 0.95


def main(out: Path = OUT) -> dict[str, float]:
    """Read the tables of the other studies, and draw the figure.

    Parameters
    ----------
    out : pathlib.Path
        Folder of the tables, also for the figure and its numbers.

    Returns
    -------
    dict
        Perturbation -> largest angle at which accuracy reaches 95 %, in degrees; 0 if it never does.
    """
    measured = {}
    with figures.saved(out / "angle_and_accuracy.png", legend=True) as (_, (ax,)):
        for (name, (table, series)), marker in zip(TABLES.items(), "osD^vPX", strict=True):
            rows = pd.read_csv(out / f"{table}.csv")
            rows = rows[rows["series"] == series]
            angles, accuracy = mean_angles(rows), rows["accuracy"]
            measured[name] = float(angles[accuracy >= GOOD].max(skipna=True)) if (accuracy >= GOOD).any() else 0.0
            ax.plot(angles, 100 * accuracy, marker, markersize=4, alpha=0.7, label=name)
        ax.set(xlabel="angle to backprop's updates (degrees)", xlim=(0, 95), xticks=range(0, 91, 15))
        ax.set(ylabel="test accuracy (%)", ylim=(0, 100))
    ordered = sorted(measured.items(), key=lambda item: item[1])
    lines = [f"{name}: {100 * GOOD:g} % of accuracy at angles of up to {angle:.0f} degrees" for name, angle in ordered]
    report(out / "angle_and_accuracy.json", measured, *lines)
    return measured


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
