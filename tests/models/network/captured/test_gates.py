"""Gates stop the signals of other pieces, and hooks at populations are called once."""

import pytest
import torch
from torch import nn

from actrelax import ActivationRelaxation, activity_gradients
from actrelax.models.network import Network
from actrelax.models.network.captured.edges import edge_of
from actrelax.models.network.captured.gates import Hook, Turn


@pytest.mark.catches("gate left open")
def test_a_gate_lets_the_turn_pass():
    x = torch.ones(3, requires_grad=True)
    middle = x.exp()
    end = middle.tanh()
    turn = Turn([True, True], [edge_of(end), edge_of(middle)])
    for number, passes in ((0, False), (1, True)):
        turn.population = number
        found = torch.autograd.grad(end, x, torch.ones(3), retain_graph=True, allow_unused=True)[0]
        assert (found is not None and bool(found.any())) is False  # the other of the two is always in the way
        found = torch.autograd.grad(middle, x, torch.ones(3), retain_graph=True, allow_unused=True)[0]
        assert (found is not None) == passes


def test_a_hook_waits_for_its_population():
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    hook = Hook(lambda signal: 2 * signal)
    turn = Turn([False, False], [edge_of(y.sin()), edge_of(y)], {edge_of(y): [hook]})
    assert turn.hooked == {1}
    assert hook(torch.ones(1)) is None
    turn.population = 1
    assert float(hook(torch.ones(1))) == 2


class Hooked(nn.Module):
    """Hooks at drives, at populations that are copied, and inside pieces; `calls` counts those of the copied one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 5), nn.Linear(5, 3)])
        self.calls = 0

    def observe(self, signal):
        self.calls += 1

    def forward(self, x):
        x = self.layers[0](x)  # a population that is its own drive
        x.register_hook(lambda signal: -2 * signal)
        y = torch.tanh(self.layers[1](x))
        y.register_hook(self.observe)
        drive = self.layers[2](x + y)
        drive.register_hook(lambda signal: 3 * signal)
        inside = drive.exp()
        inside.register_hook(lambda signal: signal / 2)
        return self.layers[3](torch.sin(inside))


def test_hooks_change_gradients_as_in_autograd():
    torch.manual_seed(0)
    module, x = Hooked(), torch.randn(4, 6)
    output = module(x)
    clamp = torch.randn(output.shape)
    expected = torch.autograd.grad(output, list(module.parameters()), clamp)
    model = ActivationRelaxation(module, example=x)
    for _ in range(2):
        module.zero_grad()
        module.calls = 0
        model(x).backward(clamp)
        assert module.calls == 1
        for p, exact in zip(module.parameters(), expected, strict=True):
            assert torch.allclose(p.grad, exact, rtol=1e-12)


def test_the_whole_graph_calls_hooks_too():
    network, x = Network.from_module(Hooked(), torch.randn(4, 6)), torch.randn(4, 6)
    activity_gradients(network, x, torch.randint(3, (4,)))
    assert network.module.calls == 1
