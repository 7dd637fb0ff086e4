"""A task that needs depth, which a loop provides: which pixels of a maze can be reached from a seed?

A recurrent network that settles, and learns by AR at its equilibrium, follows passages far from the seed, also, if less
well, in mazes larger than those it has learned from. The same network stopped after a few hops, and trained through
these by backprop, is right near the seed and guesses beyond: one hop follows a passage for one step, or for two around
a bend. So does a feedforward network with as many weights, which sees two pixels in each direction. Within their reach
thirty hops learn the task better than settled networks do. The comparison shows that the task needs depth that grows
with the distance, which settling provides for any distance, not that it needs a loop.

One population of 16 maps of sigmoid units with 3 x 3 lateral connections sees passages and seed, and a readout says for
each pixel of a passage whether it can be reached. All networks learn from the same 2,000 mazes of 7 x 7 pixels, in
1,000 batches of 32 with Adam. Rates settle in Euler steps of eta = 1, which are hops, and samples that have not settled
do not learn; no weight is bounded. Test mazes have 7 x 7 and 13 x 13 pixels.

Left and right: accuracy against the distance from the seed, as the mean of the share of reachable pixels at this
distance that are found and of the share of unreachable pixels that are rejected; 50 % is chance. Bands are the range
over three seeds.

It takes 9 minutes.

The last line on screen:  accuracy beyond 10 steps, 7 x 7: AR 90 %, 4 hops 50 %
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from actrelax.analysis.style import written
from actrelax.simulations.data.connected import APART
from actrelax.simulations.data.mazes import mazes
from actrelax.simulations.studies.common import OUT, report
from actrelax.simulations.studies.tracing import (
    BATCHES,
    SEEDS,
    TEST,
    TRAINING,
    Way,
    draw,
    extremes,
    lines,
    summary,
    table_of,
    trained,
)

CELLS, LARGER = 4, 7
FAR, FARTHER = 10, 30
"""Steps from the seed; no pixel of a maze of the training is more than 30 steps away."""

WAYS = {
    "AR": Way("ar"),
    "backprop through time": Way("bptt"),
    "AR, sign feedback": Way("ar", feedback="sign-feedback"),
    "30 hops": Way("bptt", hops=30),
    "10 hops": Way("bptt", hops=10),
    "4 hops": Way("bptt", hops=4),
    "1 hop": Way("bptt", hops=1),
    "feedforward": Way("backprop", cyclic=False),
}


NOT_DRAWN = ("1 hop",)


def main(
    out: Path = OUT,
    ways: Sequence[str] = tuple(WAYS),
    seeds: int = SEEDS,
    batches: int = BATCHES,
    training: int = TRAINING,
    test: int = TEST,
) -> pd.DataFrame:
    """Train and test each network, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    ways : sequence of str
        Keys of `WAYS`.
    seeds, batches, training, test : int
        Numbers of seeds, of batches, and of mazes for training and for each test.

    Returns
    -------
    pandas.DataFrame
        Columns way, seed, side, and those of `tracing.accuracies`, with `FAR`.
    """
    learned = mazes(training, CELLS, seed=0)
    tests = [mazes(test, cells, seed=1) for cells in (CELLS, LARGER)]
    networks = {(name, seed): trained(WAYS[name], learned, seed, batches) for name in ways for seed in range(seeds)}
    table = table_of(WAYS, networks, tests, (FAR, FAR))
    with written(out / "mazes.png", (10, 3.8)) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        draw(axes, table[~table["way"].isin(NOT_DRAWN)], "mazes of {0} x {0}", "steps from the seed")
        axes[-1].legend(loc="upper right", fontsize="small")
    numbers = summary(table)
    unsettled = {f"{name}, seed {seed}": each.unsettled for (name, seed), each in networks.items()}
    reachable = float((tests[0].distance > APART).sum() / (tests[0].distance >= APART).sum())
    side, far = next(iter(numbers["far"].items()))
    report(
        out / "mazes.json",
        {
            **numbers,
            "farther": beyond(table, FARTHER),
            "range": extremes(table),
            "unsettled": unsettled,
            "reachable": 100 * reachable,
        },
        *lines(numbers, (FAR, FAR)),
        f"accuracy beyond {FAR} steps, {side} x {side}: "
        + ", ".join(f"{way} {far[way]:.0f} %" for way in ways if way in ("AR", "4 hops")),
    )
    return table


def beyond(table: pd.DataFrame, steps: int) -> dict[int, dict[str, float]]:
    """Return means over seeds in percent of the balanced accuracy beyond these steps: side -> way."""
    of = table[(table["distance"] > steps) & (table["distance"] < math.inf)]
    keys = ["side", "way", "seed"]
    sums = of.assign(right=of["accuracy"] * of["places"]).groupby(keys, sort=False)[["right", "places"]].sum()
    means = (100 * sums["right"] / sums["places"]).groupby(["side", "way"], sort=False).mean()
    return {side: means[side].to_dict() for side in means.index.unique("side")}


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
