"""Relaxation time that learning needs.

About 4 tau from feedforward activities, and hardly any time from silence. Remaining feedforward activities rotate the
updates away from the gradient. From silence nothing remains: in a chain the direction of the gradient is exact at any
time, and only its magnitude is too small, more so in lower layers.

Left: accuracy after training. Right: angle of the lowest projection's updates to backprop's.

It takes 2 minutes.

The last line on screen:  from feedforward activities: a point lost from 3 on, worse than fixed hidden weights from 1 on
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from actrelax.simulations.studies.common import OUT
from actrelax.simulations.studies.perturbation import BASE, EPOCHS, SEEDS, study
from actrelax.simulations.suites.suite import varied

# durations, in units of tau; steps of 0.1, so that the shortest relaxation has several
LEVELS = (20.0, 10.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.5)
DT = 0.1
STARTS = {"from silence": "zero", "from feedforward activities": "feedforward"}


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train with each duration and initial state, and draw the results; see `perturbation.study`."""
    series = {name: {time: {"duration": time, "start": start} for time in levels} for name, start in STARTS.items()}
    return study(
        out / "limited_time.png",
        series,
        xlabel="duration of a relaxation (tau)",
        scale="log",
        seeds=seeds,
        epochs=epochs,
        base=varied(BASE, {"dt": DT}),
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
