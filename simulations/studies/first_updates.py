"""The first updates of deep networks.

What does the law predict for networks of up to 32 layers, before any of them is trained? As they get deeper, what
remains of the initial activity outgrows the gradient, and so does feedback without derivatives, the latter much faster
without skips. The networks and rules are those of `actrelax reproduce depth-digits`: residual and plain networks (no
skips) for the digits, with BatchNorm or GroupNorm. Each rule's update of all weights at the first batch, computed by
the closed form, is compared with the gradient.

Lines are relative errors of the update, |update - gradient| / |gradient|, against the number of layers; bands are 95 %
intervals over initial weights. At equilibrium AR's error is rounding (not drawn), and Kolen-Pollack feedback begins as
random feedback. Above the dotted line the error of the update is larger than the gradient.

It takes a minute.

The last line on screen:  plain-32 GroupNorm, random feedback: error 1.68, cosine 0.01
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import nbinom
from torch import Tensor
from torch.nn.functional import cosine_similarity

from actrelax.analysis import figures
from actrelax.analysis.style import written
from actrelax.simulations.data import Dataset
from actrelax.simulations.studies.common import EXECUTION, OUT, report
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.depth import CONSTANT, LAYERS
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import assemble, load_images
from actrelax.simulations.training.experiment import Experiment

SUITE = SUITES["depth-digits"]
SEEDS = 3
STEPS, ETA = 100, 0.1
KINDS = [f"{kind} {norm}" for norm in ("BatchNorm", "GroupNorm") for kind in ("ResNet", "plain")]
LOST = 1.0
"""Relative error of the first update above which a rule is predicted to fail."""


def main(out: Path = OUT, layers: Sequence[int] = LAYERS, seeds: int = SEEDS) -> pd.DataFrame:
    """Compare the rules' updates with the gradient on each network, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    layers : sequence of int
        Depths among those of the suite.
    seeds : int
        Number of initial weights.

    Returns
    -------
    pandas.DataFrame
        Columns network, layers, kind, condition, seed, "error" and "cosine" of the update of all weights, and "lowest
        error" and "lowest cosine" of the first convolution's update.
    """
    rows = pd.DataFrame(compared(layers, seeds))
    with written(out / "first_updates.png", (8.4, 6.6)) as figure:
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        for ax, kind in zip(axes.flat, KINDS, strict=True):
            shown = [c for c in dict.fromkeys(rows["condition"]) if c != "AR"]
            for number, condition in enumerate(shown):
                of = rows[(rows["kind"] == kind) & (rows["condition"] == condition)]
                values = {float(at): list(found) for at, found in of.groupby("layers")["error"]}
                figures.band(ax, condition, values, number=number, log=True)
            ax.axhline(LOST, color="0.3", linewidth=0.8, linestyle=":")
            ax.set(title=kind, xticks=layers)
        for ax in axes[1]:
            ax.set_xlabel("layers")
        for ax in axes[:, 0]:
            ax.set_ylabel("relative error of the first update")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    report(out / "first_updates.json", *summary(rows))
    return rows


def compared(layers: Sequence[int], seeds: int) -> list[dict[str, Any]]:
    """Return a row for each network, rule and seed."""
    rules = {**SUITE.conditions, "constant statistics": CONSTANT}
    data, rows = load_images(SUITE.base.images), []
    for case in replace(SUITE, conditions=rules, seeds=seeds).cases():
        (name, norm), condition = case.variant.split(), case.condition
        kind, depth = name.split("-")
        if int(depth) not in layers or (condition == "constant statistics" and norm != "BatchNorm"):
            continue
        exact = {"precision": "fp64"} | ({"decay": 0.0} if case.experiment.optimisation.decay else {})
        update = first_update(varied(case.experiment, exact), data)
        if condition == "backprop":
            gradient = update
            continue
        row = {"network": case.variant, "kind": f"{kind} {norm}", "layers": int(depth), "condition": condition}
        rows.append({**row, "seed": case.experiment.seed, **differences(update, gradient)})
    return rows


def first_update(experiment: Experiment, data: Dataset) -> list[Tensor]:
    """Return the update of each weight at the first batch, from the lowest weights up, without applying it."""
    training = assemble(experiment, EXECUTION, data=data).training
    training.rule(training.network, *next(training.batches.epoch(1)))
    weights = [w for name, w in training.network.named_parameters() if w.dim() > 1 and "feedback" not in name]
    return [w.grad.flatten() for w in weights if w.grad is not None]


def differences(update: Sequence[Tensor], gradient: Sequence[Tensor]) -> dict[str, float]:
    """Return the relative error and cosine of the update of all weights together, and of the lowest weights."""
    found = {}
    for part, ours, exact in (("", torch.cat([*update]), torch.cat([*gradient])), ("lowest ", update[0], gradient[0])):
        found[f"{part}error"] = float((ours - exact).norm() / exact.norm())
        found[f"{part}cosine"] = float(cosine_similarity(ours, exact, dim=0))
    return found


def arrived(layers: int) -> float:
    """Return the share of the gradient that has arrived at the lowest population along the longest path."""
    hops = layers - 1
    return float(nbinom.sf(hops - 1, STEPS, 1 - ETA))


def summary(rows: pd.DataFrame) -> tuple[Any, ...]:
    """Return the means over seeds, and lines to print."""
    measured = ["error", "cosine", "lowest error", "lowest cosine"]
    means = rows.groupby(["network", "condition"], sort=False)[measured].mean()
    numbers: dict[str, Any] = {"arrived": {str(n): arrived(n) for n in dict.fromkeys(rows["layers"])}}
    lines = []
    for (network, condition), of in means.iterrows():
        numbers.setdefault(network, {})[condition] = dict(of)
        lines.append(f"{network}, {condition}: error {of['error']:.2f}, cosine {of['cosine']:.2f}")
    return numbers, *lines


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
