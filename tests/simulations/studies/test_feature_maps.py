"""The gradient emerges in a CNN's maps from the top down."""

from outcomes import is_drawn
from PIL import Image

from actrelax.simulations.studies import feature_maps


def test_the_lower_a_population_the_later_its_maps_are_the_gradients(tmp_path):
    measured = feature_maps.main(tmp_path, epochs=1, frames=3)
    assert measured["conv1"] > measured["conv2"] > measured["hidden1"] > measured["hidden2"] > 2
    assert measured["law"] < 1e-12
    assert 1e-4 < measured["error"] < 0.05
    assert measured["rise"] > 1.1  # initial activities from the populations above add up before they decay
    with Image.open(tmp_path / "feature_maps.gif") as moving:
        assert moving.n_frames == 3
    assert is_drawn(tmp_path / "feature_maps.png")
