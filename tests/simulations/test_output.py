"""Output under adverse conditions: a closed pipe, a full disk, closed streams."""

import io
import os
import subprocess
import sys

import pytest

from actrelax.simulations.cli import main
from actrelax.simulations.output import Output

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
