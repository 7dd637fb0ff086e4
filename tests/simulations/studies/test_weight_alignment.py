"""Learned feedback aligns as W outgrows the initial difference, which decay removes."""

import pytest
from outcomes import is_drawn

from actrelax.simulations.studies import weight_alignment


def test_learned_feedback_aligns_and_its_offset_follows_the_law(tmp_path):
    epochs = 3
    rows = weight_alignment.main(tmp_path, epochs=epochs, seeds=1)
    before, after = (rows[rows["epoch"] == epoch].set_index("condition") for epoch in (0, epochs))
    angles, updates = after["angle"], after["update"]
    assert angles["Kolen-Pollack"] < angles["learned, weight decay"] < angles["learned"] < angles["random"] - 5 < 80
    assert before["angle"].min() > 80
    for label in weight_alignment.RULES:
        if label != "random":
            assert after["distance"][label] == pytest.approx(weight_alignment.law(label, epochs), rel=1e-9)
    assert after["distance"]["random"] != pytest.approx(1, abs=1e-4)
    assert updates["Kolen-Pollack"] < updates["learned"] < updates["random"] - 5
    assert is_drawn(tmp_path / "weight_alignment.png")
