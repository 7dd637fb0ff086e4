"""The cost of each rule against the number of layers, from the results of the suites in `depth`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from actrelax.analysis import figures
from actrelax.analysis.reports import comparison, results_table
from actrelax.analysis.style import written
from actrelax.simulations.suites.depth import DEEP, LAYERS
from actrelax.simulations.suites.report import conditions_of

SUITES = ("depth-digits", "depth-digits-statistics")
PANELS = [f"{kind} {norm}" for norm in ("BatchNorm", "GroupNorm") for kind in ("ResNet", "plain")]
TICKS = (-3, 0, 1, 3, 10, 30, 90)
LINEAR = 3.0
"""Cost in points up to which the axis is linear; beyond, it is logarithmic."""

WIDTH = 1.6
"""Width, in layers, over which the rules of one depth are spread, so that their intervals don't overlap."""

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
    """Return panel -> rule -> layers -> cost, of the rules that were compared with backprop.

    Networks in which backprop reaches less than `LEARNABLE` are left out.

    Parameters
    ----------
    results : pathlib.Path
        Folder of the suites' results.
    """
    found: dict[str, dict[str, dict[int, Cost]]] = {panel: {} for panel in PANELS}
    for name in SUITES:
        outcomes = list(results_table.read(results / name).values())
        for variant in DEEP[name].variants:
            mine = [o for o in outcomes if o.variant == variant]
            rows = {r["condition"]: r for r in comparison.compared(conditions_of(DEEP[name], variant), mine)["rows"]}
            backprop = rows.get("backprop")
            if backprop and backprop["accuracy"] and backprop["accuracy"]["mean"] < LEARNABLE:
                continue
            network, norm = variant.split()
            kind, layers = network.split("-")
            for rule, row in rows.items():
                cost = _cost(row, backprop)
                if cost is not None:
                    found[f"{kind} {norm}"].setdefault(rule, {})[int(layers)] = cost
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
    """Draw the figure, and return whether there were rows to draw."""
    found = costs(results)
    rules = dict.fromkeys(rule for name in SUITES for rule in DEEP[name].conditions)
    shown = [rule for rule in rules if any(rule in found[panel] for panel in PANELS)]
    if not shown:
        return False
    with written(path, (8.4, 6.8)) as figure:
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        lines: dict[str, Any] = {}
        for ax, panel in zip(axes.flat, PANELS, strict=True):
            for number, rule in enumerate(shown):
                if rule in found[panel]:
                    aside = WIDTH * (number / max(len(shown) - 1, 1) - 0.5)
                    of = {layers + aside: cost for layers, cost in found[panel][rule].items()}
                    values = {at: (cost.points, cost.low, cost.high) for at, cost in of.items()}
                    crossed = [at for at, cost in of.items() if cost.diverged]
                    figures.estimates(ax, rule, values, number=number, crossed=crossed)
            handles, labels = ax.get_legend_handles_labels()
            lines |= zip(labels, handles, strict=True)
            ax.axhline(0, color="0.3", linewidth=0.8)
            ax.set_yscale("symlog", linthresh=LINEAR)
            ax.set(title=panel.replace("plain", "no skips,").replace("ResNet", "skips,"), ylim=(-5, 110))
            ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
            ax.minorticks_off()
            ax.set_xticks(LAYERS)
        for ax in axes[1]:
            ax.set_xlabel("layers")
        for ax in axes[:, 0]:
            ax.set_ylabel("points below backprop")
        figure.legend([lines[rule] for rule in shown], shown, loc="outside lower center", ncols=3)
    return True
