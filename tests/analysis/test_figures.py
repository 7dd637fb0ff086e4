"""Figures show the given data, with labelled axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from outcomes import is_drawn

from actrelax.analysis import figures
from actrelax.analysis.statistics import interval
from actrelax.models.errors import ActrelaxError


def test_learning_curves(tmp_path):
    rows = [{"epoch": 0, "test_accuracy": 0.1}, {"epoch": 1, "test_accuracy": 0.8}]
    with figures.saved(tmp_path / "new" / "figure.png") as (_, (ax,)):
        assert figures.learning_curves(ax, {"one": rows, "two": rows[::-1]}, "test_accuracy") is ax
        assert ax.lines[0].get_ydata().tolist() == [10, 80]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "test accuracy (%)")
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
        assert len({line.get_color() for line in ax.lines}) == len({line.get_linestyle() for line in ax.lines}) == 2
        # a later line is not cut off
        figures.learning_curves(ax, {"three": [{"epoch": 0, "test_accuracy": 0.01}]}, "test_accuracy")
        low, high = ax.get_ylim()
        assert low < 1 < 80 < high
    assert (tmp_path / "new" / "figure.png").stat().st_size > 5000


def test_a_legend_below_and_another_format(tmp_path):
    with figures.saved(tmp_path / "figure.png", legend="below", also=[".pdf"]) as (figure, (ax,)):
        for i in range(5):
            ax.plot([0, i], label=f"line {i}")
        height = figure.get_figheight()
    assert figure.get_figheight() == pytest.approx(height + 3 * 0.2)  # two columns of five labels
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"line {i}" for i in range(5)]
    assert legend.get_window_extent().y1 < ax.get_window_extent().y0
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_text_for_a_path_and_a_figure_for_a_notebook(tmp_path):
    """IPython asks for `_repr_png_`; the file and the notebook show the same."""
    path = str(tmp_path / "figure.png")
    with figures.saved(path, also=[".svg"]) as (figure, (ax,)):
        ax.plot([0, 1])
    assert figure._repr_png_() == (tmp_path / "figure.png").read_bytes()
    assert (tmp_path / "figure.svg").exists()


def test_the_unit_of_time_is_on_the_axes(tmp_path):
    with figures.saved(tmp_path / "figure.png", columns=2) as (_, (left, right)):
        figures.heat_map(left, [0.0, 1.0], {"hidden1": np.ones((2, 3))}, unit="ms")
        figures.approach(right, [0.0, 1.0], {"hidden1": [1.0, 0.5]})
        assert (left.get_xlabel(), right.get_xlabel()) == ("time (ms)", "time (the unit of tau)")


@pytest.mark.parametrize(
    ("name", "also", "suffix"),
    [
        ("figure.png", [".pdf", ".xyz"], ".xyz"),
        ("figure.png", ["pdf"], "pdf"),
        ("figure.xyz", [], ".xyz"),
        ("fig", [], ""),
    ],
)
def test_a_suffix_that_is_no_format_is_refused_before_anything_is_drawn_or_written(tmp_path, name, also, suffix):
    with (
        pytest.raises(ActrelaxError, match=rf"^unknown suffix of a figure '{suffix}'; known: \..*\.pdf, .*\.png, "),
        figures.saved(tmp_path / name, also=also),
    ):
        pytest.fail("something is drawn")
    assert not list(tmp_path.iterdir())


def test_the_case_of_a_suffix_does_not_matter(tmp_path):
    with figures.saved(tmp_path / "figure.PNG"):
        pass
    assert is_drawn(tmp_path / "figure.PNG")


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda ax: figures.heat_map(ax, [0, 1], {}), "activities must have at least one population, got none."),
        (lambda ax: figures.approach(ax, [0, 1], {}), "errors must have at least one population, got none."),
        (lambda ax: figures.approach(ax, [], {"a": []}), "errors need at least one time, got none."),
        (
            lambda ax: figures.heat_map(ax, [0, 1, 2], {"a": np.ones((2, 5))}),
            "activities of 'a' must have 3 entries, one per time, got 2.",
        ),
        (
            lambda ax: figures.heat_map(ax, [0, 1], {"a": np.ones(2)}),
            "activities of 'a' must have shape (2, units), got (2,).",
        ),
        (
            lambda ax: figures.heat_map(ax, [0, 1], {"a": np.ones((2, 5))}, most=0),
            "most must be a whole number, 1 or more, got 0.",
        ),
        (
            lambda ax: figures.approach(ax, [0, 1], {"a": [1.0]}),
            "errors of 'a' must have 2 entries, one per time, got 1.",
        ),
        (
            lambda ax: figures.approach(ax, [0, 1], {"a": [1.0, 0.1]}, ([0], {"a": [1.0, 0.1]})),
            "predictions of 'a' must have 1 entries, one per time, got 2.",
        ),
        (
            lambda ax: figures.approach(ax, [0, 1], {"a": [1.0, 0.1]}, ([0], {})),
            "predicted must have all populations of errors, got none for a.",
        ),
        (
            lambda ax: figures.costs(ax, {"mlp": ([1, 2], [1.0])}, "steps"),
            "ratios of 'mlp' must have 2 entries, one per position, got 1.",
        ),
        (
            lambda ax: figures.difference_table(ax, [[1.0, 2.0]], [["a"]], ["row"], ["one", "two"]),
            "texts must have one row per name in rows and one entry per name in columns, at least one of each, 1 x 2, "
            "got rows of length [1].",
        ),
        (
            lambda ax: figures.difference_table(ax, [], [], [], []),
            "values must have one row per name in rows and one entry per name in columns, at least one of each, 0 x 0, "
            "got rows of length [].",
        ),
    ],
)
def test_data_that_no_figure_shows(draw, sentence):
    with pytest.raises(ActrelaxError) as refused:
        draw(Figure().subplots())
    assert str(refused.value) == sentence


def test_unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ActrelaxError, match=r"^can't write to "), figures.saved(tmp_path / "file" / "figure.png"):
        pass


def test_a_table_of_differences(tmp_path):
    values, texts = [[-30, 0.1], [float("nan"), 30]], [["lost", "kept"], ["", "won"]]
    with figures.saved(tmp_path / "figure.png") as (_, (ax,)):
        assert figures.difference_table(ax, values, texts, ["one", "two"], ["A", "B"]) is ax
        shown = {text.get_position(): (text.get_text(), text.get_color()) for text in ax.texts}
        assert shown == {
            (0, 0): ("lost", "white"),
            (1, 0): ("kept", "black"),
            (0, 1): ("", "black"),
            (1, 1): ("won", "white"),
        }
        assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["A", "B"]
        (image,) = ax.images
        lost, kept, none, won = image.cmap(image.norm(image.get_array())).reshape(4, 4)
        assert none[3] == 0  # nothing is drawn
        assert kept[:3].min() > 0.9
        assert lost[0] > lost[2]  # orange
        assert won[2] > won[0]  # violet


def test_approach(tmp_path):
    times = [0.0, 0.5, 1.0]
    errors = {"hidden1": [1.0, 0.5, 0.25], "hidden2": [1.0, 0.1, 0.01]}
    law = [0.0, 1.0], {"hidden1": [1.0, 0.25], "hidden2": [1.0, 0.01]}
    with figures.saved(tmp_path / "figure.png", columns=2) as (_, (left, right)):
        assert figures.approach(left, times, errors, law) is left
        assert figures.approach(right, times, errors) is right
        lines = {line.get_label(): line for line in left.lines}
        assert lines["hidden2"].get_ydata().tolist() == errors["hidden2"]
        assert left.get_yscale() == "log"
        circles = [line for line in left.lines if line.get_marker() == "o" and len(line.get_xdata())]
        assert [list(line.get_ydata()) for line in circles] == list(law[1].values())
        assert [line.get_color() for line in circles] == [lines[name].get_color() for name in errors]
        assert [text.get_text() for text in left.get_legend().get_texts()] == ["hidden1", "hidden2", "predicted"]
        assert [text.get_text() for text in right.get_legend().get_texts()] == ["hidden1", "hidden2"]
        assert left.get_xlim() == (0, 1)


def test_approach_of_many_populations(tmp_path):
    errors = {f"hidden{i}": [1.0, 0.5] for i in range(1, 30)}
    with figures.saved(tmp_path / "figure.png") as (_, (ax,)):
        figures.approach(ax, [0.0, 1.0], errors)
        assert [line.get_label() for line in ax.lines] == [f"hidden{i}" for i in (1, 6, 11, 16, 21, 26)]


def test_heat_map(tmp_path):
    """Rows are units sorted by initial activity, relative to the population's maximum, with gaps between."""
    activities = {"low": np.array([[2.0, -4.0, 1.0], [1.0, 2.0, 0.0]]), "high": np.array([[0.0, 10.0], [5.0, 0.0]])}
    with figures.saved(tmp_path / "figure.png") as (figure, (ax,)):
        assert figures.heat_map(ax, [0.0, 1.0], activities) is ax
        (image,) = ax.collections
        gap = [[np.nan, np.nan]] * 3
        expected = [[-1.0, 0.5], [0.25, 0.0], [0.5, 0.25], *gap, [0.0, 0.5], [1.0, 0.0]]
        assert np.array_equal(image.get_array().filled(np.nan), expected, equal_nan=True)
        assert image.get_coordinates()[0, :, 0].tolist() == [-0.5, 0.5, 1.5]
        assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 1.5), (0, 8))  # from the bottom up
        assert [text.get_text() for text in ax.get_yticklabels()] == ["low", "high"]
        assert ax.get_yticks().tolist() == [1.5, 7.0]
        assert len(figure.axes) == 2  # with its bar
        figures.heat_map(ax, [0.0], {"silent": np.zeros((1, 100))}, most=10)
        assert ax.collections[1].get_array().shape == (10, 1)
        uneven = figures.heat_map(ax, [0.0, 1.0, 1.5, 2.0], {"hidden1": np.ones((4, 3))}).collections[2]
        assert uneven.get_coordinates()[0, :, 0].tolist() == [-0.5, 0.5, 1.25, 1.75, 2.25]
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_costs(tmp_path):
    lines = {"mlp, closed-form": ([10, 100], [1.1, 1.2]), "mlp, stepped": ([10, 100], [1.5, 9.0])}
    with figures.saved(tmp_path / "figure.png", columns=2) as (_, (left, right)):
        assert figures.costs(left, lines, "relaxation steps") is left
        assert (left.get_xscale(), left.get_yscale(), left.get_xlabel()) == ("log", "log", "relaxation steps")
        assert list(left.get_xticks()) == [10, 100]
        drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in left.lines[:-1]}
        assert drawn == lines
        assert (left.lines[-1].get_label(), list(left.lines[-1].get_ydata())) == ("backprop", [1, 1])
        # many lines remain distinguishable
        figures.costs(right, {f"line {i}": ([1], [2]) for i in range(20)}, "weight layers")
        looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in right.lines}
        assert len(looks) == 21
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_a_band_is_the_mean_and_its_interval(tmp_path):
    values = {0: [0.2, 0.4], 1: [0.5, 0.7]}
    with figures.saved(tmp_path / "figure.png", columns=3, legend=True) as (_, (left, middle, right)):
        assert figures.band(left, "one", values, number=0) is left
        assert left.lines[0].get_ydata() == pytest.approx([0.3, 0.6])
        (band,) = left.collections
        corners = band.get_paths()[0].vertices
        assert corners[corners[:, 0] == 0, 1].min() == pytest.approx(interval([0.2, 0.4])[0])
        assert corners[corners[:, 0] == 1, 1].max() == pytest.approx(interval([0.5, 0.7])[1])
        figures.band(middle, "one", values, number=1, percent=True)
        assert middle.lines[0].get_ydata() == pytest.approx([30, 60])
        assert middle.collections[0].get_paths()[0].vertices[:, 1].min() >= 0
        # means of logarithms
        figures.band(right, "one", {0: [1e-6, 1e-2], 1: [1e-8, 1e-8]}, number=8, log=True)
        assert right.get_yscale() == "log"
        assert right.lines[0].get_ydata() == pytest.approx([1e-4, 1e-8])
        assert right.collections[0].get_paths()[0].vertices[:, 1].min() > 0
        styles = [(ax.lines[0].get_color(), ax.lines[0].get_linestyle()) for ax in (left, middle, right)]
        assert len(set(styles)) == 3


def test_estimates_with_intervals_and_crosses(tmp_path):
    with figures.saved(tmp_path / "estimates.png") as (_, (ax,)):
        figures.estimates(ax, "AR", {20.0: (3.0, 1.0, 4.0), 8.0: (2.0, 1.5, 2.5)}, number=0, crossed=[20.0])
        line, dots, crosses = ax.lines
        for drawn in (line, dots):
            assert list(drawn.get_xdata()) == [8, 20]
            assert list(drawn.get_ydata()) == [2, 3]
        assert (list(crosses.get_xdata()), list(crosses.get_ydata())) == ([20], [3])
        assert [segment.tolist() for segment in ax.collections[0].get_segments()] == [
            [[8, 1.5], [8, 2.5]],
            [[20, 1], [20, 4]],
        ]
        assert ax.get_legend_handles_labels()[1] == ["AR"]


def test_sensitivity(tmp_path):
    accuracies = {"one": {0.1: [50.0, 60.0], 0.01: [30.0]}, "two": {0.1: [80.0], 1.0: [10.0]}}
    with figures.saved(tmp_path / "figure.png", legend=True) as (_, (ax,)):
        assert figures.sensitivity(ax, accuracies, "learning rate") is ax
        means = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
        assert list(means["one"].get_xdata()) == [0.01, 0.1]
        assert list(means["one"].get_ydata()) == [30, 55]
        dots = {(x, y) for line in ax.lines if line.get_marker() == "." for x, y in zip(*line.get_data(), strict=True)}
        assert dots == {(0.01, 30), (0.1, 50), (0.1, 60), (0.1, 80), (1, 10)}
        assert ax.get_xscale() == "log"
        assert list(ax.get_xticks()) == [0.01, 0.1, 1]
