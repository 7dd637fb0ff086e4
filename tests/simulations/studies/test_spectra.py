"""The studies of spectra and unfrozen relaxations confirm their claims, with small settings."""

import pytest
from outcomes import is_drawn

from actrelax.simulations.studies import spectrum, unfrozen_phases


def test_solvers_find_what_rounding_makes_of_the_spectrum(tmp_path):
    measured = spectrum.main(tmp_path, depths=(5, 12), seeds=1, deep="mlp-8x8", epochs=1, images=1, points=4)
    assert set(measured["LAPACK, shuffled units"].values()) == {0.0}
    for solver in ("LAPACK, other basis", "ARPACK"):
        for depth, predicted in measured["predicted"].items():
            assert 0.2 * predicted < measured[solver][depth] < 1.5 * predicted
    assert measured["predicted"]["5"] < 1e-3 < 0.02 < measured["predicted"]["12"]
    for label in ("random", "trained"):
        row = measured[label]
        assert row["omega"] > 0
        assert 1 < row["kreiss"] <= row["growth"] < row["bound"]
    assert measured["digits-cnn"]["omega"] < 0 < measured["digits-skip"]["omega"]
    assert measured["digits-cnn"]["growth"] == pytest.approx(1, abs=1e-9)
    assert measured["digits-skip"]["growth"] > 1.05
    assert is_drawn(tmp_path / "spectrum.png")


@pytest.mark.parametrize("depth", [3])
def test_smooth_relaxations_settle_away_from_the_gradient_and_relu_chatters(tmp_path, depth):
    measured = unfrozen_phases.main(
        tmp_path,
        activations=("tanh", "relu"),
        depths=(depth,),
        gains=(0.5, 3.0),
        networks=1,
        samples=2,
        starts=16,
        duration=40.0,
    )
    weak, strong = (measured["tanh"][str(depth)][gain] for gain in (0.5, 3.0))
    assert weak["rests"] == strong["rests"] == weak["stepped"] == 1
    assert strong["cosine"] < 0.8 < 0.99 < weak["cosine"]
    for gain in (0.5, 3.0):
        assert measured["relu"][str(depth)][gain]["stepped"] == 0
        assert measured["relu"][str(depth)][gain]["rests"] == 1  # at rest, or chattering by the step size
    assert measured["smooth"]["rests"] == measured["smooth"]["relaxations"] == 4
    assert measured["own feedback"][0.5] == 1
    assert measured["places"]["tanh"][0.5] == 1 < measured["places"]["tanh"][3.0]
    assert is_drawn(tmp_path / "unfrozen_phases.png")
