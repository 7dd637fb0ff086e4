"""Curves of conditions: means over seeds, drawn and described."""

import numpy as np
import pytest

from actrelax.analysis import figures
from actrelax.analysis.reports.curves import over_training, pictures
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State

NAN = float("nan")


def outcome(condition, seed, test, **curves):
    epochs = list(range(len(test)))
    return Outcome(
        "",
        condition,
        seed,
        f"{condition}{seed}",
        State.FINISHED,
        "",
        1.0,
        {"epoch": epochs, "test_accuracy": test, **curves},
    )


OUTCOMES = [
    outcome("backprop", 0, [0.1, 0.5, 0.9]),
    outcome("backprop", 1, [0.1, 0.7, 0.8]),
    outcome("ar", 0, [0.1, 0.25, 0.375], angle=[NAN, 3.0, NAN]),
    outcome("partly", 0, [0.1, 0.2]),
    outcome("partly", 1, [0.1, 0.2], angle=[NAN, 5.0]),
    outcome("begun", 0, [0.1]),
]


def test_lines_are_means_without_the_untrained_network(tmp_path):
    with figures.saved(tmp_path / "figure.png", columns=2) as (_, (left, right)):
        assert over_training(left, OUTCOMES, "test_accuracy", ["backprop", "ar"]) is left
        assert [line.get_label() for line in left.lines] == ["backprop", "ar"]
        assert left.lines[0].get_ydata() == pytest.approx([60, 85])
        assert left.lines[1].get_ydata() == pytest.approx([25, 37.5])
        assert np.array_equal(left.lines[0].get_xdata(), [1, 2])
        assert left.get_ylabel() == "test accuracy (%)"
        # a condition keeps its colour if another has no such curve, and a single epoch is a point
        over_training(right, OUTCOMES, "angle", ["backprop", "ar"])
        (line,) = right.lines
        assert (line.get_color(), line.get_marker()) == (left.lines[1].get_color(), ".")
        assert list(line.get_ydata()) == [3.0]
        over_training(right, OUTCOMES, "angle", ["partly"])
        assert list(right.lines[-1].get_ydata()) == [5.0], "a run without the column was counted"


def test_pictures_say_where_curves_end(tmp_path):
    drawn = pictures(tmp_path, OUTCOMES, "-tanh")
    names = ["angle-tanh.pdf", "angle-tanh.png", "test-accuracy-tanh.pdf", "test-accuracy-tanh.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [picture.png for picture in drawn] == [(tmp_path / name).read_bytes() for name in names[3::-2]]
    assert drawn[0].alt.endswith("At the end: backprop 85; ar 37.5; partly 20.")
    assert (tmp_path / names[0]).read_bytes().startswith(b"%PDF")
