"""The training loop: AR and backprop learn alike, and a seed fixes everything."""

from functools import partial

import pytest
import torch

from actrelax.models.architectures import build
from actrelax.models.backprop import backprop_backward
from actrelax.models.learning import relax_backward
from actrelax.simulations.datasets import digits
from actrelax.simulations.training import accuracy, train


@pytest.fixture(autouse=True)
def single_precision(double_precision):
    """As the demo runs."""
    torch.set_default_dtype(torch.float32)


def trained(rule, assumptions="ar", epochs=1, seed=0):
    network = build("digits-cnn", generator=torch.Generator().manual_seed(seed))
    network.add_feedback(assumptions, torch.Generator().manual_seed(seed + 1))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    return network, list(train(network, digits(), rule, optimiser, epochs=epochs, batch_size=64, generator=order))


def test_ar_learns_as_backprop_does_and_simplified_comes_near():
    final = {}
    for name in ("backprop", "ar", "simplified"):
        rule = backprop_backward if name == "backprop" else partial(relax_backward, assumptions=name)
        _, epochs = trained(rule, "ar" if name == "backprop" else name, epochs=4)
        final[name] = epochs[-1].test_accuracy
        assert epochs[0].test_accuracy < 0.3
    assert final["backprop"] > 0.95
    assert abs(final["ar"] - final["backprop"]) < 0.015
    assert final["simplified"] > 0.8


def test_at_equilibrium_ar_trains_exactly_as_backprop():
    rule = partial(relax_backward, integrator="equilibrium")
    ours, theirs = trained(rule)[1], trained(backprop_backward)[1]
    assert [(e.train_accuracy, e.test_accuracy) for e in ours] == [(e.train_accuracy, e.test_accuracy) for e in theirs]
    assert ours[1].train_loss == pytest.approx(theirs[1].train_loss, rel=1e-4)


def test_a_seed_fixes_everything():
    rule = partial(relax_backward, steps=5)
    first, second, other = trained(rule)[0], trained(rule)[0], trained(rule, seed=1)[0]
    for p, q, r in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, r)


def test_images_come_in_the_same_order_whatever_the_rule():
    seen: dict[str, list[torch.Tensor]] = {"a": [], "b": []}

    def watching(name, rule):
        def watched(network, x, y):
            seen[name].append(y)
            return rule(network, x, y)

        return watched

    trained(watching("a", backprop_backward))
    trained(watching("b", partial(relax_backward, steps=1)))
    assert torch.equal(torch.cat(seen["a"]), torch.cat(seen["b"]))
    assert len(torch.cat(seen["a"])) == 1437


def test_accuracy():
    network = build("digits-mlp")
    x = torch.rand(10, 64)
    with torch.no_grad():
        labels = network(x).argmax(1)
    labels[:3] = (labels[:3] + 1) % 10
    assert accuracy(network, x, labels) == 0.7
