"""Initial activities that remain after 100 steps, and their effect on learning.

They increasingly rotate the lowest layer's updates away from the gradient as the network learns, because gradients
shrink and activities do not. A relaxation that is stopped early keeps some of its initial activity, more so in layers
farther from the output. A small CNN learns the digits by 100 steps of eta = 0.1 from the feedforward state, as in the
papers.

Left: remaining initial activity, relative to the activity from the clamped output. Right: angle between each
projection's update and backprop's at the same weights. Dotted: relaxations that start at zero, whose updates all point
along the gradient. Bands are 95 % intervals over seeds. It takes a minute.

The last line on screen:  conv1's update is 3 degrees off backprop's at first, 65 after 12 epochs; from zero 0 and 0
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from actrelax import RelaxationProblem, relax_backward
from actrelax.analysis import figures
from actrelax.analysis.alignment import update_angles
from actrelax.analysis.initial_state_share import contamination
from actrelax.simulations.studies.common import DIGITS, OUT, at_epoch, by, followed, report
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.state import Training

STEPS, ETA = 100, 0.1
EPOCHS = 12
SEEDS = 5
MEASURED = 256
"""Number of images on which updates are compared."""

BASE = varied(DIGITS, {"network": "digits-cnn", "steps": STEPS, "eta": ETA, "lr": 0.1, "momentum": 0.9})


def main(out: Path = OUT, epochs: int = EPOCHS, seeds: int = SEEDS) -> pd.DataFrame:
    """Train, measure the remaining initial activity after each epoch, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    epochs, seeds : int

    Returns
    -------
    pandas.DataFrame
        Columns seed, epoch, "accuracy", "left POPULATION", the ratio of initial activity to activity from the clamp,
        and "angle PROJECTION" and "zero PROJECTION", angles in degrees for relaxations from the feedforward state and
        from zero.
    """
    rows = followed(varied(BASE, {"epochs": epochs}), {"": {}}, measure, seeds)
    left, angle = (
        {name.removeprefix(kind): by(rows, "epoch", name) for name in rows.filter(like=kind)}
        for kind in ("left ", "angle ")
    )
    with figures.saved(out / "contamination.png", columns=2) as (_, axes):
        label = f"initial activity / activity from the clamp\nafter {STEPS} steps"
        figures.over_epochs(axes[0], left, label, log=True).legend()
        figures.over_epochs(axes[1], angle, "angle to backprop's update (degrees)").legend()
        zeros = rows.filter(regex="^(epoch|zero .*)$").groupby("epoch").mean()
        axes[1].plot(zeros.index, zeros, color="0.3", linestyle=":", linewidth=1)
        axes[1].set(ylim=(-2, 90))
    first, last = (at_epoch(rows, epoch) for epoch in (0, epochs))
    lowest = "input->conv1"
    report(
        out / "contamination.json",
        {"first": first, "last": last},
        f"{last['accuracy']:.1f}% of test images",
        f"left in conv1, relative to what has come: {first['left conv1']:.1%} at first, {last['left conv1']:.1%} later",
        f"conv1's update is {first[f'angle {lowest}']:.0f} degrees off backprop's at first, "
        f"{last[f'angle {lowest}']:.0f} after {epochs} epochs; "
        f"from zero {first[f'zero {lowest}']:.0f} and {last[f'zero {lowest}']:.0f}",
    )
    return rows


def measure(training: Training, options: Options) -> dict[str, float]:
    """Return the remaining initial activity of each population, and the angles of updates from both initial states."""
    network = training.network
    x, y = training.batches.example(MEASURED)
    shares = contamination(RelaxationProblem.from_batch(network, x, y), "sequential", dt=ETA, at=[STEPS])
    row = {f"left {name}": share for name, (share,) in shares.items()}
    for kind, start in (("angle", "feedforward"), ("zero", "zero")):
        network.zero_grad()
        relax_backward(network, x, y, steps=STEPS, eta=ETA, start=start)
        row |= {f"{kind} {name}": angle for name, angle in update_angles(network, x, y).items()}
    return row


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
