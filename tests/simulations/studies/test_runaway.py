"""Without f' drives grow, and a decay keeps them small."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from outcomes import is_drawn

from actrelax import build
from actrelax.simulations.data import digits
from actrelax.simulations.studies import runaway
from actrelax.simulations.suites.suite import varied

ON_DIGITS = {"dataset": "digits", "normalise": "none", "network": "digits-cnn", "conv_factor": 1.0, "lr": 0.001}
DIGITS = varied(runaway.BASE, {**ON_DIGITS, "epochs": 4})


def test_drives_grow_without_derivatives_and_not_with_a_decay(tmp_path, monkeypatch):
    monkeypatch.setattr(runaway, "ACTIVATIONS", ("tanh",))
    monkeypatch.setattr(runaway, "DECAYS", (0.03,))
    rows = runaway.main(tmp_path, DIGITS, seeds=1)
    first, last = (rows[rows["epoch"] == epoch].set_index("condition") for epoch in (0, 4))
    assert first["drive"].nunique() == 1  # all begin with the same weights
    ar, control, dropped, of_activities, of_drives = last["drive"]
    assert of_drives < of_activities < 0.9 * ar < 0.9 * dropped
    assert control < 0.9 * ar
    assert (last["accuracy"] > first["accuracy"] + 0.3).all()
    assert is_drawn(tmp_path / "runaway.png")


@pytest.mark.parametrize(
    ("of", "decaying", "reduction", "share"),
    [("activities", torch.tanh, "sum", 1), ("activities", torch.tanh, "mean", 20), ("drives", torch.clone, "sum", 1)],
)
def test_decay_by_autograd(of, decaying, reduction, share):
    """It adds the gradient of rate * sum(decaying * drive), with `decaying` held, in convolutions alone."""
    network = build("digits-cnn", activation="tanh", generator=torch.Generator().manual_seed(0))
    x = digits().test.images[:20]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    experiment = varied(DIGITS, {"reduction": reduction, "conv_factor": 2.0})
    runaway.Decay(0.01, of, experiment).on_gradient(SimpleNamespace(network=network), x, None, None)
    conv1, conv2, *others = network.projections.values()
    below = torch.tanh(F.max_pool2d(F.conv2d(x, conv1.weight, conv1.bias, padding="same"), 2)).detach()
    for projection, before in ((conv1, x), (conv2, below)):
        weight = projection.weight
        drive = F.max_pool2d(F.conv2d(before, weight, projection.bias, padding="same"), 2)
        (expected,) = torch.autograd.grad((0.01 * 2 / share * decaying(drive).detach() * drive).sum(), weight)
        assert torch.allclose(weight.grad, expected, rtol=1e-4, atol=1e-6)
        assert expected.norm() > 1e-3
    assert all(not p.weight.grad.any() for p in others)
