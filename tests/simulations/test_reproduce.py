"""The smoke suite, as a user runs it, against the committed table."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from actrelax.analysis.reports import suite_report
from actrelax.analysis.runs import RunFolder
from actrelax.simulations.cli import main
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.training.run import run

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
    names = [".lock", "angles.png", "curves.csv", "learning-curves.png", "runs.csv", "table.json"]
    assert sorted(path.name for path in (place / "out").iterdir()) == names
    before = {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.suffix != ".png"}
    # rows remain if run folders are deleted
    (place / "runs").rename(place / "moved")
    assert main([*command, "--report-only"]) == 0
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir() if path.suffix != ".png"} == before
    assert f"torch {torch.__version__} on cpu" in before["runs.csv"].decode()
    said = capsys.readouterr().out
    assert re.search(r"\| AR +\| +3 +\|", said)
    assert said.endswith(f"written to {place / 'out'}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "unknown suite 'nonsense'"),
        (["smoke", "--seeds", "0"], "--seeds must be between 1 and 10000, got 0"),
        (["smoke", "--seed", "3"], "--seed differs between the runs of this suite: leave it out."),
        (["map", "--seeds", "3"], "map takes only --out: leave other options out."),
        (["list", "--seeds", "3"], "list takes no options: leave them out."),
        (["smoke", "--conditions", "AR", "nix"], "--conditions names an unknown condition 'nix'; known: backprop, AR"),
        (["list", "--out", "x"], "list takes no options: leave them out."),
        (["--seeds", "3", "smoke"], "name the suite first: actrelax reproduce SUITE --seeds ..."),
        (
            ["cnn-cifar10", "--dataset", "own.npz"],
            "the decay of Kolen-Pollack feedback needs the number of training images, unknown for --dataset own.npz: ",
        ),
        (["smoke", "--seeds", "1", "--runs", "/dev/null"], "can't write to /dev/null/.locks: Not a directory."),
        (["smoke", "--report-only"], "no run has ended yet: leave --report-only out."),
        (["smoke", "--scheduler", "tcp://127.0.0.1:1"], "--scheduler tcp://127.0.0.1:1 can't be reached: start it"),
        (["smoke", "--scheduler", "tls://127.0.0.1:1"], "--scheduler tls://127.0.0.1:1 can't be reached: start it"),
    ],
)
def test_what_is_refused(tmp_path, capsys, arguments, said):
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--quiet", "--jobs", "1"]
    assert main(["reproduce", arguments[0], *places, *arguments[1:]]) == 2
    assert capsys.readouterr().err.startswith(f"actrelax reproduce: {said}")


def test_a_missing_statsmodels_is_said_before_any_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    assert main(["reproduce", "smoke", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    said = 'comparing conditions needs statsmodels: pip install "actrelax[analysis]".'
    assert capsys.readouterr().err == f"actrelax reproduce: {said}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_does_not_cost_the_table_of_the_others(tmp_path, monkeypatch, capsys):
    def failing(experiment, *rest):
        if experiment.seed == 1:
            raise MemoryError("no room")
        return run(experiment, *rest)

    monkeypatch.setattr("actrelax.simulations.suites.runner.run", failing)
    options = ["--seeds", "2", "--epochs", "1", "--network", "digits-mlp", "--jobs", "1", "--quiet"]
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert main(["reproduce", "smoke", *options, *places]) == 2
    said = capsys.readouterr()
    assert "4 of 8 runs can't be done; " in said.err
    assert "\n4 of 8 runs of 1 epoch, " in said.out
    assert suite_report.text(suite_report.read_document(tmp_path / "out")) in said.out


def test_some_conditions(tmp_path):
    """Finished runs stay in the tables; the hash is the one that `actrelax train` prints."""
    command = ["reproduce", "smoke", "--epochs", "1", "--seeds", "1", "--quiet", "--jobs", "1"]
    command += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    for condition, found in ("AR", {"AR"}), ("backprop", {"AR", "backprop"}):
        assert main([*command, "--conditions", condition]) == 0
        assert accuracies(tmp_path / "out").keys() == found
    for folder in (tmp_path / "runs").glob("digits*"):
        assert folder.name.endswith(f"-{RunFolder(folder).summary().hash}")


def test_two_commands_at_once(done, tmp_path):
    """Two commands share runs and results: each run is done once, and both end with all rows."""
    options = ["--seeds", "1", "--epochs", "2", "--quiet", "--jobs", "1"]
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    program = [sys.executable, "-m", "actrelax.simulations.reproduce", "smoke", *options, *places]
    both = [subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    alone = ["--runs", str(tmp_path / "alone"), "--out", str(tmp_path / "out-alone")]
    assert main(["reproduce", "smoke", *options, *alone]) == 0
    assert accuracies(tmp_path / "out") == accuracies(tmp_path / "out-alone")
    assert "    actrelax reproduce smoke --seeds 1 --epochs 2\n" in said[0][0]


def test_gradients_says_how_it_is_done_again(tmp_path, capsys):
    options = ["--seeds", "2", "--dataset", "digits", "--network", "mlp-3x5", "--steps", "5"]
    assert main(["reproduce", "gradients", *options, "--out", str(tmp_path)]) == 0
    assert f"    actrelax reproduce gradients {' '.join(options)}\n" in capsys.readouterr().out


def test_suites_are_listed(capsys):
    assert main(["reproduce"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == ["gradients", *SUITES, "map"]
