"""Weighted operations are named after the modules that call them."""

import torch
from modules import MODULES
from torch import nn

from actrelax.models.network import Network


def names(name):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli())
    return {p.name for p in network.projections.values() if p.number is not None}


def test_nested_modules_and_repeated_calls():
    assert names("cell") == {"head", *(f"{m}{n}" for m in ("reads", "recurs") for n in ("", "#2", "#3", "#4", "#5"))}
    assert names("weight-norm") == {"0", "2", "4"}


def test_weights_inside_the_calling_module():
    assert {"attend.out_proj", "attend"} <= names("multihead") | {"attend"}


def test_weights_without_a_module():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(3, 2))

        def forward(self, x):
            return torch.tanh(x @ self.w) @ self.v

    assert list(Network.from_module(Own(), torch.ones(2, 4)).projections) == ["v", "w"]
