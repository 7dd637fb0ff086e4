"""Figures show what they are given, with axes that say what it is."""

import pytest

from actrelax.analysis import figures
from actrelax.models.errors import ActrelaxError


def test_learning_curves(tmp_path):
    rows = [{"epoch": 0, "test_accuracy": 0.1}, {"epoch": 1, "test_accuracy": 0.8}]
    with figures.saved(tmp_path / "new" / "figure.png") as (_, (ax,)):
        assert figures.learning_curves(ax, {"one": rows, "two": rows[::-1]}, "test_accuracy") is ax
        assert ax.lines[0].get_ydata().tolist() == [10, 80]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "test accuracy (%)")
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
        assert len({line.get_color() for line in ax.lines}) == len({line.get_linestyle() for line in ax.lines}) == 2
        # a line that comes later is not cut off
        figures.learning_curves(ax, {"three": [{"epoch": 0, "test_accuracy": 0.01}]}, "test_accuracy")
        low, high = ax.get_ylim()
        assert low < 1 < 80 < high
    assert (tmp_path / "new" / "figure.png").stat().st_size > 5000


def test_unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ActrelaxError, match=r"^can't write to "), figures.saved(tmp_path / "file" / "figure.png"):
        pass
