"""Report on training runs: outcomes, curves, angles, distances from equilibrium, and differing options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actrelax.analysis.reports import comparison, comparison_text, curves
from actrelax.analysis.reports.load_runs import TASK, Run, command, differing, rule_of, shown
from actrelax.analysis.reports.page import Page, Section
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.tables import Table

_ANGLE = "angle "
"""Prefix of the columns of metrics.csv that hold angles of projections."""


def page(runs: Sequence[Run], folder: Path, more: Iterable[Section] = ()) -> Page:
    """Draw the figures of runs, as PNG and PDF, and return their report.

    Parameters
    ----------
    runs : sequence of Run
    folder : pathlib.Path
        Folder of the figures.
    more : iterable of Section, optional
        Further sections, after the curves.

    Raises
    ------
    ActrelaxError
        If a figure can't be written, or a run's metrics can't be read.
    """
    outcomes = [run.outcome for run in runs]
    named = list(dict.fromkeys(o.condition for o in outcomes))
    sections = [
        Section("Outcomes", unfinished(runs), [outcome_table(runs)], _explained(runs)),
        *compared(runs),
        *_curves(outcomes, folder),
        *more,
        *_angles(runs),
        *_equilibria(runs),
        *_differences(runs),
        *([Section("Versions", tables=[_versions(runs)])] if any(run.summary for run in runs) else []),
        _configurations(runs),
    ]
    title = f"{len(runs)} training run{'s' if len(runs) > 1 else ''}: {', '.join(named[:4])}"
    return Page(title + (" and others" if len(named) > 4 else ""), [], sections)


def unfinished(runs: Sequence[Run]) -> list[str]:
    """Return a sentence on each run that has not finished."""
    return [f"{run.name}: {run.said}. {run.outcome.reason}".strip() for run in runs if not run.summary]


def outcome_table(runs: Sequence[Run], brief: bool = False) -> Table:
    """Return a table with one row per run.

    A brief one, for a terminal, leaves out the columns of `_LONG`, and those of `_COMMON` if all values are the same.
    """
    columns = [column for column in _COLUMNS if not (brief and column[0] in _LONG)]
    shown = [(name, form, [value(run) for run in runs]) for name, form, value in columns]
    shown = [column for column in shown if any(value not in (None, "") for value in column[2])]
    shown = [column for column in shown if not (brief and column[0] in _COMMON and len(set(column[2])) == 1)]
    rows = zip(*(values for _, _, values in shown), strict=True)
    return Table.of("Each run after its last epoch", [(name, form) for name, form, _ in shown], list(rows))


def _accuracy(run: Run, of: str) -> float | None:
    values = run.outcome.curves.get(f"{of}_accuracy")
    return 100 * values[-1] if values and run.outcome.epochs else None


def _distance(run: Run) -> float | None:
    found = run.summary.equilibrium if run.summary else None
    return max(population["error"] for population in found.values()) if found else None


_COLUMNS: list[tuple[str, str, Callable[[Run], Any]]] = [
    ("run", "", lambda run: run.name),
    ("rule", "", lambda run: run.config["rule"]),
    ("assumptions", "", lambda run: rule_of(run.config) if run.config["rule"] == "ar" else ""),
    ("seed", "", lambda run: run.outcome.seed),
    ("test accuracy (%)", ".2f", lambda run: _accuracy(run, "test")),
    ("validation accuracy (%)", ".2f", lambda run: _accuracy(run, "validation")),
    ("train accuracy (%)", ".2f", lambda run: _accuracy(run, "train")),
    ("distance from equilibrium", ".2g", _distance),
    ("steps", "", lambda run: run.summary and run.summary.steps),
    ("wall time (s)", ".1f", lambda run: run.outcome.wall_seconds),
    ("epochs", "", lambda run: run.outcome.epochs),
    ("state", "", lambda run: run.said),
    ("data set", "", lambda run: run.summary.dataset if run.summary else Path(str(run.config["dataset"])).stem),
    ("network", "", lambda run: run.config["network"]),
    ("images per second", ",.0f", lambda run: run.summary and run.summary.images_per_second),
    ("device", "", lambda run: run.summary and run.summary.device),
]
"""Name, format and value of each column of the table of outcomes; empty columns are left out."""

_LONG = {"images per second", "steps", "device"}
_COMMON = {"data set", "network"}


def _explained(runs: Sequence[Run]) -> list[str]:
    if not any(run.summary and run.summary.equilibrium for run in runs):
        return []
    return [
        "Distance from equilibrium: largest error at the end of a relaxation, relative to the largest gradient, for "
        "the first batch and the trained weights, in the population where it is largest."
    ]


def compared(runs: Sequence[Run]) -> list[Section]:
    """Return a section per task (`TASK`) that compares its conditions over their seeds, if a condition has several."""
    ended = [run for run in runs if run.outcome.state.is_final]
    varying, left_out, sections = _varying(ended), not_compared(runs), []
    for task in dict.fromkeys(run.task for run in ended):
        outcomes = [run.outcome for run in ended if run.task == task]
        if (found := comparison.among(outcomes)) is None:
            continue
        part, of = comparison.compared(found, outcomes), dict(zip(TASK, task, strict=True))
        on = "".join(f", {option} {shown(of[option])}" for option in varying)
        above = [*left_out, *filter(None, [" ".join(comparison_text.families(part))])]
        table = comparison_text.table(f"Conditions over their seeds{on}", part)
        sections.append(Section(f"Conditions{on}", above, [table], [" ".join(comparison_text.remarks(part))]))
    return sections


def not_compared(runs: Sequence[Run]) -> list[str]:
    """Return a sentence if a condition has several seeds, and runs on another task are left out of its comparison.

    Differences between the rules of such runs would be confounded with those between their tasks.
    """
    ended = [run for run in runs if run.outcome.state.is_final]
    varying = _varying(ended)
    if not varying or comparison.among([run.outcome for run in ended]) is None:
        return []
    return [f"Conditions are compared only where runs share these options, which differ here: {', '.join(varying)}."]


def _varying(runs: Sequence[Run]) -> list[str]:
    """Return the options of the task that differ between runs."""
    return [option for option in TASK if len({run.config.get(option) for run in runs}) > 1]


def _curves(outcomes: Sequence[Outcome], folder: Path) -> list[Section]:
    sound = [o for o in outcomes if o.state is not State.DIVERGED]
    pictures = curves.pictures(folder, sound)
    several = "Lines are means over the seeds of a condition, bands their 95 % intervals."
    text = [several] if comparison.among(sound) else []
    text += ["Runs that diverged are left out."] if len(sound) < len(outcomes) else []
    return [Section("Learning curves", text, pictures=pictures)] if pictures else []


def _angles(runs: Sequence[Run]) -> list[Section]:
    """Return a section with the angles of each projection in the last epoch."""
    last = {}
    for run in runs:
        row = run.folder.table("metrics")[-1] if run.outcome.epochs else {}
        found = {name.removeprefix(_ANGLE): value for name, value in row.items() if name.startswith(_ANGLE)}
        if found:
            last[run.name] = found
    if not last:
        return []
    caption = "Angle between AR's updates and backprop's in the last epoch (degrees)"
    return [Section("Updates against backprop's", tables=[_crossed(caption, last, ".2f")])]


def _equilibria(runs: Sequence[Run]) -> list[Section]:
    """Return a section with the distance of each population from equilibrium."""
    found = {run.name: run.summary.equilibrium for run in runs if run.summary and run.summary.equilibrium}
    if not found:
        return []
    captions = {
        "error": "Largest error, relative to the largest gradient",
        "initial": "Remaining share of the initial activity",
    }
    tables = []
    for key, caption in captions.items():
        rows = {name: {v: e[key] for v, e in ends.items() if key in e} for name, ends in found.items()}
        if any(rows.values()):
            tables.append(_crossed(caption, rows, ".2g"))
    return [Section("Distance from equilibrium", tables=tables)]


def _differences(runs: Sequence[Run]) -> list[Section]:
    """Return a section with the options that differ between runs."""
    names = differing([run.config for run in runs])
    if not names:
        return []
    rows = {run.name: {name: shown(run.config.get(name)) for name in names} for run in runs}
    table = _crossed("Options that differ between runs", rows)
    return [Section("Differences between the runs", tables=[table])]


def _versions(runs: Sequence[Run]) -> Table:
    found = {run.name: run.summary.versions for run in runs if run.summary}
    if len({tuple(versions.items()) for versions in found.values()}) == 1:
        found = {"all finished runs" if len(found) > 1 else next(iter(found)): next(iter(found.values()))}
    return _crossed("Versions of the software", found)


def _crossed(caption: str, rows: Mapping[str, Mapping[str, Any]], form: str = "") -> Table:
    """Return a table with one row per run and one column per name; missing values are empty cells."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[run, *(row.get(name) for name in names)] for run, row in rows.items()]
    return Table.of(caption, [("run", ""), *((name, form) for name in names)], cells)


def _configurations(runs: Sequence[Run]) -> Section:
    """Return a section with the commands that repeat the runs, and their common options."""
    varying = differing([run.config for run in runs])
    common = [[name, shown(value)] for name, value in runs[0].config.items() if name not in varying]
    table = Table.of("Options shared by all runs", [("option", ""), ("value", "")], common)
    commands = "\n\n".join(f"# {run.name}\n{command(run.config)}" for run in runs)
    return Section("Commands and configuration", tables=[table], code=commands, folded=True)
