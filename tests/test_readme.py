"""The README says what is true: its programs run, its tables list what there is."""

import re
from pathlib import Path

import pytest
import torch

from actrelax.models.assumptions import PRESETS, Knobs
from actrelax.simulations.cli import SIMULATIONS

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture
def single_precision(double_precision):
    """As a user runs it."""
    torch.set_default_dtype(torch.float32)


def test_its_programs_run(single_precision, capsys):
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block, namespace)
    accuracy, shape = capsys.readouterr().out.splitlines()
    assert int(accuracy.split("%")[0]) > 80
    assert shape == "torch.Size([21, 8, 32])"


def test_it_lists_every_preset_knob_and_simulation():
    named = set(re.findall(r"`([a-z_ -]+)`", README.read_text()))
    assert set(PRESETS) | set(vars(Knobs())) <= named
    assert all(f"actrelax {name}" in README.read_text() for name in SIMULATIONS)
