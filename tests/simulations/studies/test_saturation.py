"""Without f' units saturate; what an unfinished relaxation leaves over weakens drives."""

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
    found = saturation.main(tmp_path, DIGITS, seeds=1)
    assert list(found) == list(saturation.CONDITIONS)
    slopes = {
        condition: [values["slope"][epoch][0] for epoch in range(EPOCHS + 1)] for condition, values in found.items()
    }
    assert len({of_epochs[0] for of_epochs in slopes.values()}) == 1  # they begin alike
    assert slopes["no derivatives in convolutions, converged"][-1] < slopes["AR, converged"][-1] - 0.01
    for values in found.values():
        assert values["accuracy"][EPOCHS][0] > values["accuracy"][0][0] + 0.3
        assert all(cosine < -0.3 for (cosine,) in values["brake"].values())
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
    # before pooling drives are linear in the weights: the change is the convolution by what is left over, with a minus
    with torch.no_grad():
        change = -F.conv2d(x, gradients[0] - gradients[1], padding="same")
        drive, where = F.max_pool2d(F.conv2d(x, conv.weight, conv.bias, padding="same"), 2, return_indices=True)
        change = change.flatten(2).gather(2, where.flatten(2))
    expected = float(F.cosine_similarity(change.flatten(), drive.flatten(), dim=0))
    network.zero_grad()
    assert saturation.brake(network, x, y, DIGITS) == pytest.approx(expected, abs=1e-3)
    assert conv.weight.grad is None  # the network itself is left as it was
