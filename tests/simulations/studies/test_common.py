"""Reports of studies, and the results stated in their docstrings."""

import ast
import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro
from outcomes import is_drawn

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.studies.common import DIGITS, at_epoch, curves, followed, report
from actrelax.simulations.suites.suite import varied

ROOT = Path(__file__).resolve().parents[3]
STUDIES = sorted(
    script.stem for script in (ROOT / "simulations" / "studies").glob("*.py") if "__main__" in script.read_text()
)


def study(name):
    return importlib.import_module(f"actrelax.simulations.studies.{name}")


def test_a_report_is_rounded_and_ends_with_what_was_printed_last(tmp_path, capsys):
    numbers = {"a": {0.5: 1 / 3, 3: np.float64(123456.7)}, "b": None, "c": math.nan, "d": 7}
    report(tmp_path / "new" / "x.json", numbers, "first", "last")
    assert capsys.readouterr().out == "first\nlast\n"
    assert json.loads((tmp_path / "new" / "x.json").read_text()) == {
        "a": {"0.5": 0.333333, "3": 123457.0},
        "b": None,
        "c": None,
        "d": 7,
        "last line": "last",
    }
    with pytest.raises(ActrelaxError, match=r"^can't write to "):
        report(tmp_path, {}, "last")


def test_trainings_are_followed_from_before_the_first_epoch():
    base, conditions = varied(DIGITS, {"network": "mlp-2x8", "epochs": 2}), {"slow": {"lr": 0.01}, "fast": {"lr": 0.25}}
    rows = followed(base, conditions, lambda training, options: {"x": training.done * options["lr"]}, seeds=2)
    assert list(rows["condition"]) == ["slow"] * 6 + ["fast"] * 6
    assert list(rows["seed"]) == [0, 0, 0, 1, 1, 1] * 2
    assert list(rows["epoch"]) == [0, 1, 2] * 4
    assert curves(rows, "x")["fast"] == {0: [0, 0], 1: [5.75, 5.75], 2: [11.5, 11.5]}
    assert at_epoch(rows, 0)["accuracy"] == pytest.approx(25 * rows["accuracy"][rows["epoch"] == 0].sum())
    assert rows["accuracy"][11] > max(rows["accuracy"][5], rows["accuracy"][9]) + 0.1


@pytest.mark.parametrize("name", STUDIES)
def test_its_options_are_explained(name, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(study(name).main, args=["--help"])
    assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize("name", STUDIES)
def test_it_promises_what_was_measured(name):
    found = json.loads((ROOT / "results" / "studies" / f"{name}.json").read_text())
    assert re.search(r"^The last line on screen:  (.+)$", study(name).__doc__, re.MULTILINE)[1] == found["last line"]
    assert is_drawn(ROOT / "docs" / "figures" / "findings" / f"{name}.png")


def test_scripts_start_where_a_notebooks_backend_is_missing(tmp_path):
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline_missing.backend"}
    script = ROOT / "simulations" / "studies" / "transients.py"
    command = [sys.executable, str(script), "--out", str(tmp_path / "missing"), "--help"]
    assert subprocess.run(command, env={**environment, "MPLBACKEND": "missing"}, check=False).returncode == 0
    assert subprocess.run(command, env=environment, check=False).returncode == 0


@pytest.mark.parametrize("script", sorted((ROOT / "simulations").glob("*/*.py")), ids=lambda path: path.stem)
def test_scripts_import_matplotlib_after_us(script):
    """Else the backend is looked for before we can do without it."""
    body = ast.parse(script.read_text()).body
    names = [each.module or "" for each in body if isinstance(each, ast.ImportFrom)]
    names += [alias.name for each in body if isinstance(each, ast.Import) for alias in each.names]
    assert not any(name.split(".")[0] == "matplotlib" for name in names)
