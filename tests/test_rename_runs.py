"""Rows of an older version receive current names, all or none."""

import importlib.util
import shutil

import pytest
from committed import RESULTS

SPEC = importlib.util.spec_from_file_location("rename_runs", RESULTS / "rename_runs.py")
rename_runs = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(rename_runs)


@pytest.fixture
def folder(tmp_path):
    """Return results of the smoke suite as an older version wrote them."""
    found = shutil.copytree(RESULTS / "smoke", tmp_path / "smoke")
    for case in rename_runs.suite_of(found).cases():
        today = rename_runs.Kept(tmp_path, case.experiment.resolved(), case.execution).hash
        former = next(iter(rename_runs.former_hashes(case)))
        assert former != today
        for table in ("runs.csv", "curves.csv"):
            (found / table).write_text((found / table).read_text().replace(today, former))
    return found


def test_rows_become_those_that_are_committed(folder):
    assert rename_runs.rename(folder) == 12
    for table in ("runs.csv", "curves.csv"):
        assert (folder / table).read_bytes() == (RESULTS / "smoke" / table).read_bytes()
    assert rename_runs.rename(folder) == 0


def test_a_run_of_other_options_is_refused_and_nothing_is_changed(folder):
    rows = (folder / "runs.csv").read_text()
    name = rows.splitlines()[-1].split(",")[3]
    before = rows.replace(name, "0123456789ab")
    (folder / "runs.csv").write_text(before)
    curves = (folder / "curves.csv").read_text()
    with pytest.raises(SystemExit, match="that is not the suite's: 0123456789ab"):
        rename_runs.rename(folder)
    assert (folder / "runs.csv").read_text() == before
    assert (folder / "curves.csv").read_text() == curves
