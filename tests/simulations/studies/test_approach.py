"""Convergence to the gradient: each study confirms docs/findings.md, with small settings."""

import pytest
from outcomes import is_drawn

from actrelax.simulations.studies import contamination, how_long, laws, transients


def test_every_engine_and_integrator_follows_its_law(tmp_path):
    found = laws.main(tmp_path, steps=12)
    engines = {title.replace(":", " ").split()[0] for title in found}
    assert engines == {"torch", "scipy", "brian2"}
    assert len(found) > 20
    for title, difference in found.items():
        assert difference < (1e-5 if title.startswith("scipy:") else 1e-13), title
    assert is_drawn(tmp_path / "laws.png")


def test_steps_that_are_predicted_are_those_that_are_needed(tmp_path, capsys):
    times, costs = how_long.main(tmp_path, depths=(2, 8), seeds=2)
    assert "measured otherwise than predicted: 0 of 16" in capsys.readouterr().out
    for by_depth in times.values():
        assert min(by_depth[8]) > 2 * max(by_depth[2])
    assert costs["sequential"][1.0] == 1
    assert costs["euler"][1.0] == 9  # hops, at depth 10
    assert costs["rk4"][0.1] > 3.9 * costs["euler"][0.1]
    assert is_drawn(tmp_path / "how_long.png")


def test_errors_rise_in_a_trained_network(tmp_path):
    tanh, measured = transients.main(tmp_path, epochs=4).values()
    assert tanh["hidden1"]["rise"] < 1.5
    assert measured["hidden1"]["rise"] > 2
    assert measured["hidden7"]["rise"] == 1
    for values in measured.values():
        assert 1 <= values["rise"] <= values["bound"] * (1 + 1e-9)
    assert is_drawn(tmp_path / "transients.png")


def test_more_is_left_the_more_has_been_learned(tmp_path):
    rows = contamination.main(tmp_path, epochs=5, seeds=1)
    before, *_, after = (row for _, row in rows.iterrows())
    for name in ("conv1", "conv2", "hidden1"):
        assert after[f"left {name}"] > 2 * before[f"left {name}"]
    assert after["left conv1"] > 10 * after["left hidden1"]
    assert after["angle input->conv1"] > 2 * rows["angle input->conv1"][1]
    assert rows.filter(like="zero ").to_numpy().max() == pytest.approx(0, abs=0.1)
    assert is_drawn(tmp_path / "contamination.png")
