"""Capturing leaves the module as it was, and says in one sentence what it can't capture."""

import random

import pytest
import torch
from modules import MODULES
from torch import nn
from torch.utils.checkpoint import checkpoint

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, capture


@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if case.refused is None])
def test_capturing_leaves_buffers_and_generators_alone(name):
    case = MODULES[name]
    module = case.make()
    buffers = dict(module.named_buffers())
    before = {key: buffer.clone() for key, buffer in buffers.items()}
    torch.manual_seed(3)
    random.seed(3)
    states = torch.get_rng_state(), random.getstate()
    network = Network.from_module(module, case.stimuli(), output=case.output, paths=case.paths)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    after = dict(module.named_buffers())
    assert all(after[key] is buffer and torch.equal(buffer, before[key]) for key, buffer in buffers.items())
    assert list(network.state_dict()) == list(module.state_dict())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if case.refused is not None])
def test_what_cannot_be_captured_is_refused(name):
    case = MODULES[name]
    with pytest.raises(ActrelaxError, match=case.refused):
        capture(case.make(), case.stimuli())


SENTENCES = {
    "compiled": "is compiled by torch.compile, which can't be captured: give the one before",
    "compiled part": "the module of '0' is compiled by torch.compile",
    "sync": "SyncBatchNorm of '1' can't be captured: use BatchNorm or GroupNorm",
    "reentrant": "activation checkpointing recomputes what was cut out of the graph: call the module without it",
    "dict": "the module returns a dict: say which tensor is the output, such as output=lambda result",
    "not a module": "module must be an nn.Module, got function: put functions into a module",
    "subclass": "works on Marked, a subclass of Tensor, which can't be captured: convert it to a plain Tensor",
    "paths": "unknown paths 'several'; known: one, many",
    "example": "stimuli must be a torch.Tensor, got list",
    "detached": "the output requires no gradient: it must depend on weights, and be neither detached, nor computed",
    "discrete": "the output requires no gradient",
    "no weights": "the output requires no gradient: it must depend on weights",
    "recurrent only": "no gradient reaches a linear layer, a convolution or an embedding from the output (weights of",
}


class Marked(torch.Tensor):
    pass


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(checkpoint(torch.tanh, self.stem(x), use_reentrant=True))


class First(nn.Module):
    def forward(self, several):
        return several[0]


class Returns(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.layer, self.wrong = nn.Linear(4, 3), wrong

    def forward(self, x):
        return self.wrong(self.layer(x))


def function(x):
    return x


REFUSED = {
    "compiled": lambda: torch.compile(nn.Linear(4, 3), backend="eager"),
    "compiled part": lambda: nn.Sequential(torch.compile(nn.Linear(4, 3), backend="eager"), nn.Tanh()),
    "sync": lambda: nn.Sequential(nn.Linear(4, 3), nn.SyncBatchNorm(3)),
    "reentrant": Reentrant,
    "dict": lambda: Returns(lambda x: {"logits": x}),
    "not a module": lambda: function,
    "subclass": lambda: Returns(lambda x: torch.tanh(x.as_subclass(Marked)) + 1),
    "paths": lambda: Returns(torch.tanh),
    "example": lambda: Returns(torch.tanh),
    "detached": lambda: Returns(torch.Tensor.detach),
    "discrete": lambda: Returns(lambda x: x.argmax(1)),
    "no weights": nn.Tanh,
    "recurrent only": lambda: nn.Sequential(nn.LSTM(4, 3), First()),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_refusals_are_one_sentence(case):
    example = [[0.0] * 4] if case == "example" else torch.zeros(2, 4)
    with pytest.raises(ActrelaxError, match=SENTENCES[case].replace("(", r"\(")) as error:
        capture(REFUSED[case](), example, paths="several" if case == "paths" else "one")
    assert "\n" not in str(error.value)


def test_lazy_layers_take_their_shapes_from_the_example():
    network = capture(nn.Sequential(nn.LazyLinear(3), nn.Tanh(), nn.LazyLinear(2)), torch.randn(2, 4))
    assert list(network.populations) == ["input", "0", "output"]
    assert network.populations["0"].shape == (3,)
