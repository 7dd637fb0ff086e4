"""What can be lifted, how deep: the cost of each rule against the number of layers, from the rows of `depth`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from actrelax.analysis.reports import comparison, results_table
from actrelax.analysis.style import COLOURS, STYLES, written
from actrelax.simulations.suites.depth import DEEP, LAYERS
from actrelax.simulations.suites.report import conditions_of

SUITES = ("depth-digits", "depth-digits-statistics")
PANELS = [f"{kind} {norm}" for norm in ("BatchNorm", "GroupNorm") for kind in ("ResNet", "plain")]
TICKS = (-3, 0, 1, 3, 10, 30, 90)
LINEAR = 3.0
"""Cost in points up to which the axis is linear; beyond, it is logarithmic."""

CHANCE = 10.0
"""Accuracy in percent by guessing, at which rules are drawn that diverged with every seed."""


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
            network, norm = variant.split()
            kind, layers = network.split("-")
            for rule, row in rows.items():
                cost = _cost(row, rows.get("backprop"))
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
    rules = [rule for name in SUITES for rule in DEEP[name].conditions if any(rule in found[p] for p in PANELS)]
    if not rules:
        return False
    numbers = {rule: number for number, rule in enumerate(dict.fromkeys(rules))}
    with written(path, (8.4, 6.8)) as figure:
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        lines = {}
        for ax, panel in zip(axes.flat, PANELS, strict=True):
            for rule, of_layers in found[panel].items():
                lines[rule] = _draw_rule(ax, of_layers, numbers[rule], len(numbers))
            _style(ax, panel.replace("plain", "no skips,").replace("ResNet", "skips,"))
        for ax in axes[1]:
            ax.set_xlabel("layers")
        for ax in axes[:, 0]:
            ax.set_ylabel("points below backprop")
        shown = [rule for rule in numbers if rule in lines]
        figure.legend([lines[rule] for rule in shown], shown, loc="outside lower center", ncols=3)
    return True


def _draw_rule(ax: Axes, of_layers: Mapping[int, Cost], number: int, rules: int) -> Any:
    """Draw one rule, a little to the side of the others, with crosses where seeds diverged; return its line."""
    at = sorted(of_layers)
    xs = [layers + 1.6 * (number / max(rules - 1, 1) - 0.5) for layers in at]
    of = [of_layers[layers] for layers in at]
    colour, style = COLOURS[number % len(COLOURS)], STYLES[(number + number // len(COLOURS)) % len(STYLES)]
    errors = [[c.points - c.low for c in of], [c.high - c.points for c in of]]
    bars = ax.errorbar(
        xs, [c.points for c in of], errors, color=colour, linestyle=style, marker=".", elinewidth=0.8, linewidth=1.2
    )
    crosses = [(x, c.points) for x, c in zip(xs, of, strict=True) if c.diverged]
    if crosses:
        ax.plot(*zip(*crosses, strict=True), "x", color=colour, markersize=8)
    return bars


def _style(ax: Axes, title: str) -> None:
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set_yscale("symlog", linthresh=LINEAR)
    ax.set(title=title, ylim=(-5, 110))
    ax.yaxis.set_major_locator(FixedLocator(TICKS))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(FixedLocator(LAYERS))
