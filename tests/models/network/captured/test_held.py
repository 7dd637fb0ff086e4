"""Where a module holds its tensors, noticed when it changes."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from actrelax.models.network import Network
from actrelax.models.network.captured.held import Held


def layers():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))


def test_parameters_are_looked_up():
    module = layers()
    held = Held(module)
    assert {name: id(p) for name, p in held.parameters().items()} == {k: id(p) for k, p in module.named_parameters()}
    module[0].weight = nn.Parameter(torch.zeros(3, 4))
    assert held.is_current
    assert held.parameters()["0.weight"] is module[0].weight
    assert id(module[1].running_mean) in held.constants()


CHANGES = {
    "layer replaced": lambda module: module.__setitem__(1, nn.LayerNorm(3)),
    "layer added": lambda module: module.append(nn.ReLU()),
    "bias removed": lambda module: setattr(module[0], "bias", None),
    "parametrised": lambda module: parametrizations.weight_norm(module[0]),
    "pruned": lambda module: prune.random_unstructured(module[0], "weight", 0.5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed_and_followed(change):
    module, x = layers(), torch.randn(5, 4)
    network = Network.from_module(module, x)
    held = Held(module)
    CHANGES[change](module)
    assert not held.is_current
    assert torch.equal(network.feedforward(x).output, module(x))
    learning = {id(p) for p in network.feedforward(x).leaves()}
    assert learning == {id(p) for p in module.parameters()}
