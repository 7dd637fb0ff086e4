"""Lines and marks of the figure of a perturbation study. Oracle: the table written out."""

import math

import pandas as pd
import pytest
from outcomes import is_drawn

from actrelax.analysis import figures
from actrelax.simulations.studies.perturbation import REFERENCES
from actrelax.simulations.studies.perturbation_figure import accuracy_panel, angle_panel, draw


@pytest.fixture
def rows():
    """Return a table of two series with two levels and two seeds, and two references."""
    perturbed = [
        {
            "series": series,
            "level": level,
            "seed": seed,
            "accuracy": 0.9 - level / 10 - seed / 100,
            "angle input->hidden1": 30.0 * level + seed,
            "angle hidden1->hidden2": 20.0 * level,
            "predicted hidden1->hidden2": 21.0 * level if series == "noisy" else math.nan,
            "first input->hidden1": 5.0 + level,
        }
        for series in ("noisy", "late")
        for level in (0.0, 2.0)
        for seed in range(2)
    ]
    references = [
        {"series": name, "level": math.nan, "seed": seed, "accuracy": 0.95} for name in REFERENCES for seed in range(2)
    ]
    return pd.DataFrame(perturbed + references)


def test_panels(rows, tmp_path):
    """One line per series, and one per reference and chance; several series show the lowest projection."""
    with figures.saved(tmp_path / "figure.png", columns=3) as (_, (left, right, one)):
        accuracy_panel(left, rows, 0.1)
        lines = {line.get_label(): line for line in left.lines}
        assert list(lines) == ["noisy", "late", *REFERENCES, "chance"]
        assert lines["late"].get_ydata() == pytest.approx([89.5, 69.5])
        assert [lines[name].get_ydata()[0] for name in ("backprop", "chance")] == pytest.approx([95, 10])

        angle_panel(right, rows)
        lines = {line.get_label(): line for line in right.lines}
        assert lines["noisy"].get_ydata() == pytest.approx([0.5, 60.5])
        assert right.get_ylabel().startswith("angle of updates of input->hidden1\n")
        crosses = [list(line.get_ydata()) for line in right.lines if line.get_marker() == "x"]
        assert crosses == [[5, 7], [5, 7], []]

        angle_panel(one, rows[rows["series"] != "late"])
        lines = {line.get_label(): line for line in one.lines}
        assert lines["hidden1->hidden2"].get_ydata() == pytest.approx([0, 40])
        circles = [list(line.get_ydata()) for line in one.lines if line.get_marker() == "o"]
        assert circles == [[0, 42], []]


@pytest.mark.parametrize("scale", ["linear", "symlog"])
def test_figure(rows, tmp_path, scale):
    draw(tmp_path / "figure.png", rows, xlabel="level", scale=scale)
    assert is_drawn(tmp_path / "figure.png")
