"""Learned feedback aligns as far as W outgrows what W and psi began with; decay takes that away."""

import pytest
from outcomes import is_drawn

from actrelax.simulations.studies import weight_alignment


def test_learned_feedback_aligns_and_its_offset_follows_the_law(tmp_path):
    epochs = 3
    found = weight_alignment.main(tmp_path, epochs=epochs, seeds=1)
    angles = {label: values["angle"][epochs][0] for label, values in found.items()}
    assert angles["Kolen-Pollack"] < angles["learned, weight decay"] < angles["learned"] < angles["random"] - 5 < 80
    for label, values in found.items():
        assert values["angle"][0][0] > 80
        if label != "random":
            assert values["distance"][epochs][0] == pytest.approx(weight_alignment.law(label, epochs), rel=1e-9)
    assert found["random"]["distance"][epochs][0] != pytest.approx(1, abs=1e-3)
    updates = {label: values["update"][epochs][0] for label, values in found.items()}
    assert updates["Kolen-Pollack"] < updates["learned"] < updates["random"] - 5
    assert is_drawn(tmp_path / "weight_alignment.png")
