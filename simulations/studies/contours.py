"""A task from vision: which dashes of an image continue a contour from a mark?

An image hides two contours, chains of dashes each of which points to the next, turned by at most 45 degrees, among
single dashes of random orientation. The mark is at one end of a contour. A recurrent network that settles, and learns
by AR at its equilibrium, follows the contour to its end, and is mostly right about contours that are longer than those
it has learned from. A network with few hops sees the first dashes only, one for each hop after the first, and the
feedforward one sees one. If the norm of the lateral weights is at most 4, with which all rates settle, the network does
not learn to follow a contour; a norm of at most 12 changes little.

The network is that of `mazes`, with units of each map for every place where a dash may be. All networks learn from the
same 2,000 images of 8 x 8 places, with contours of 3 to 10 dashes, in 1,000 batches of 32. Each dash of both contours
has a label, or one dash per image, as in Pathfinder (Linsley et al. 2018, arXiv:1805.08315), where the question is
whether two marks are on one contour. The norm is that of the lateral weights; C-RBP (arXiv:2005.11362) penalises a
similar quantity and was not run. Sigmoid units have slopes of at most 1/4, so that rates settle for
every image if the norm is at most 4. Larger images have 12 x 12 places, and contours of 3 to 20 dashes.

Left: an image. Middle and right: accuracy against the number of dashes from the mark, as the mean of the share of
dashes of the mark's contour at this distance that are found and of the share of dashes of the other contour that are
rejected; 50 % is chance. Bands are the range over three seeds.

It takes 8 minutes.

The last line on screen:  accuracy beyond 6 dashes, and beyond 9 in larger images: AR 97 and 89 %, 4 hops 54 and 51 %
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from actrelax import Network, RelaxationProblem, Settle, Steps
from actrelax.analysis.style import written
from actrelax.models.engines import settled_pass
from actrelax.simulations.data.connected import APART, EMPTY, Connected
from actrelax.simulations.data.contours import PITCH, contours
from actrelax.simulations.studies.common import OUT, report
from actrelax.simulations.studies.loops import abscissae
from actrelax.simulations.studies.tracing import (
    BATCHES,
    LONGER,
    SEEDS,
    TEST,
    TOLERANCE,
    TRAINING,
    Way,
    draw,
    lines,
    loss,
    ranges,
    summary,
    table_of,
    trained,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = ((8, 10), (12, 20))
"""Places per side, and dashes of the longest contours; networks learn from the first."""
FARS = (6, 9)
"""Dashes from the mark; no contour of the training is longer than 9."""
IMAGES, SAMPLES = 100, 8
"""Images to settle, and to compute eigenvalues for."""

AR = Way("ar", most=50)
WAYS = {
    "AR": AR,
    "backprop through time": Way("bptt", most=50),
    "AR, norm up to 12": replace(AR, bound=12.0),
    "AR, norm up to 4": replace(AR, bound=4.0),
    "AR, one label per image": replace(AR, single=True),
    "10 hops": Way("bptt", hops=10),
    "4 hops": Way("bptt", hops=4),
    "feedforward": Way("backprop", cyclic=False),
}
RUN_ON = "10 hops, then settled"
"""The networks of "10 hops", tested when they have settled."""

NOT_DRAWN = ("AR, norm up to 12", "AR, one label per image")


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
        Numbers of seeds, of batches, and of images for training and for each test.

    Returns
    -------
    pandas.DataFrame
        Columns way, seed, side, and those of `tracing.accuracies`, with `FAR`.
    """
    learned = contours(training, *SIZES[0], seed=0)
    tests = [contours(test, *size, seed=1) for size in SIZES]
    networks = {(name, seed): trained(WAYS[name], learned, seed, batches) for name in ways for seed in range(seeds)}
    networks |= {(RUN_ON, seed): each for (name, seed), each in networks.items() if name == "10 hops"}
    table = table_of({**WAYS, RUN_ON: AR}, networks, tests, FARS)
    with written(out / "contours.png", (13, 4)) as figure:
        example, *axes = figure.subplots(1, 3, width_ratios=(0.8, 1, 1))
        _draw_image(example, tests[1])
        draw(axes, table[~table["way"].isin(NOT_DRAWN)], "{0} x {0} places for dashes", "dashes from the mark")
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    loops = pd.DataFrame(
        [
            {"way": name, "unsettled": math.nan if name == RUN_ON else unsettled, **loop(network, tests[0])}
            for (name, _), (network, unsettled) in networks.items()
            if name == RUN_ON or (WAYS[name].cyclic and WAYS[name].hops is None)
        ]
    )
    properties = {column: ranges(loops, column) for column in ("unsettled", "moving", "norm", "abscissa")}
    plain = table[(table["side"] == SIZES[0][0]) & (table["distance"] == -1)]
    numbers = summary(table)
    near, far = numbers["far"].values()
    report(
        out / "contours.json",
        {**numbers, "range": ranges(plain, "accuracy"), "loop": properties},
        *lines(numbers, FARS),
        *(
            f"{way}: {what} {of['least']:.3g} to {of['most']:.3g}"
            for what, by_way in properties.items()
            for way, of in by_way.items()
        ),
        f"accuracy beyond {FARS[0]} dashes, and beyond {FARS[1]} in larger images: "
        + ", ".join(f"{way} {near[way]:.0f} and {far[way]:.0f} %" for way in ways if way in ("AR", "4 hops")),
    )
    return table


def loop(network: Network, data: Connected) -> dict[str, float]:
    """Return properties of the loop.

    Returns
    -------
    dict
        "norm": the largest singular value of the lateral weights; "moving": share of images whose rates do not settle
        in `LONGER` steps, among the first `IMAGES`; "abscissa": the largest real part of an eigenvalue of the forward
        phase, among the first `SAMPLES` images whose rates settle, nan without any.
    """
    double = deepcopy(network).double()
    ((norm),) = double.bound_recurrence(1e9).values()
    images = data.images[:IMAGES].double()
    passed = settled_pass(double, images, AR.phase(LONGER))
    rates = passed.activities["a"]
    moved = (passed.responses["a"] - rates).abs().flatten(1).amax(1) / rates.flatten(1).amax(1)
    first = (moved <= TOLERANCE).nonzero()[:SAMPLES, 0]
    abscissa = math.nan
    if len(first):
        resting = settled_pass(double, images[first], Settle(Steps.until(1e-6, eta=1.0, most=LONGER), "euler"))
        problem = RelaxationProblem.from_batch(double, resting, data.distance[first], loss=loss)
        abscissa = max(abscissae(problem, len(first), "forward"))
    return {"norm": float(norm), "moving": float((moved > TOLERANCE).double().mean()), "abscissa": abscissa}


def _draw_image(ax: Axes, data: Connected) -> None:
    """Draw the first image: both contours in colours, and the mark as a ring."""
    figure, mark = data.images[0]
    places = data.distance[0].repeat_interleave(PITCH, 0).repeat_interleave(PITCH, 1)[: len(figure), : len(figure)]
    kinds = {"contour from the mark": (places >= 0, "C0"), "other contour": (places == APART, "C1")}
    for label, (where, colour) in {**kinds, "single dashes": (places == EMPTY, "0.7")}.items():
        rows, columns = ((figure > 0) & where).nonzero().T
        ax.scatter(columns, rows, s=14, marker="s", color=colour, label=label)
    middle = mark.nonzero().double().mean(0)
    ax.scatter(middle[1], middle[0], s=150, facecolors="none", edgecolors="black", label="mark")
    ax.set(title="an image", aspect="equal", xticks=[], yticks=[])
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize="small")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
