"""Compare training runs, or show the results of a suite: figures, tables, and a report to open in a browser.

Takes the folders of runs, or one folder that contains runs (`runs/demo`), or the results of a suite
(`results/mlp-mnist`). Runs that differ only in their seed form one condition, with means, 95 % intervals and paired
differences; conditions with another data set, network, number of images or number of epochs are not compared.
Unfinished runs are shown up to their last epoch.

Writes to --out report.html, a self-contained file, and each of its figures as PNG and PDF. The last line on screen
names the report.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from actrelax.analysis.fingerprints import verify_alike
from actrelax.analysis.reports import comparison, results_table, run_report, suite_report
from actrelax.analysis.reports.load_runs import Run, gather, run_folders
from actrelax.analysis.reports.page import write
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import interval
from actrelax.analysis.tables import Form, Table, without_nan
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.ledgers import ledger_sections

FILE = "report.html"


@dataclass(frozen=True)
class Config:
    """Options of an analysis."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, folders that contain runs, or the folder of a suite's results."""
    out: Path = Path("runs/analysis")
    """Folder of the report and its figures."""
    accept_changes: bool = False
    """Compare runs even if images or network files with the same name differ."""
    table: Form | None = None
    """Print only the tables on standard output, in this format: markdown, latex or html. Default: a summary in
    Markdown."""
    json: bool = False
    """Print only JSON on standard output."""


def main(config: Config) -> None:
    """Read runs or a suite, write the report, and print tables."""
    if not config.runs:
        raise ActrelaxError("actrelax analyze needs a folder, got none: give folders of runs, or a suite's results.")
    if config.json and config.table is not None:
        raise ActrelaxError("--json prints no tables: leave --table out, or leave --json out.")
    suites = [path for path in config.runs if suite_report.is_suite(path)]
    if suites and config.accept_changes:
        raise ActrelaxError("--accept-changes is for folders of runs, not for a suite's results: leave it out.")
    if suites and len(config.runs) > 1:
        raise ActrelaxError(f"{suites[0]} holds a suite's results, which are shown alone: give only that folder.")
    found = analysed_suite(config) if suites else analysed_runs(config)
    if config.json:
        print(json.dumps(without_nan(found)))
    elif config.table is None:
        print(f"report: {config.out / FILE}")


def analysed_runs(config: Config) -> dict[str, Any]:
    """Write the report on runs, and return the content of --json."""
    runs = gather(run_folders(config.runs))
    verify_alike((run.folder for run in runs), accept_changes=config.accept_changes)
    outcomes = [run.outcome for run in runs]
    for run in runs:
        if run.outcome.state is not State.FINISHED:
            print(f"{run.name}: {run.said}; shown up to its last epoch.", file=sys.stderr)
    for line in run_report.not_compared(runs):
        print(line, file=sys.stderr)
    write(config.out / FILE, run_report.page(runs, config.out, ledger_sections(runs)))
    if not config.json:
        conditions = [table for section in run_report.compared(runs) for table in section.tables]
        print_tables([run_report.outcome_table(runs, brief=True), *conditions], config.table)
    return {"runs": [_of_run(run) for run in runs], "conditions": _conditions(outcomes)}


def analysed_suite(config: Config) -> dict[str, Any]:
    """Write the report on a suite's results, and return the content of --json."""
    folder = config.runs[0]
    document, outcomes = suite_report.read_document(folder), list(results_table.read(folder).values())
    comparison.refuse_mixed(folder, outcomes)
    write(config.out / FILE, suite_report.page(folder, document, outcomes, config.out))
    if not config.json:
        print_tables(suite_report.tables(document), config.table)
    return {
        "suite": document["name"],
        "runs": [_of_outcome(outcome) for outcome in outcomes],
        "conditions": _conditions(outcomes),
        "tables": [part["rows"] for part in document["parts"]],
    }


CAPTIONS = {"markdown": "{}\n", "latex": "% {}", "html": "<!-- {} -->"}


def print_tables(tables: Sequence[Table], form: Form | None) -> None:
    """Print tables with their captions above."""
    for table in tables:
        print(f"{CAPTIONS[form or 'markdown'].format(table.caption)}\n{table.text(form or 'markdown')}\n")


def _of_run(run: Run) -> dict[str, Any]:
    """Return the outcome of a run, with its summary if it has finished."""
    named = {"run": run.name, "path": str(run.folder.path)}
    return named | _of_outcome(run.outcome) | (asdict(run.summary) if run.summary else {})


def _of_outcome(outcome: Outcome) -> dict[str, Any]:
    names = ("run", "variant", "condition", "seed", "state", "reason", "epochs", "wall_seconds")
    last = {column: values[-1] for column, values in outcome.curves.items() if column != "epoch"}
    return {name: getattr(outcome, name) for name in names} | last


def _conditions(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return each condition's mean final test accuracy over finished seeds, from 0 to 1, with its 95 % interval."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for o in outcomes:
        if o.state is State.FINISHED:
            found.setdefault((o.variant, o.condition), []).append(o)
    rows = []
    for (variant, condition), mine in found.items():
        accuracies = [o.final_accuracy() / 100 for o in mine]
        low, high = interval(accuracies)
        named = {"variant": variant, "condition": condition, "seeds": sorted(o.seed for o in mine)}
        rows.append(named | {"test_accuracy": statistics.fmean(accuracies), "low": low, "high": high})
    return rows


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("analyze", sys.argv[1:]))
