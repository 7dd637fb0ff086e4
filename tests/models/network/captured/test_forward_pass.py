"""One pass: what a population sends, computed once per activity."""

import pytest
import torch
from modules import MODULES

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network


def make(name):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli())
    return network, network.feedforward(case.stimuli(3))


def test_a_piece_is_transposed_once_per_activity(monkeypatch):
    network, passed = make("scaled-dot-product")
    projections = network.incoming["out"]
    assert len(projections) >= 1
    x, calls = torch.randn(passed.activities["out"].shape), []
    kept = type(passed).transposed
    monkeypatch.setattr(type(passed), "transposed", lambda *a, **k: calls.append(1) or kept(*a, **k))
    for _ in range(2):
        for projection in projections:
            passed.sent(projection, x)
    assert len(calls) == 1
    before = passed.sent(projections[0], x).clone()
    x.mul_(2)
    assert torch.allclose(passed.sent(projections[0], x), 2 * before)
    assert len(calls) == 2


def test_leaves_are_the_parameters_that_learn():
    network, passed = make("overwritten")
    learning = {id(p) for p in network.parameters() if p.requires_grad}
    assert {id(p) for p in passed.leaves()} == learning
    assert len(learning) < len(list(network.parameters()))


def test_a_weight_that_changed_is_refused():
    network, passed = make("layer-norm")
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    projection = network.incoming["output"][0]
    with pytest.raises(ActrelaxError, match=r"run backward before optimiser.step\(\)"):
        projection.feedback_signal(torch.ones(3, 3), passed.routes[projection.name], None)
