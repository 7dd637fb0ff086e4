"""First updates of deep networks, against the law of a chain and the rules' definitions."""

import numpy as np
import pytest
from outcomes import is_drawn

from actrelax.simulations.studies import first_updates


def test_updates_of_the_shallowest_networks(tmp_path):
    """On a chain, what arrives from zero is the gradient times a share that depends on hops, steps and eta alone."""
    rows = first_updates.main(tmp_path, layers=(8,), seeds=1).set_index(["network", "condition"])
    assert rows.xs("AR", level="condition")["error"].max() < 1e-12
    for norm in ("BatchNorm", "GroupNorm"):
        plain, skips = rows.loc[f"plain-8 {norm}"], rows.loc[f"ResNet-8 {norm}"]
        from_zero = plain.loc["AR, 100 steps from zero"]
        assert from_zero["lowest error"] == pytest.approx(1 - first_updates.arrived(8), rel=1e-9)
        assert from_zero["lowest cosine"] == pytest.approx(1, abs=1e-12)
        assert skips.loc["AR, 100 steps from zero", "lowest cosine"] < 1 - 1e-5  # paths differ in length
        assert skips.loc["AR, 100 steps", "error"] > 5 * skips.loc["AR, 100 steps from zero", "error"]
        assert plain.loc["no derivatives", "error"] > 1.5 * skips.loc["no derivatives", "error"]
        assert skips.loc["sign feedback", "cosine"] > 0.1 + skips.loc["random feedback", "cosine"]
        beginning = [skips.loc[rule, "error"] for rule in ("Kolen-Pollack feedback", "random feedback")]
        assert beginning[0] == pytest.approx(beginning[1], rel=1e-12)
    assert ("plain-8 BatchNorm", "constant statistics") in rows.index
    assert ("plain-8 GroupNorm", "constant statistics") not in rows.index
    assert is_drawn(tmp_path / "first_updates.png")


@pytest.mark.parametrize("layers", [8, 20])
def test_what_has_arrived_after_sequential_sweeps(layers):
    """The share is that of the chain with one unit per layer: a power of a small matrix."""
    hops, eta = layers - 1, first_updates.ETA
    rest = np.eye(hops + 1) - np.diag([*[eta] * hops, 0.0])  # the clamp stays
    sweep = np.linalg.inv(np.eye(hops + 1) - np.diag([eta] * hops, 1)) @ rest
    power = np.linalg.matrix_power(sweep, first_updates.STEPS)
    assert first_updates.arrived(layers) == pytest.approx(power[0, -1], rel=1e-9)
