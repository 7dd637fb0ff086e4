"""A network as text and tensors: it is restored equal, or refused if text can't describe it."""

import json

import torch
from hypothesis import given, settings
from networks import convolutional_chains, graph_case, mlp_case
from torch import nn

from actrelax.models.network import Activation, Network, Projection
from actrelax.models.network.description import describe, rebuild


def again(network):
    return rebuild(json.loads(json.dumps(describe(network))), network.state_dict())


def assert_equal(network, x):
    other, state = again(network), torch.get_rng_state()
    assert repr(other) == repr(network)
    assert torch.equal(other(x), network(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_graphs():
    case = graph_case()
    case.network.add_feedback("learned-feedback", torch.Generator().manual_seed(0))
    assert_equal(case.network, case.x)
    learned = {name for name, p in again(case.network).named_parameters() if p.requires_grad}
    assert learned == dict(case.network.named_parameters()).keys()
    assert describe(case.network)["functions"] == []


@settings(max_examples=20, deadline=None)
@given(convolutional_chains())
def test_any_convolutions(case):
    assert_equal(case.network, case.x)


def test_layers_with_all_their_options():
    pools = nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True), nn.AvgPool2d(2, 1, 1, True, False, 5)
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *pools, nn.LeakyReLU(0.2), nn.Flatten(), nn.LazyLinear(3))
    x = torch.rand(2, 1, 9, 9)
    module(x)
    assert_equal(Network.from_sequential(module, (1, 9, 9)), x)


def test_a_network_with_cycles():
    down = [nn.Conv2d(3, 2, 3, padding=1), nn.Upsample(scale_factor=(2, 3))]
    projections = [
        Projection("input", "a", nn.Conv2d(1, 2, 3, padding=1)),
        Projection("a", "b", nn.AvgPool2d((2, 3)), nn.Conv2d(2, 3, 1)),
        Projection("b", "a", *down),
        Projection("b", "output", nn.Flatten(), nn.Linear(24, 4)),
    ]
    network = Network((1, 8, 6), {"a": "tanh", "b": "tanh", "output": "identity"}, projections)
    assert repr(again(network)) == repr(network)
    assert "Conv2d(3, 2, 3, padding=1), Upsample((2, 3))" in repr(network)
    x = torch.randn(2, 3, 4, 2)
    assert torch.equal(again(network).projections["b->a"].find(x)[0], nn.Sequential(*down)(x))


def test_functions_are_named():
    network = mlp_case(activation=Activation("tanh", lambda a: torch.tanh(a), lambda a: 1 - torch.tanh(a) ** 2)).network
    assert describe(network)["functions"][0] == "activation 'tanh' of population 'hidden1'"


def test_a_captured_module_is_named():
    network = Network.from_module(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)), torch.zeros(2, 4))
    found = json.loads(json.dumps(describe(network)))
    assert found["functions"] == ["the module Sequential"]
    assert found["input_shape"] == [4]
