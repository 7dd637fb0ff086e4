"""Robustness of learning: each study confirms its claims, with small settings."""

import pandas as pd
import pytest
from outcomes import is_drawn

from actrelax.models.network import build
from actrelax.simulations.studies import (
    angle_and_accuracy,
    coarse_feedback,
    delays_in_learning,
    limited_time,
    noise,
    sparse_feedback,
    time_constants,
)
from actrelax.simulations.studies.perturbation import BASE, feedback_angles, learn
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import load_images
from actrelax.simulations.training.relaxation import Relaxation

LOWEST, HIGHEST = "input->hidden1", "hidden2->hidden3"


def of(rows, projection, kind="angle", series=None):
    """Return level -> angle, mean over seeds."""
    mine = rows[rows["level"].notna() & ((rows["series"] == series) | (series is None))]
    return mine.groupby("level", sort=False)[f"{kind} {projection}"].mean()


def test_noise_turns_updates_as_the_law_says(tmp_path):
    rows = noise.main(tmp_path, levels=(0.0, 0.03, 0.3), seeds=1, epochs=1)
    for projection in (LOWEST, HIGHEST):
        measured, expected = of(rows, projection), of(rows, projection, "predicted")
        assert measured[0.0] + 5 < measured[0.03] < measured[0.3] - 20
        assert list(measured[1:]) == pytest.approx(list(expected[1:]), abs=4)
    assert is_drawn(tmp_path / "noise.png")


def test_a_delay_costs_the_lowest_population_most(tmp_path):
    rows = delays_in_learning.main(tmp_path, levels=(0.0, 4.0), seeds=1, epochs=1)
    measured, expected = of(rows, LOWEST), of(rows, LOWEST, "predicted")
    assert measured[0.0] < 1 < 20 < measured[4.0]
    assert measured[4.0] == pytest.approx(expected[4.0], abs=1e-6)
    # the output is constant, so its delay has no effect
    assert of(rows, HIGHEST)[4.0] == pytest.approx(of(rows, HIGHEST)[0.0], abs=0.01)
    assert is_drawn(tmp_path / "delays_in_learning.png")


def test_a_spread_of_time_constants_only_takes_time(tmp_path):
    rows = time_constants.main(tmp_path, levels=(1.0, 2.0), seeds=2, epochs=1)
    for which in ("neurons", "populations"):
        short, long = (of(rows, LOWEST, series=f"{which}, {duration} tau") for duration in (10, 40))
        assert short[2.0] > short[1.0] + 5
        assert long[2.0] < short[2.0] / 5
    assert is_drawn(tmp_path / "time_constants.png")


def test_time_constants_have_a_median_of_one():
    """Two thirds of ten thousand neurons lie within the factor."""
    wide = build("mlp-2x10000", input_shape=(1,))
    tau = Relaxation(**time_constants.spread(3.0)).time_constants(wide, 0)["hidden1"]
    assert float(tau.median()) == pytest.approx(1, rel=0.05)
    assert float(((tau > 1 / 3) & (tau < 3)).double().mean()) == pytest.approx(0.683, abs=0.015)


def test_time_is_short_from_activities_and_not_from_silence(tmp_path):
    rows = limited_time.main(tmp_path, levels=(20.0, 2.0), seeds=1, epochs=2)
    silence, activities = (of(rows, LOWEST, series=label) for label in limited_time.STARTS)
    assert activities[20.0] < 0.1 < 30 < activities[2.0]
    assert max(silence) < 1e-5
    assert is_drawn(tmp_path / "limited_time.png")


@pytest.mark.parametrize("study", [sparse_feedback, coarse_feedback])
def test_coarser_feedback_turns_more_but_less_than_hop_after_hop(study, tmp_path):
    levels = (1.0, 0.5, 0.1) if study is sparse_feedback else (256, 8, 3)
    rows = study.main(tmp_path, levels=levels, seeds=1, epochs=5)
    for projection in (LOWEST, HIGHEST):
        whole, half, little = of(rows, projection)
        assert whole + 5 < half < little - 10
    # in trained networks three hops rotate the signal little more than one
    assert of(rows, LOWEST).iloc[1] < of(rows, LOWEST, "predicted").iloc[1] - 5
    assert is_drawn(tmp_path / f"{study.__name__.rpartition('.')[2]}.png")


@pytest.mark.parametrize("transform", ["sparse-0.5", "quantised-4"])
def test_weights_that_have_learned_nothing_turn_hop_after_hop(transform):
    """Cosines of hops multiply at the first batch, over eight seeds."""
    data, options = load_images(BASE.images), {"feedback_transform": transform, "epochs": 1}
    rows = [learn(varied(BASE, {**options, "seed": s}), data, feedback_angles, every=1000) for s in range(8)]
    rows = pd.DataFrame(rows)
    for projection in (HIGHEST, "hidden1->hidden2", LOWEST):
        assert rows[f"angle {projection}"].mean() == pytest.approx(rows[f"predicted {projection}"].mean(), abs=4)


def test_studies_are_compared_by_the_angles_at_which_they_learn(tmp_path):
    """The result is the largest angle with good accuracy, among the compared series."""
    tables = {}
    for number, (table, series) in enumerate(angle_and_accuracy.TABLES.values()):
        rows = [
            (series, 0.96, 20.0, 10.0 + number),
            (series, 0.95, 30.0, 20.0 + number),
            (series, 0.94, 80.0, 80.0),
            (series, 0.97, None, None),
            ("another", 1.0, 85.0, 85.0),
        ]
        tables.setdefault(table, []).extend(rows)
    for table, rows in tables.items():
        columns = ["series", "accuracy", f"angle {LOWEST}", f"angle {HIGHEST}"]
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / f"{table}.csv", index=False)
    measured = angle_and_accuracy.main(tmp_path)
    assert list(measured.values()) == [25 + number / 2 for number in range(7)]
    assert is_drawn(tmp_path / "angle_and_accuracy.png")
