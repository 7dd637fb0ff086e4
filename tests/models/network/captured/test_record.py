"""What is recorded of a module's first pass: numbers in place of tensors, and names."""

import torch
from modules import MODULES
from torch import nn

from actrelax.models.network import Network


def test_a_path_holds_no_tensor():
    case = MODULES["residual"]
    path = Network.from_module(case.make(), case.stimuli()).path
    assert all(not piece.parameters for piece in path.pieces)
    assert all(isinstance(number, int) for own in path.parameters for number in own)


def test_names_are_unique_and_relays_follow_their_source():
    names = Network.from_module(MODULES["shifted"].make(), MODULES["shifted"].stimuli()).path.names
    assert len(set(names)) == len(names)
    assert {"stem'", "stem''"} <= {*names}


def test_a_population_that_parameters_fire_is_named_after_one():
    case = MODULES["learned-query"]
    network = Network.from_module(case.make(), case.stimuli())
    assert "latents" in network.hidden  # it relaxes


def test_a_module_named_output():
    module = nn.Sequential()
    module.add_module("output", nn.Linear(4, 3))
    module.add_module("tanh", nn.Tanh())
    module.add_module("input", nn.Linear(3, 2))
    network = Network.from_module(module, torch.randn(2, 4))
    assert list(network.populations) == ["input", "output#2", "output"]
