"""Trainings under perturbations as a table and a figure."""

import math

import pytest
from outcomes import is_drawn

from actrelax.analysis import figures
from actrelax.simulations.studies.perturbation_results import (
    Learned,
    accuracies,
    accuracy_panel,
    angle_panel,
    angles,
    draw,
    first_below,
    read,
    series_of,
    write,
)


def rows():
    """Two series of two levels and two seeds, and two references."""
    perturbed = [
        Learned(
            series,
            level,
            seed,
            0.9 - level / 10 - seed / 100,
            {"input->hidden1": 30.0 * level + seed, "hidden1->hidden2": 20.0 * level},
            {"hidden1->hidden2": 21.0 * level} if series == "noisy" else {},
            {"input->hidden1": 5.0 + level},
        )
        for series in ("noisy", "late")
        for level in (0.0, 2.0)
        for seed in range(2)
    ]
    return perturbed + [
        Learned(name, math.nan, seed, 0.95) for name in ("backprop", "output alone") for seed in range(2)
    ]


def test_a_table_is_read_as_it_was_written(tmp_path):
    write(tmp_path / "table.csv", rows())
    found = read(tmp_path / "table.csv")
    assert found[:8] == rows()[:8]
    assert [(row.series, row.accuracy, row.angles) for row in found[8:]] == [
        (row.series, row.accuracy, {}) for row in rows()[8:]
    ]
    assert all(math.isnan(row.level) for row in found[8:])
    assert (tmp_path / "table.csv").read_text().splitlines()[:2] == [
        "series,level,seed,accuracy,angle input->hidden1,angle hidden1->hidden2,predicted hidden1->hidden2,"
        "first input->hidden1",
        "noisy,0.0,0,0.9,0.0,0.0,0.0,5.0",
    ]


def test_values_by_level():
    assert series_of(rows()) == ["noisy", "late"]
    assert accuracies(rows(), "late") == {0.0: [0.9, 0.89], 2.0: [0.7, pytest.approx(0.69)]}
    assert angles(rows(), "noisy", "input->hidden1") == {0.0: [0.0, 1.0], 2.0: [60.0, 61.0]}
    assert angles(rows(), "noisy", "hidden1->hidden2", "predicted") == {0.0: [0.0, 0.0], 2.0: [42.0, 42.0]}
    assert angles(rows(), "late", "hidden1->hidden2", "predicted") == {}
    assert rows()[3].mean_angle == (61 + 40) / 2
    assert math.isnan(rows()[-1].mean_angle)


def test_the_level_from_which_on_accuracies_stay_below():
    """In the order of the levels, whichever way they run; one that is below and then isn't doesn't count."""
    by_share = {1.0: [0.9, 0.9], 0.5: [0.7, 0.8], 0.2: [0.9, 0.8], 0.1: [0.5, 0.9], 0.05: [0.1, 0.2]}
    assert first_below(by_share, 0.8) == 0.1
    assert first_below(by_share, 0.95) == 1.0
    assert first_below(by_share, 0.1) is None


def test_panels(tmp_path):
    """A line a series with its mean, references and chance across; several series show their lowest projection."""
    with figures.saved(tmp_path / "figure.png", columns=3) as (_, (left, right, one)):
        assert accuracy_panel(left, rows(), 0.1) is left
        lines = {line.get_label(): line for line in left.lines}
        assert list(lines) == ["noisy", "late", "backprop", "output alone", "chance"]
        assert lines["late"].get_ydata() == pytest.approx([89.5, 69.5])
        assert [lines[name].get_ydata()[0] for name in ("backprop", "chance")] == pytest.approx([95, 10])

        assert angle_panel(right, rows(), ["predicted", "first"]) is right
        lines = {line.get_label(): line for line in right.lines}
        assert lines["noisy"].get_ydata() == pytest.approx([0.5, 60.5])
        assert right.get_ylabel().startswith("angle of updates of input->hidden1\n")
        crosses = [list(line.get_ydata()) for line in right.lines if line.get_marker() == "x"]
        assert crosses == [[5, 7], [5, 7], []]

        angle_panel(one, [row for row in rows() if row.series != "late"])
        lines = {line.get_label(): line for line in one.lines}
        assert lines["hidden1->hidden2"].get_ydata() == pytest.approx([0, 40])
        circles = [list(line.get_ydata()) for line in one.lines if line.get_marker() == "o"]
        assert circles == [[], [0, 42], []]


@pytest.mark.parametrize("scale", ["linear", "symlog"])
def test_figure(tmp_path, scale):
    draw(tmp_path / "figure.png", rows(), xlabel="level", scale=scale)
    assert is_drawn(tmp_path / "figure.png")
