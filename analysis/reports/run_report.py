"""The report of training runs: outcomes, curves, angles, equilibria, and what tells the runs apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from actrelax.analysis.reports import comparison, curves
from actrelax.analysis.reports.load_runs import Run, command, differing, shown
from actrelax.analysis.reports.page import Page, Section, Table
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State, Summary

_ANGLE = "angle "
"""How the columns of metrics.csv begin that have a projection's angle."""


def page(runs: Sequence[Run], folder: Path, more: Iterable[Section] = ()) -> Page:
    """Draw the runs' figures into a folder, and return their report.

    Parameters
    ----------
    runs : sequence of Run
    folder : pathlib.Path
        Where each figure is written as PNG and as PDF.
    more : iterable of Section
        After the curves.

    Raises
    ------
    ActrelaxError
        If a figure can't be written, or a run's metrics can't be read.
    """
    outcomes = [run.outcome for run in runs]
    named = list(dict.fromkeys(o.condition for o in outcomes))
    sections = [
        Section("Outcomes", unfinished(runs), [outcome_table(runs)], _explained(runs)),
        *compared(outcomes),
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
    """Return a sentence on each run that has no outcome."""
    return [f"{run.name}: {run.said}. {run.outcome.reason}".strip() for run in runs if not run.summary]


def outcome_table(runs: Sequence[Run], brief: bool = False) -> Table:
    """Return a row per run: what it is, and what came out; the brief one for a terminal."""
    rows = [_outcome(run) for run in runs]
    names = [name for name in rows[0] if any(row[name] for row in rows) and not (brief and name in _LONG)]
    return Table("Each run after its last epoch", names, [[row[name] for name in names] for row in rows])


_LONG = {"data set", "network", "images per second", "steps", "device"}


def _outcome(run: Run) -> dict[str, str]:
    s, c, o = run.summary, run.config, run.outcome
    last = {name: f"{100 * values[-1]:.2f}" for name, values in o.curves.items()} if o.epochs else {}
    return {
        "run": run.name,
        "rule": str(c["rule"]),
        "assumptions": "" if c["rule"] == "backprop" else str(c["assumptions"]),
        "seed": str(o.seed),
        "test accuracy (%)": last.get("test_accuracy", ""),
        "validation accuracy (%)": last.get("validation_accuracy", ""),
        "train accuracy (%)": last.get("train_accuracy", ""),
        "distance from equilibrium": _distance(s),
        "steps": str(s.steps) if s and s.steps is not None else "",
        "wall time (s)": f"{o.wall_seconds:.1f}",
        "epochs": str(o.epochs),
        "state": run.said,
        "data set": s.dataset if s else Path(str(c["dataset"])).stem,
        "network": str(c["network"]),
        "images per second": f"{s.images_per_second:,.0f}" if s else "",
        "device": s.device if s else "",
    }


def _distance(summary: Summary | None) -> str:
    if summary is None or not summary.equilibrium:
        return ""
    return f"{max(found['error'] for found in summary.equilibrium.values()):.2g}"


def _explained(runs: Sequence[Run]) -> list[str]:
    if not any(run.summary and run.summary.equilibrium for run in runs):
        return []
    return [
        "Distance from equilibrium: how far the first batch's relaxations end from it with the trained weights, the "
        "largest error over the largest value of the gradient, in the population where that is most."
    ]


def compared(outcomes: Sequence[Outcome]) -> list[Section]:
    """Return conditions over their seeds, where some have several: a table, and what has to be known about it."""
    ended = [o for o in outcomes if o.state.is_final]
    found = comparison.among(ended)
    if found is None:
        return []
    lines = comparison.lines(found, ended)
    table = Table("Conditions over their seeds", *comparison.cells(found, lines))
    return [Section("Conditions", tables=[table], notes=[comparison.remarks(found, lines)])]


def _curves(outcomes: Sequence[Outcome], folder: Path) -> list[Section]:
    sound = [o for o in outcomes if o.state is not State.DIVERGED]
    pictures = curves.pictures(folder, sound)
    several = "Lines are means over a condition's seeds, bands their 95 % intervals."
    text = [several] if comparison.among(sound) else []
    text += ["Runs that diverged are left out."] if len(sound) < len(outcomes) else []
    return [Section("While they learned", text, pictures=pictures)] if pictures else []


def _angles(runs: Sequence[Run]) -> list[Section]:
    """Tell the angles of the last epoch, projection by projection."""
    last = {}
    for run in runs:
        row = run.folder.table("metrics")[-1] if run.outcome.epochs else {}
        found = {name.removeprefix(_ANGLE): f"{v:.2f}" for name, v in row.items() if name.startswith(_ANGLE)}
        if found:
            last[run.name] = found
    if not last:
        return []
    caption = "Angle between AR's updates and backprop's in the last epoch (degrees)"
    return [Section("Updates against backprop's", tables=[_crossed(caption, last)])]


def _equilibria(runs: Sequence[Run]) -> list[Section]:
    """Tell how far relaxations end from equilibrium, population by population."""
    found = {run.name: run.summary.equilibrium for run in runs if run.summary and run.summary.equilibrium}
    if not found:
        return []
    tables = [
        _crossed(
            caption, {name: {v: f"{e[key]:.2g}" for v, e in ends.items() if key in e} for name, ends in found.items()}
        )
        for key, caption in (
            ("error", "Largest error over the largest value of the gradient"),
            ("initial", "Share of the activity that is still the initial one"),
        )
        if any(key in e for ends in found.values() for e in ends.values())
    ]
    return [Section("How far relaxations end from equilibrium", tables=tables)]


def _differences(runs: Sequence[Run]) -> list[Section]:
    """List the options that are not the same in all runs."""
    names = differing([run.config for run in runs])
    if not names:
        return []
    rows = {run.name: {name: shown(run.config.get(name)) for name in names} for run in runs}
    return [
        Section("What differs between the runs", tables=[_crossed("Options that are not the same in all runs", rows)])
    ]


def _versions(runs: Sequence[Run]) -> Table:
    found = {run.name: run.summary.versions for run in runs if run.summary}
    if len({tuple(versions.items()) for versions in found.values()}) == 1:
        found = {"all that finished" if len(found) > 1 else next(iter(found)): next(iter(found.values()))}
    return _crossed("Versions that a result depends on", found)


def _crossed(caption: str, rows: Mapping[str, Mapping[str, str]]) -> Table:
    """Return a table of runs by whatever each names; cells that some lack stay empty."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    return Table(caption, ["run", *names], [[run, *(row.get(name, "") for name in names)] for run, row in rows.items()])


def _configurations(runs: Sequence[Run]) -> Section:
    """Say how to do the runs again."""
    varying = differing([run.config for run in runs])
    common = [[name, shown(value)] for name, value in runs[0].config.items() if name not in varying]
    table = Table("Options that are the same in all runs", ["option", "value"], common)
    commands = "\n\n".join(f"# {run.name}\n{command(run.config)}" for run in runs)
    return Section("Commands and configuration", tables=[table], code=commands, folded=True)
