"""The cost of each rule against the number of layers, from the results of the suites in `depth`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from actrelax.analysis import figures
from actrelax.analysis.reports import comparison, results_table
from actrelax.analysis.style import written
from actrelax.simulations.suites.depth import DEEP, LAYERS
from actrelax.simulations.suites.report import conditions_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUITES = ("depth-digits", "depth-digits-statistics")
NETWORKS = {
    "ResNet BatchNorm": "skips, BatchNorm",
    "plain BatchNorm": "no skips, BatchNorm",
    "ResNet GroupNorm": "skips, GroupNorm",
    "plain GroupNorm": "no skips, GroupNorm",
}
"""Kind of network -> its name in the legend."""

TITLES = {
    "AR": "settled AR",
    "AR, 100 steps from zero": "100 steps from zero",
    "AR, 100 steps": "100 steps from\nthe feedforward state",
    "Kolen-Pollack feedback, no derivatives": "Kolen-Pollack feedback,\nno derivatives",
    "sign feedback": "sign-concordant feedback",
}
"""Rule -> title of its panel, if it is not the rule's name."""

COLUMNS = 3
TICKS = (-3, 0, 1, 3, 10, 30, 90)
LINEAR = 3.0
"""Cost in points up to which the axis is linear; beyond, it is logarithmic."""

ASIDE = 0.5
"""Distance, in layers, between the networks of one depth, so that their intervals don't overlap."""

CHANCE = 10.0
"""Chance accuracy in percent, at which a rule is drawn if it diverged with every seed."""

LEARNABLE = 50.0
"""Accuracy in percent that backprop must reach, or the network is left out: it says nothing about the rules."""


class Cost(NamedTuple):
    """Points of test accuracy below backprop, with the interval that is tested.

    diverged  whether some seeds diverged

    The interval is a point for a single seed, and if all seeds diverged.
    """

    points: float
    low: float
    high: float
    diverged: bool


def costs(results: Path) -> dict[str, dict[str, dict[int, Cost]]]:
    """Return rule -> kind of network -> layers -> cost, of the rules that were compared with backprop.

    Networks in which backprop reaches less than `LEARNABLE` are left out.

    Parameters
    ----------
    results : pathlib.Path
        Folder of the suites' results.
    """
    found: dict[str, dict[str, dict[int, Cost]]] = {}
    for name in SUITES:
        outcomes = list(results_table.read(results / name).values())
        for variant in DEEP[name].variants:
            mine = [o for o in outcomes if o.variant == variant]
            comparison.refuse_mixed(results / name, mine)
            rows = {r["condition"]: r for r in comparison.compared(conditions_of(DEEP[name], variant), mine)["rows"]}
            backprop = rows.get("backprop")
            if backprop and backprop["accuracy"] and backprop["accuracy"]["mean"] < LEARNABLE:
                continue
            network, norm = variant.split()
            kind, layers = network.split("-")
            for rule, row in rows.items():
                cost = _cost(row, backprop)
                if cost is not None:
                    found.setdefault(rule, {}).setdefault(f"{kind} {norm}", {})[int(layers)] = cost
    return found


def _cost(row: Mapping[str, Any], backprop: Mapping[str, Any] | None) -> Cost | None:
    paired = row["against"].get("backprop")
    if paired is not None:
        low, high = (paired["difference"] if paired[end] is None else paired[end] for end in ("low", "high"))
        return Cost(-paired["difference"], -high, -low, bool(row["diverged"]))
    if backprop is None or backprop["accuracy"] is None or not row["diverged"]:
        return None
    lost = backprop["accuracy"]["mean"] - CHANCE
    return Cost(lost, lost, lost, True)


def draw(path: Path, results: Path) -> bool:
    """Draw a panel for each rule, and return whether there were rows to draw."""
    found = costs(results)
    rules = [rule for rule in dict.fromkeys(rule for name in SUITES for rule in DEEP[name].conditions) if rule in found]
    if not rules:
        return False
    rows = math.ceil(len(rules) / COLUMNS)
    with written(path, (8.4, 0.6 + 2.3 * rows)) as figure:
        axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        lines: dict[str, Any] = {}
        for ax, rule in zip(axes.flat, rules, strict=False):
            _draw_rule(ax, found[rule])
            ax.set_title(TITLES.get(rule, rule), fontsize="medium")
            handles, labels = ax.get_legend_handles_labels()
            lines |= zip(labels, handles, strict=True)
        for ax in axes.flat[len(rules) :]:
            ax.set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel("layers")
        for ax in axes[:, 0]:
            ax.set_ylabel("points below backprop")
        names = [name for name in NETWORKS.values() if name in lines]
        figure.legend([lines[name] for name in names], names, loc="outside lower center", ncols=len(names))
    return True


def _draw_rule(ax: Axes, costs_by_network: Mapping[str, Mapping[int, Cost]]) -> None:
    for number, (kind, name) in enumerate(NETWORKS.items()):
        if kind in costs_by_network:
            aside = ASIDE * (number - (len(NETWORKS) - 1) / 2)
            of = {layers + aside: cost for layers, cost in costs_by_network[kind].items()}
            values = {at: (cost.points, cost.low, cost.high) for at, cost in of.items()}
            crossed = [at for at, cost in of.items() if cost.diverged]
            figures.estimates(ax, name, values, number=number, crossed=crossed)
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set_yscale("symlog", linthresh=LINEAR)
    ax.set_ylim(-5, 110)
    ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    ax.minorticks_off()
    ax.set_xticks(LAYERS)
