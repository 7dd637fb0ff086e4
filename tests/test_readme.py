"""Programs in the README and in the page on simulation run, and the README lists every simulation."""

import re
from pathlib import Path

import pytest
import torch

from actrelax import digits
from actrelax.simulations.cli import SIMULATIONS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


@pytest.fixture
def single_precision(double_precision):
    """Run in single precision, as users do."""
    torch.set_default_dtype(torch.float32)


def programs(page):
    """Return a page's Python blocks."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def run_programs(page):
    """Run a page's programs, one after another, in one session, and return its variables."""
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    for block in programs(page):
        exec(block, namespace)
    return namespace


def test_its_programs_run(single_precision, capsys):
    namespace = run_programs(README)
    images, labels = digits().test
    assert (namespace["model"](images).argmax(1) == labels).double().mean() > 0.8
    learned, settled = capsys.readouterr().out.splitlines()
    assert int(re.fullmatch(r"(\d+)% of the test digits after one epoch", learned)[1]) > 80
    found = re.fullmatch(r"error of hidden1: (\S+) at t = 0, (\S+) at t = 200", settled)
    assert float(found[1]) > 0.1 > 1e-3 > float(found[2])


def test_it_lists_every_simulation():
    assert all(f"    actrelax {name} " in README.read_text() for name in SIMULATIONS)


def test_the_programs_on_simulation_run(single_precision, capsys):
    run_programs(ROOT / "docs" / "simulation.md")
    lines = capsys.readouterr().out.splitlines()
    errors = [float(line.split(" is ")[1].split()[0]) for line in lines[:3]]
    assert all(1e-5 < error < 1e-2 for error in errors)
    assert errors[1] != errors[0] != errors[2]
    assert float(lines[3].split()[-1]) < 1e-12
    assert lines[4:6] == ["torch.Size([101, 2, 32])", "('hidden1_unit',)"]
    assert lines[-6] == "(3, 100) (1, 100)"
    assert float(lines[-5].split()[-1]) < 1e-12
    losses = [float(line.removeprefix("loss ")) for line in lines[-4:-1]]
    assert losses[0] > losses[1] > losses[2] > 0
    assert re.fullmatch(r"\[0\.[^]]+\] \[-0\.[^]]+\]", lines[-1])  # more excitation, less inhibition
