"""Without f' units saturate; remaining initial activities weaken drives."""

import pytest
import torch
import torch.nn.functional as F
from outcomes import is_drawn

from actrelax import build, relax_backward
from actrelax.simulations.data import digits
from actrelax.simulations.studies import saturation
from actrelax.simulations.suites.suite import varied

EPOCHS = 10
DIGITS = varied(
    saturation.BASE,
    {
        "dataset": "digits",
        "normalise": "none",
        "network": "digits-cnn",
        "conv_factor": 1.0,
        "lr": 0.001,
        "epochs": EPOCHS,
    },
)


def test_units_saturate_without_derivatives(tmp_path):
    rows = saturation.main(tmp_path, DIGITS, seeds=1)
    first, last = (rows[rows["epoch"] == epoch].set_index("condition") for epoch in (0, EPOCHS))
    assert list(last.index) == list(saturation.CONDITIONS)
    assert first["slope"].nunique() == 1  # all begin with the same weights
    assert last["slope"]["no derivatives in convolutions, converged"] < last["slope"]["AR, converged"] - 0.01
    assert (last["accuracy"] > first["accuracy"] + 0.3).all()
    assert (rows["brake"] < -0.3).all()
    assert is_drawn(tmp_path / "saturation.png")


def test_slope_and_brake_by_other_means():
    network = build("digits-cnn", activation="tanh", generator=torch.Generator().manual_seed(0))
    x, y = digits().test.images[:20], digits().test.labels[:20]
    conv = next(iter(network.projections.values()))
    activity = network.feedforward(x).activities["conv1"]
    assert saturation.mean_slope(network, x, "conv1") == pytest.approx(
        float((1 - activity.detach() ** 2).mean()), rel=1e-5
    )

    gradients = []
    for how in ({"steps": 100, "eta": 0.1}, {"integrator": "equilibrium"}):
        network.zero_grad()
        relax_backward(network, x, y, loss="sum-of-squares", **how)
        gradients.append(conv.weight.grad.clone())
    # drives are linear in the weights: their change is minus the convolution by the remaining update
    with torch.no_grad():
        change = -F.conv2d(x, gradients[0] - gradients[1], padding="same")
        drive, where = F.max_pool2d(F.conv2d(x, conv.weight, conv.bias, padding="same"), 2, return_indices=True)
        change = change.flatten(2).gather(2, where.flatten(2))
    expected = float(F.cosine_similarity(change.flatten(), drive.flatten(), dim=0))
    network.zero_grad()
    assert saturation.brake(network, x, y, "sum-of-squares", "ar") == pytest.approx(expected, abs=1e-3)
    assert conv.weight.grad is None  # the network itself is unchanged
