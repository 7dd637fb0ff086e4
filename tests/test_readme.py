"""The README and the pages say what is true: their programs run, their tables list what there is."""

import re
from pathlib import Path

import pytest
import torch

from actrelax.models.assumptions import PRESETS, Knobs
from actrelax.simulations.cli import SIMULATIONS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


@pytest.fixture
def single_precision(double_precision):
    """As a user runs it."""
    torch.set_default_dtype(torch.float32)


def run_programs(page):
    """Run a page's programs, one after the other, as one session."""
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, namespace)


def test_its_programs_run(single_precision, capsys):
    run_programs(README)
    accuracy, shape = capsys.readouterr().out.splitlines()
    assert int(accuracy.split("%")[0]) > 80
    assert shape == "torch.Size([21, 8, 32])"


def test_it_lists_every_preset_knob_and_simulation():
    named = set(re.findall(r"`([a-z_ -]+)`", README.read_text()))
    assert set(PRESETS) | set(vars(Knobs())) <= named
    assert all(f"actrelax {name}" in README.read_text() for name in SIMULATIONS)


def test_the_programs_on_simulation_run(single_precision, capsys):
    run_programs(ROOT / "docs" / "simulation.md")
    lines = capsys.readouterr().out.splitlines()
    errors = [float(line.split(" is ")[1].split()[0]) for line in lines[:3]]
    assert all(1e-5 < error < 1e-2 for error in errors)
    assert errors[1] != errors[0] != errors[2]
    assert float(lines[3].split()[-1]) < 1e-12
    assert lines[4:6] == ["torch.Size([101, 2, 32])", "('hidden1_unit',)"]
    assert lines[-2] == "(3, 100) (1, 100)"
    assert float(lines[-1].split()[-1]) < 1e-12
