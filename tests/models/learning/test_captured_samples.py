"""Samples without a loss gradient: a long relaxation gives autograd's gradient, whether the module mixes samples."""

import pytest
import torch
from torch import nn

from actrelax import ActivationRelaxation, Network, Steps, relax_backward
from actrelax.models.learning.captured_samples import Samples, samples_in

BATCH = 4
TARGETS = torch.tensor([0, -100, 2, 1])  # the second sample is ignored by the loss


class Sequences(nn.Module):
    """A layer whose attention reads (steps, batch, features)."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 10, dropout=0, batch_first=True, norm_first=True)

    def forward(self, x):
        return self.head(self.layer(self.stem(x)).mean(1))


def normalised():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def residual_from_zero():
    """A branch whose last weights are zero, so that no signal passes it at first."""
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    nn.init.zeros_(module[2].weight)
    return module


CASES = {
    "other samples": (normalised, (BATCH, 6)),  # they reach the ignored one by the statistics of the batch
    "as many steps as samples": (Sequences, (BATCH, BATCH, 6)),
    "more steps than samples": (Sequences, (BATCH, BATCH + 1, 6)),
}


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("start", ["feedforward", "zero"])
@pytest.mark.parametrize("case", CASES)
def test_long_relaxations_give_the_gradient_though_the_loss_ignores_a_sample(case, start):
    build, shape = CASES[case]
    torch.manual_seed(0)
    module, x, loss = build(), torch.randn(shape), nn.CrossEntropyLoss()
    model = ActivationRelaxation(module, example=x, steps=Steps(3000, eta=0.1), start=start)
    loss(model(x), TARGETS).backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    loss(module(x), TARGETS).backward()
    for name, p in module.named_parameters():
        assert float((found[name] - p.grad).abs().max()) < 1e-12, name


@pytest.mark.filterwarnings("ignore:after 3 steps")
def test_few_steps_learn_nothing_from_an_ignored_sample():
    torch.manual_seed(0)
    module, x = Sequences(), torch.randn(BATCH, BATCH, 6)
    network, other = Network.from_module(module, x), x.clone()
    other[1] += 1
    found = []
    for stimuli in (x, other):
        module.zero_grad()
        relax_backward(network, stimuli, TARGETS, 3, eta=0.1, loss=nn.CrossEntropyLoss(reduction="none"))
        found.append([p.grad.clone() for p in module.parameters()])
    for before, after in zip(*found, strict=True):
        assert torch.equal(before, after)
        assert bool(before.any())


def test_outputs_may_be_one_number_per_sample():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)), torch.randn(BATCH, 6)
    model = ActivationRelaxation(module, example=x, steps=Steps(3000, eta=0.1))
    (model(x)[1:] ** 2).sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    (module(x)[1:] ** 2).sum().backward()
    for before, p in zip(found, module.parameters(), strict=True):
        assert torch.allclose(before, p.grad, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:after 3 steps")
def test_an_ignored_sample_alone_teaches_nothing():
    torch.manual_seed(0)
    module, x = Sequences(), torch.randn(1, BATCH, 6)
    network = Network.from_module(module, x)
    relax_backward(network, x, TARGETS[1:2], 3, eta=0.1, loss=nn.CrossEntropyLoss(reduction="none"))
    assert not any(bool(p.grad.any()) for p in module.parameters())


def test_the_samples_of_a_sequence_are_found_behind_its_steps():
    torch.manual_seed(0)
    x = torch.randn(BATCH, BATCH, 6)
    network = Network.from_module(Sequences(), x)
    passed = network.feedforward(x)
    found, names = samples_in(passed, torch.ones(BATCH, 3)), passed.path.names
    assert passed.activities["layer.self_attn"].shape == (BATCH * BATCH, 8)
    assert found[names.index("stem")] == found[0] == Samples(0, is_together=True)
    assert found[names.index("stem'")].dimension == 1
    assert found[names.index("layer.self_attn")] == Samples(0, is_together=False)


def test_populations_that_no_signal_reaches_are_asked_again():
    torch.manual_seed(0)
    module, x = residual_from_zero(), torch.randn(BATCH, 6)
    network, clamped = Network.from_module(module, x), torch.ones(BATCH, 3)
    assert list(samples_in(network.feedforward(x), clamped)) == [0]
    nn.init.normal_(module[2].weight)
    assert list(samples_in(network.feedforward(x), clamped)) == [0, 1]
