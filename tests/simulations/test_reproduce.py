"""The smoke suite, as a user runs it, against the table that is committed."""

import csv
from pathlib import Path

import pytest

from actrelax.simulations.cli import main
from actrelax.simulations.suites.definitions import SUITES

COMMITTED = Path(__file__).parents[2] / "results" / "smoke"


def accuracies(folder):
    found = {}
    with (folder / "runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["condition"], []).append(100 * float(row["test_accuracy"]))
    return {condition: sum(values) / len(values) for condition, values in found.items()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = tmp_path_factory.mktemp("smoke")
    command = ["reproduce", "smoke", "--runs", str(place / "runs"), "--out", str(place / "out"), "--quiet"]
    assert main([*command, "--jobs", "1"]) == 0
    return place, command


def test_smoke_comes_out_as_committed(done):
    found, committed = accuracies(done[0] / "out"), accuracies(COMMITTED)
    assert found.keys() == committed.keys()
    for condition, accuracy in committed.items():
        assert found[condition] == pytest.approx(accuracy, abs=2)


def test_what_it_writes(done, capsys):
    place, command = done
    names = ["angles.png", "curves.csv", "learning-curves.png", "runs.csv", "table.md", "table.tex"]
    assert sorted(path.name for path in (place / "out").iterdir()) == names
    before = {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.suffix != ".png"}
    # rows outlive their runs' folders
    (place / "runs").rename(place / "moved")
    assert main([*command, "--report-only"]) == 0
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.suffix != ".png"} == before
    said = capsys.readouterr().out
    assert "| AR | 3 | " in said
    assert said.endswith(f"written to {place / 'out'}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "unknown suite 'nonsense'"),
        (["smoke", "--seeds", "0"], "--seeds must be 1 or more, got 0"),
        (["smoke", "--seed", "3"], "--seed is what the runs of this suite differ in: leave it out."),
        (["map", "--seeds", "3"], "map sets results beside each other that there are: it takes --out alone."),
        (["smoke", "--report-only"], "no run has ended yet: leave --report-only out."),
        (["smoke", "--scheduler", "tcp://127.0.0.1:1"], "there is no Dask scheduler at tcp://127.0.0.1:1"),
    ],
)
def test_what_is_refused(tmp_path, capsys, arguments, said):
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["reproduce", *arguments, *places]) == 2
    assert capsys.readouterr().err.startswith(f"actrelax reproduce: {said}")


def test_suites_are_listed(capsys):
    assert main(["reproduce"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == ["gradients", *SUITES, "map"]
