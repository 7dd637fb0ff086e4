"""Rewrite the column `run` of runs.csv and curves.csv from the hash that identified a run before to today's.

A run was once identified by all options, how it was computed included; today by those that determine its result. Run
this on rows that come from an older checkout, before they are committed:

    python results/rename_runs.py

Rows that have today's hash already stay; rows of no suite in simulations/suites/definitions.py are an error.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from actrelax.analysis.files import write_text
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.learning_rates import own_rates, swept
from actrelax.simulations.suites.run_store import Kept
from actrelax.simulations.suites.suite import Case, Suite
from actrelax.simulations.training.configuration import as_options, changed
from actrelax.simulations.training.execution import Execution

SEEDS = 20
PAPERS_CLIP = 50.0
"""The protocols' former clip of relaxations, which no bracket of these runs reached."""


def former_hashes(case: Case) -> Iterator[str]:
    """Yield the hashes that a run may have had: with the protocols' clip, and without."""
    execution = Execution("cpu", 1, processes=1, measure_alignment=case.execution.measure_alignment)
    for clip in (case.experiment.relaxation.clip, PAPERS_CLIP):
        experiment = changed(case.experiment.resolved(), {"clip": clip})
        options: dict[str, Any] = {"verify_every": 1000} | as_options(experiment) | as_options(execution)
        options["method"] = options.pop("evaluation")
        options["augment"] = options["augment"] != "none"
        del options["layout"]  # which came later
        if options["tau_spread_over"] == "neurons":
            del options["tau_spread_over"]
        yield hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def suite_of(folder: Path) -> Suite:
    """Return the suite whose results a folder has."""
    for name, suite in SUITES.items():
        if folder.name == name:
            return replace(suite, seeds=SEEDS)
        if folder.name == f"{name}-own-rates":
            return replace(own_rates(name, suite, folder.parent / f"{name}-rates"), seeds=SEEDS)
        if folder.name == f"{name}-rates":
            with (folder / "runs.csv").open(newline="") as file:
                labels = {row["variant"].rpartition(" ")[2] for row in csv.DictReader(file)}
            return replace(swept(suite, [float(label) for label in labels]).suite, seeds=SEEDS)
    raise SystemExit(f"{folder} holds the results of no suite.")


def rename(folder: Path) -> int:
    """Rewrite both tables of a folder; return the number of runs with a new name."""
    today: dict[tuple[str, str], set[str]] = {}
    former: dict[tuple[str, str, str], str] = {}
    for case in suite_of(folder).cases():
        new = Kept(Path(), case.experiment.resolved(), case.execution).hash
        today.setdefault((case.variant, case.condition), set()).add(new)
        former |= {(case.variant, case.condition, old): new for old in former_hashes(case)}
    names = {}
    with (folder / "runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["variant"], row["condition"]
            if row["run"] not in today[key]:
                if (*key, row["run"]) not in former:
                    raise SystemExit(f"{folder / 'runs.csv'} has a run of {key} that is not the suite's: {row['run']}.")
                names[row["run"]] = former[*key, row["run"]]
    # runs.csv comes last: it says which names are left to change
    for table in ("curves.csv", "runs.csv"):
        text = (folder / table).read_text(encoding="utf-8")
        for old, new in names.items():
            text = text.replace(old, new)
        write_text(folder / table, text)
    return len(names)


if __name__ == "__main__":
    for place in sorted(path.parent for path in Path(__file__).parent.glob("*/runs.csv")):
        sys.stdout.write(f"{place.name}: {rename(place)} runs renamed\n")
