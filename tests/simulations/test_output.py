"""Output under adverse conditions: a closed pipe, a full disk, closed streams."""

import io
import os
import subprocess
import sys
import warnings

import pytest

from actrelax.simulations.cli import SIMULATIONS, main
from actrelax.simulations.output import Output, say_warnings

COMMAND = f"{sys.executable} -m actrelax.simulations.cli"
RELAX = "relax --network digits-mlp --steps 2 --out run"


def test_a_reader_that_has_enough(tmp_path):
    command = f"set -o pipefail; {COMMAND} train --help | head -1 > /dev/null"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_closed_streams_and_a_notebooks_backend(tmp_path):
    """MPLBACKEND may name a notebook's backend whose package is not installed."""
    found = subprocess.run(
        ["bash", "-c", f"{COMMAND} {RELAX} >&- 2>&- <&-"],
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline_missing.backend"},
        cwd=tmp_path,
        check=False,
    )
    assert found.returncode == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["relaxation.png", "trajectory.nc"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["reproduce", "list"], 1),
        (["--help"], 1),
        (["nothing"], 2),
        (["reproduce", "nothing"], 2),
    ],
)
def test_a_full_disk_is_one_sentence(monkeypatch, capsys, arguments, status):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(arguments) == status
        assert sys.stdout is full
    said = capsys.readouterr().err
    if status == 1:
        assert said == "actrelax: can't write to standard output: No space left on device.\n"


def test_help_onto_a_full_disk(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["train", "--help"]) == 1
    assert capsys.readouterr().err == "actrelax: can't write to standard output: No space left on device.\n"


def test_progress_onto_a_full_disk_stops_nothing(monkeypatch, capsys, tmp_path):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["train", "--network", "digits-mlp", "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_names_that_the_encoding_lacks_are_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print("r\udcff\u2192", file=Output(stream), flush=True)
    assert stream.buffer.getvalue() == b"r\\udcff\\u2192\n"


@pytest.fixture
def shown():
    """Show each warning, as outside of pytest, and restore how at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield


@pytest.mark.usefixtures("shown")
def test_a_warning_whose_numbers_change_from_batch_to_batch_is_said_once(capsys):
    say_warnings("train")
    for moving, value in ((3, 1.07), (5, 2e-05)):
        warnings.warn(f"{moving} of 64 samples have real part {value}.", stacklevel=1)
    warnings.warn("5 of 64 samples diverge.", stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [
        "actrelax train: warning: 3 of 64 samples have real part 1.07.",
        "actrelax train: warning: 5 of 64 samples diverge.",
    ]


@pytest.mark.usefixtures("shown")
def test_warnings_about_other_names_are_all_said(capsys):
    say_warnings("train")
    names = ["hidden1", "hidden2", "0.weight", "10.weight", "conv1->conv2", "conv2->conv3", "'0'", "'1'"]
    for name in names:
        warnings.warn(f"{name} has no effect.", stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [f"actrelax train: warning: {name} has no effect." for name in names]


@pytest.mark.usefixtures("shown")
def test_warnings_of_the_program_are_sentences(monkeypatch, tmp_path, capsys):
    arguments = "train --network digits-mlp --dataset digits --epochs 1 --conv-factor 2 --out"
    monkeypatch.setattr(sys, "argv", ["actrelax", *arguments.split(), str(tmp_path / "run")])
    assert main() == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "actrelax train: warning: --conv-factor has no effect: digits-mlp has no convolution."


@pytest.mark.parametrize("program", SIMULATIONS)
@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--out", ""], "--out"), (["--out="], "--out"), ([""], "an argument"), (["a", ""], "an argument")],
)
def test_an_empty_argument_is_never_the_current_directory(program, arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([program, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"actrelax {program}: {named} is empty, as after an unset shell variable: give it a value")
    assert not list(tmp_path.iterdir())
