"""Does the angle to backprop's update explain what is learned?

The tables of the other studies of robustness in one figure: each training's accuracy against the mean angle of its
updates. Within one kind of perturbation it does; from kind to kind it does not. Noise turns each update another way,
and what is random averages out: learning succeeds at angles where a relaxation that is cut short teaches nothing.

Run noise, delays_in_learning, time_constants, sparse_feedback, coarse_feedback and limited_time first.

The last line on screen:  noise: 95 % of accuracy at angles of up to 69 degrees
"""

from __future__ import annotations

from pathlib import Path

from actrelax.analysis import figures
from actrelax.simulations.studies.perturbation import RATE
from actrelax.simulations.studies.perturbation_results import read

# what is perturbed -> its study's table, and which of its series
TABLES = {
    "noise": ("noise", f"rate {RATE:g}"),
    "delays": ("delays_in_learning", "AR, delayed"),
    "time constants of neurons": ("time_constants", "neurons, 10 tau"),
    "time constants of populations": ("time_constants", "populations, 10 tau"),
    "limited time": ("limited_time", "from feedforward activities"),
    "sparse feedback": ("sparse_feedback", "AR, sparse feedback"),
    "coarse feedback": ("coarse_feedback", "AR, coarse feedback"),
}

# accuracy of a training that is as good as any
GOOD = 0.95


def main(out: Path = Path("runs/studies")) -> dict[str, float]:
    """Read the tables and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder of the tables, and for the figure.

    Returns
    -------
    dict
        What is perturbed -> the largest angle at which 95 % are reached, in degrees; 0 if nowhere.
    """
    found = {
        name: [row for row in read(out / f"{table}.csv") if row.series == series and row.angles]
        for name, (table, series) in TABLES.items()
    }
    measured = {
        name: max((row.mean_angle for row in rows if row.accuracy >= GOOD), default=0.0) for name, rows in found.items()
    }
    for name, angle in sorted(measured.items(), key=lambda item: item[1]):
        print(f"{name}: {100 * GOOD:g} % of accuracy at angles of up to {angle:.0f} degrees")

    with figures.saved(out / "angle_and_accuracy.png", legend=True) as (_, (ax,)):
        for (name, rows), marker in zip(found.items(), "osD^vPX", strict=True):
            ax.plot(
                [row.mean_angle for row in rows],
                [100 * row.accuracy for row in rows],
                linestyle="none",
                marker=marker,
                markersize=4,
                alpha=0.7,
                label=name,
            )
        ax.set(xlabel="angle of updates to backprop's (degrees)", xlim=(0, 95), xticks=range(0, 91, 15))
        ax.set(ylabel="test accuracy (%)", ylim=(0, 100))
    return measured


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
