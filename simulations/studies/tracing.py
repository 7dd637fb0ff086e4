"""Common parts of the studies of tasks that need recurrence: networks that find what is connected to a mark.

One population of 16 maps of sigmoid units with 3 x 3 lateral connections sees an image, and a readout says for each
place whether it is connected to the mark. Rates settle in Euler steps of eta = 1, which are hops.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from actrelax import Network, Projection, Settle, Steps, settle
from actrelax.models.learning import BackwardOptions, Rule, backprop_backward, bptt_backward, relax_backward
from actrelax.simulations.data import random_stream
from actrelax.simulations.data.connected import APART, Connected, one_place_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAPS = 16
BATCH, BATCHES, SEEDS = 32, 1000, 3
RATE = 0.02
TRAINING, TEST = 2000, 300
ENOUGH = 100
"""Places at a distance, fewer of which are not drawn."""
TOLERANCE = 1e-2
LONGER = 400
"""Steps in tests: rates take longer to settle in larger images."""
AT = {"accuracy": -1.0, "far": math.inf}
"""Distances of `accuracies` that stand for all places and for those that are far."""


@dataclass(frozen=True)
class Way:
    """A network and the way it learns.

    rule      "ar" or "bptt"; without cycles backprop
    hops      number of steps of the forward phase; None until it has settled
    feedback  assumptions of AR
    cyclic    whether the population projects to itself rather than to a second one
    bound     limit of `Network.bound_recurrence` after each batch; by default none
    most      steps within which a phase settles, or the sample does not learn
    single    whether each image asks for one place only
    """

    rule: str
    hops: int | None = None
    feedback: str = "ar"
    cyclic: bool = True
    bound: float | None = None
    most: int = 150
    single: bool = False

    def phase(self, most: int) -> Settle:
        """Return the forward phase, of at most these steps if it settles."""
        return Settle(_until(most) if self.hops is None else Steps(self.hops, eta=1.0), "euler")

    def learning(self) -> Rule:
        """Return the learning rule."""
        if not self.cyclic:
            return partial(backprop_backward, loss=loss)
        dropped = "keep" if self.hops else "drop"  # after a number of hops rates have not settled
        options = BackwardOptions(settle=self.phase(self.most), unsettled=dropped)  # type: ignore[arg-type]
        if self.rule == "bptt":
            return partial(bptt_backward, loss=loss, options=options)
        steps = _until(self.most)
        return partial(
            relax_backward, steps=steps, loss=loss, assumptions=self.feedback, integrator="euler", options=options
        )


def _until(most: int) -> Steps:
    return Steps.until(TOLERANCE, eta=1.0, most=most)


class Trained(NamedTuple):
    """A trained network, and the share of samples in the last tenth of training that had not settled."""

    network: Network
    unsettled: float


def built(data: Connected, cyclic: bool, seed: int = 0) -> Network:
    """Return a network for such images; the feedforward one has as many weights.

    A place of `data.distance` is a pixel, or the middle of 3 x 3 pixels with a row and a column between such squares.
    """
    pixels, side = data.images.shape[-1], data.distance.shape[-1]
    apart = (pixels + 1) // side
    inner = nn.Conv2d(MAPS, MAPS, 3, padding=1, bias=not cyclic)
    ends = [("input", "a"), ("a", "a"), ("a", "output")] if cyclic else [("input", "a"), ("a", "b"), ("b", "output")]
    layers = nn.Conv2d(2, MAPS, 3, stride=apart, padding=int(apart == 1)), inner, nn.Conv2d(MAPS, 1, 1)
    projections = [Projection(*pair, layer) for pair, layer in zip(ends, layers, strict=True)]
    names = dict.fromkeys(p.target for p in projections)
    network = Network(
        (2, pixels, pixels), {name: "identity" if name == "output" else "sigmoid" for name in names}, projections
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
    """Return the cross-entropy per image, a mean over the places that are judged."""
    judged = (distance >= APART).to(output)
    each = nn.functional.binary_cross_entropy_with_logits(output[:, 0], (distance > APART).to(output), reduction="none")
    return (each * judged).sum((1, 2)) / judged.sum((1, 2))


def trained(way: Way, data: Connected, seed: int, batches: int) -> Trained:
    """Return a network that has learned from batches of these images."""
    if way.single:
        data = one_place_each(data, random_stream(seed, "questions"))
    network = built(data, way.cyclic, seed)
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
        if way.bound is not None:
            network.bound_recurrence(way.bound)
    return Trained(network, unsettled / (last * BATCH))


def responses(way: Way, network: Network, data: Connected) -> Tensor:
    """Return the output for each place, (count, side, side), of a network with these weights for images of any size."""
    sized = built(data, way.cyclic)
    sized.load_state_dict({name: w for name, w in network.state_dict().items() if not name.endswith(".feedback")})
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        if not way.cyclic:
            output: Tensor = sized(data.images)
        else:
            output = settle(sized, data.images, way.phase(LONGER)).activities["output"]
        return output[:, 0]


def accuracies(found: Tensor, distance: Tensor, far: int) -> list[dict[str, float]]:
    """Return rows of distance, accuracy from 0 to 1, and number of places.

    At a distance accuracy is balanced: the mean of the share of connected places at this distance that are found, and
    of the share of places without a connection that are rejected. At `math.inf` it is balanced beyond `far` steps, and
    at -1 plain.
    """
    judged = distance >= APART
    rejected = float((~found[distance == APART]).double().mean())

    def balanced(at: float, where: Tensor) -> dict[str, float]:
        accuracy = (float(found[where].double().mean()) + rejected) / 2
        return {"distance": at, "accuracy": accuracy, "places": int(where.sum())}

    plain = float((found == (distance > APART))[judged].double().mean())
    rows = [{"distance": -1.0, "accuracy": plain, "places": int(judged.sum())}]
    rows += [balanced(float(at), distance == at) for at in range(int(distance.max()) + 1)]
    return [*rows, balanced(math.inf, distance > far)]


def table_of(
    ways: Mapping[str, Way],
    networks: Mapping[tuple[str, int], Trained],
    tests: Sequence[Connected],
    fars: Sequence[int],
) -> pd.DataFrame:
    """Return columns way, seed, side and those of `accuracies`, for networks by way and seed.

    Each test has a number of steps that count as far.
    """
    rows: list[dict[str, Any]] = []
    for (way, seed), (network, _) in networks.items():
        for data, far in zip(tests, fars, strict=True):
            found = responses(ways[way], network, data) > 0
            key = {"way": way, "seed": seed, "side": data.distance.shape[-1]}
            rows += [{**key, **row} for row in accuracies(found, data.distance, far)]
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> dict[str, dict[int, dict[str, float]]]:
    """Return means over seeds in percent: "accuracy" or "far" -> side -> way."""
    means = 100 * table.groupby(["side", "way", "distance"])["accuracy"].mean()
    sides, ways = sorted(set(table["side"])), list(dict.fromkeys(table["way"]))
    return {what: {side: {way: means[side, way, at] for way in ways} for side in sides} for what, at in AT.items()}


def extremes(table: pd.DataFrame) -> dict[str, dict[int, dict[str, dict[str, float]]]]:
    """Return ranges over seeds in percent: "accuracy" or "far" -> side -> way -> "least" or "most"."""
    percent = table.assign(percent=100 * table["accuracy"])
    return {
        what: {side: ranges(of, "percent") for side, of in percent[percent["distance"] == at].groupby("side")}
        for what, at in AT.items()
    }


def ranges(table: pd.DataFrame, column: str) -> dict[str, dict[str, float]]:
    """Return the least and the most of a column, by way."""
    found: dict[str, dict[str, float]] = table.groupby("way", sort=False)[column].agg(["min", "max"]).T.to_dict()
    return {way: {"least": of["min"], "most": of["max"]} for way, of in found.items()}


def lines(numbers: Mapping[str, Mapping[int, Mapping[str, float]]], fars: Sequence[int]) -> Iterator[str]:
    """Yield one line for each size and way of a summary."""
    for (side, plain), far in zip(numbers["accuracy"].items(), fars, strict=True):
        for way, accuracy in plain.items():
            beyond = numbers["far"][side][way]
            yield f"{side} x {side}, {way}: accuracy {accuracy:.1f} %, beyond {far} steps {beyond:.1f} %"


def draw(axes: Sequence[Axes], table: pd.DataFrame, title: str, xlabel: str) -> None:
    """Draw accuracy against distance, one panel per size, where there are enough places."""
    table = table[(table["distance"] >= 0) & (table["distance"] < math.inf) & (table["places"] >= ENOUGH)]
    for ax, (side, of) in zip(axes, table.groupby("side"), strict=True):
        for number, way in enumerate(dict.fromkeys(of["way"])):
            spread = 100 * of[of["way"] == way].groupby("distance")["accuracy"].agg(["mean", "min", "max"])
            ax.plot(spread.index, spread["mean"], color=f"C{number}", label=way)
            ax.fill_between(spread.index, spread["min"], spread["max"], color=f"C{number}", alpha=0.15, linewidth=0)
        ax.set(title=title.format(side), xlabel=xlabel, ylim=(40, 101))
    axes[0].set_ylabel("balanced accuracy (%)")
