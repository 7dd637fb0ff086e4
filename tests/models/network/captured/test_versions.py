"""What must not change in place between a forward pass and its relaxation."""

import pytest
import torch
from torch import nn

from actrelax import ActivationRelaxation, ActrelaxError, Network, Steps
from actrelax.models.network.captured.versions import Versions

STEP = r"has changed in place since the forward pass: run backward before optimiser.step\(\)"
CLONE = "has changed in place since the forward pass: clone it before writing to it"


class Frozen(nn.Module):
    """A linear population that a frozen weight reads; a parameter is added to what follows."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.shift = nn.Parameter(torch.zeros(6))
        self.b.weight.requires_grad_(False)

    def forward(self, x):
        self.seen = self.a(x)
        return self.c(torch.tanh(self.b(self.seen) + self.shift))


def changed(what, assumptions, **fields):
    """Change one tensor between the two phases, and run backward."""
    torch.manual_seed(0)
    module, x = Frozen(), torch.randn(5, 4)
    network = Network.from_module(module, x)
    if assumptions.endswith("-feedback"):
        network.add_feedback(assumptions, 0)
    loss = ActivationRelaxation(network, assumptions=assumptions, **fields)(x).square().sum()
    tensors = {
        **dict(network.named_parameters()), **dict(network.named_buffers()), "stimuli": x, "activity": module.seen
    }  # fmt: skip
    with torch.no_grad():
        tensors[what].add_(1)
    loss.backward()


@pytest.mark.parametrize("preset", ["learned-feedback", "random-feedback", "sign-feedback"])
@pytest.mark.parametrize("steps", [Steps.until(1e-6), Steps(20, eta=0.3)])
def test_feedback_weights(preset, steps):
    for psi in ("b.feedback", "c.feedback"):
        with pytest.raises(ActrelaxError, match="^a feedback weight " + STEP):
            changed(psi, preset, steps=steps)


def test_initial_activities():
    with pytest.raises(ActrelaxError, match="^the activity of population 'a' " + CLONE):
        changed("activity", "ar", steps=Steps(20, eta=0.3))
    changed("activity", "ar", steps=Steps(20, eta=0.3), start="zero")  # nothing reads it: its weight is frozen


class Normed(nn.Module):
    """A function whose derivative reads its result, a frozen weight that reads it, and a parameter in a piece."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.LayerNorm(6)
        self.b.weight.requires_grad_(False)

    def forward(self, x):
        self.seen = torch.tanh(self.a(x))
        return self.c(self.norm(self.b(self.seen)))


@pytest.mark.parametrize("fields", [{}, {"steps": Steps(20, eta=0.3), "start": "zero"}])
def test_what_derivatives_read(fields):
    for change, sentence in (
        (lambda module: module.seen, "^a tensor of population 'a' " + CLONE),
        (lambda module: module.norm.weight, "^a parameter " + STEP),
    ):
        torch.manual_seed(0)
        module, x = Normed(), torch.randn(5, 4)
        loss = ActivationRelaxation(module, example=x, **fields)(x).square().sum()
        with torch.no_grad():
            change(module).add_(1)
        with pytest.raises(ActrelaxError, match=sentence):
            loss.backward()


CURRENT = {
    "b.weight": "^a weight " + STEP,
    "b.bias": "^a bias " + STEP,
    "shift": "^a parameter " + STEP,
    "activity": "^the activity of population 'a' " + CLONE,
}


@pytest.mark.parametrize("what", CURRENT)
def test_what_current_gains_read(what):
    with pytest.raises(ActrelaxError, match=CURRENT[what]):
        changed(what, "unfrozen-relaxation", steps=Steps(20, eta=0.3))
    if what.endswith("bias"):
        changed(what, "ar", steps=Steps(20, eta=0.3))  # frozen gains don't read a bias


def test_stimuli_that_current_gains_read():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(5, 4)
    model = ActivationRelaxation(module, example=x, assumptions="unfrozen", steps=Steps(20, eta=0.3))
    loss = model(x).sum()
    x.add_(1)
    with pytest.raises(ActrelaxError, match="^a tensor that a weight reads " + CLONE):
        loss.backward()


def test_a_pass_keeps_no_activity():
    weight, activity = torch.zeros(2), torch.zeros(2)
    versions = Versions([weight], {"a": activity})
    versions.refuse_changed_activity("a", activity)
    versions.refuse_changed_activity("b", activity.add_(1))  # unknown
    with pytest.raises(ActrelaxError, match="population 'a'"):
        versions.refuse_changed_activity("a", activity)
    versions.refuse_changed_weight(torch.zeros(2).add_(1), "a weight")  # unknown
    assert not any(held is activity for held, _ in versions._weights.values())
