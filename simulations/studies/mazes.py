"""A task that needs recurrence: which pixels of a maze can be reached from a seed?

A recurrent network that settles, and learns by AR at its equilibrium, follows passages far from the seed, also in
mazes larger than those it has learned from. The same network stopped after a few hops, and trained through these by
backprop, is right near the seed and guesses beyond, and so does a feedforward network with as many weights: one hop
follows a passage for one step, or for two around a bend.

One population of 16 maps of sigmoid units with 3 x 3 lateral connections sees passages and seed, and a readout says for
each pixel of a passage whether it can be reached. All networks learn from the same 2,000 mazes of 7 x 7 pixels, in
1,000 batches of 32 with Adam. Rates settle in Euler steps of eta = 1, which are hops, and samples that have not settled
do not learn; no weight is bounded. Test mazes have 7 x 7 and 13 x 13 pixels.

Left and right: accuracy against the distance from the seed, as the mean of the share of reachable pixels at this
distance that are found and of the share of unreachable pixels that are rejected; 50 % is chance. Bands are the range
over three seeds.

It takes 6 minutes.

The last line on screen:  accuracy beyond 10 steps, 7 x 7: AR 90 %, 4 hops 50 %
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from actrelax import Network, Projection, Settle, Steps, settle
from actrelax.analysis.style import written
from actrelax.models.learning import BackwardOptions, Rule, backprop_backward, bptt_backward, relax_backward
from actrelax.simulations.data import random_stream
from actrelax.simulations.data.mazes import CLOSED, Mazes, mazes
from actrelax.simulations.studies.common import OUT, report

CELLS, LARGER = 4, 7
MAPS = 16
BATCH, BATCHES, SEEDS = 32, 1000, 3
RATE = 0.02
TRAINING, TEST = 2000, 300
FAR, ENOUGH = 10, 100
UNTIL = Steps.until(1e-2, eta=1.0, most=150)
LONGER = Steps.until(1e-2, eta=1.0, most=400)
"""Steps in tests: rates take longer to settle in larger mazes."""


@dataclass(frozen=True)
class Way:
    """A network and the way it learns.

    rule      "ar" or "bptt"; without cycles backprop
    hops      number of steps of the forward phase; None until it has settled
    feedback  assumptions of AR
    cyclic    whether the population projects to itself rather than to a second one
    """

    rule: str
    hops: int | None = None
    feedback: str = "ar"
    cyclic: bool = True

    def phase(self, until: Steps) -> Settle:
        """Return the forward phase, with these steps if it settles."""
        return Settle(until if self.hops is None else Steps(self.hops, eta=1.0), "euler")

    def learning(self) -> Rule:
        """Return the learning rule."""
        if not self.cyclic:
            return partial(backprop_backward, loss=loss)
        dropped = "keep" if self.hops else "drop"  # after a number of hops rates have not settled
        options = BackwardOptions(settle=self.phase(UNTIL), unsettled=dropped)  # type: ignore[arg-type]
        if self.rule == "bptt":
            return partial(bptt_backward, loss=loss, options=options)
        return partial(
            relax_backward, steps=UNTIL, loss=loss, assumptions=self.feedback, integrator="euler", options=options
        )


WAYS = {
    "AR": Way("ar"),
    "backprop through time": Way("bptt"),
    "AR, sign feedback": Way("ar", feedback="sign-feedback"),
    "10 hops": Way("bptt", hops=10),
    "4 hops": Way("bptt", hops=4),
    "1 hop": Way("bptt", hops=1),
    "feedforward": Way("backprop", cyclic=False),
}


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
        Columns way, seed, side, distance, pixels, and accuracy from 0 to 1: balanced at a distance; at `math.inf`
        balanced beyond `FAR` steps, and at -1 plain over all passages.
    """
    learned = mazes(training, CELLS, seed=0)
    tests = [mazes(test, cells, seed=1) for cells in (CELLS, LARGER)]
    rows: list[dict[str, Any]] = []
    unsettled: dict[str, float] = {}
    for name in ways:
        for seed in range(seeds):
            network, unsettled[f"{name}, seed {seed}"] = trained(WAYS[name], learned, seed, batches)
            for data in tests:
                side = data.distance.shape[-1]
                found = responses(WAYS[name], network, data) > 0
                rows += [{"way": name, "seed": seed, "side": side, **row} for row in accuracies(found, data.distance)]
    table = pd.DataFrame(rows)
    _draw(out, table)
    means = table.groupby(["side", "way", "distance"])["accuracy"].mean()
    sides = sorted(set(table["side"]))
    numbers = {
        what: {side: {way: 100 * means[side, way, at] for way in ways} for side in sides}
        for what, at in (("accuracy", -1.0), ("far", math.inf))
    }
    reachable = float((tests[0].distance > CLOSED).sum() / (tests[0].distance >= CLOSED).sum())
    report(
        out / "mazes.json",
        {**numbers, "unsettled": unsettled, "reachable": 100 * reachable},
        *(
            f"{side} x {side}, {way}: accuracy {numbers['accuracy'][side][way]:.1f} %, beyond {FAR} steps "
            f"{numbers['far'][side][way]:.1f} %"
            for side in sides
            for way in ways
        ),
        f"accuracy beyond {FAR} steps, {sides[0]} x {sides[0]}: "
        + ", ".join(f"{way} {numbers['far'][sides[0]][way]:.0f} %" for way in ways if way in ("AR", "4 hops")),
    )
    return table


def built(side: int, cyclic: bool, seed: int = 0) -> Network:
    """Return a network for mazes of side x side pixels; the feedforward one has as many weights."""
    inner = nn.Conv2d(MAPS, MAPS, 3, padding=1, bias=not cyclic)
    ends = [("input", "a"), ("a", "a"), ("a", "output")] if cyclic else [("input", "a"), ("a", "b"), ("b", "output")]
    layers = nn.Conv2d(2, MAPS, 3, padding=1), inner, nn.Conv2d(MAPS, 1, 1)
    projections = [Projection(*pair, layer) for pair, layer in zip(ends, layers, strict=True)]
    names = dict.fromkeys(p.target for p in projections)
    network = Network(
        (2, side, side), {name: "identity" if name == "output" else "sigmoid" for name in names}, projections
    )
    generator = random_stream(seed, "weights")
    with torch.no_grad():
        for p in projections:
            assert p.weight is not None
            p.weight.normal_(0, (2 if p.name == "a->a" else 1) / p.weight[0].numel() ** 0.5, generator=generator)
            if p.bias is not None:
                p.bias.fill_(0 if p.target == "output" else -1)  # units are hardly active without a drive
    return network


def loss(output: Tensor, distance: Tensor) -> Tensor:
    """Return the cross-entropy per maze, a mean over its passages."""
    passages = (distance >= CLOSED).to(output)
    each = nn.functional.binary_cross_entropy_with_logits(
        output[:, 0], (distance > CLOSED).to(output), reduction="none"
    )
    return (each * passages).sum((1, 2)) / passages.sum((1, 2))


def trained(way: Way, data: Mazes, seed: int, batches: int) -> tuple[Network, float]:
    """Return the trained network, and the share of samples in the last tenth of training that had not settled."""
    network = built(data.distance.shape[-1], way.cyclic, seed)
    if way.feedback != "ar":
        network.add_feedback(way.feedback, random_stream(seed, "feedback"))
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, batches)
    rule, order, unsettled = way.learning(), random_stream(seed, "order"), 0
    last = max(1, batches // 10)
    for batch in range(batches):
        chosen = torch.randint(len(data.distance), (BATCH,), generator=order)
        optimiser.zero_grad()
        with warnings.catch_warnings(action="ignore"):  # of samples that have not settled
            result = rule(network, data.images[chosen], data.distance[chosen])
        if result.report is not None and batch >= batches - last:
            unsettled += int(result.report.count)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network, unsettled / (last * BATCH)


def responses(way: Way, network: Network, data: Mazes) -> Tensor:
    """Return the output for each pixel, (count, side, side), of a network with these weights on mazes of any size."""
    side = data.distance.shape[-1]
    sized = built(side, way.cyclic)
    sized.load_state_dict({name: w for name, w in network.state_dict().items() if not name.endswith(".feedback")})
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        if not way.cyclic:
            output: Tensor = sized(data.images)
        else:
            output = settle(sized, data.images, way.phase(LONGER)).activities["output"]
        return output[:, 0]


def accuracies(found: Tensor, distance: Tensor) -> list[dict[str, float]]:
    """Return rows of distance, accuracy and number of pixels, as `main` describes them."""
    passages = distance >= CLOSED
    rejected = float((~found[distance == CLOSED]).double().mean())

    def balanced(at: float, where: Tensor) -> dict[str, float]:
        accuracy = (float(found[where].double().mean()) + rejected) / 2
        return {"distance": at, "accuracy": accuracy, "pixels": int(where.sum())}

    plain = float((found == (distance > CLOSED))[passages].double().mean())
    rows = [{"distance": -1.0, "accuracy": plain, "pixels": int(passages.sum())}]
    rows += [balanced(float(at), distance == at) for at in range(int(distance.max()) + 1)]
    return [*rows, balanced(math.inf, distance > FAR)]


def _draw(out: Path, table: pd.DataFrame) -> None:
    """Draw accuracy against distance, one panel per size, where there are enough pixels."""
    sides = sorted(set(table["side"]))
    table = table[(table["distance"] >= 0) & (table["distance"] < math.inf) & (table["pixels"] >= ENOUGH)]
    with written(out / "mazes.png", (10, 3.8)) as figure:
        for ax, side in zip(figure.subplots(1, len(sides), sharey=True), sides, strict=True):
            for number, way in enumerate(dict.fromkeys(table["way"])):
                mine = table[(table["side"] == side) & (table["way"] == way)]
                spread = 100 * mine.groupby("distance")["accuracy"].agg(["mean", "min", "max"])
                ax.plot(spread.index, spread["mean"], color=f"C{number}", label=way)
                ax.fill_between(spread.index, spread["min"], spread["max"], color=f"C{number}", alpha=0.15, linewidth=0)
            ax.set(title=f"mazes of {side} x {side}", xlabel="steps from the seed", ylim=(40, 101))
        figure.axes[0].set_ylabel("balanced accuracy (%)")
        figure.axes[-1].legend(loc="upper right", fontsize="small")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
