"""Stimuli that don't match the weights are refused in one sentence."""

import pytest
import torch
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward
from actrelax.models.network import Network


def made():
    return Network.from_sequential(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (4,))


@pytest.mark.parametrize("change", [lambda p: p.float(), lambda p: p.to("meta")], ids=["dtype", "device"])
def test_half_of_a_network_elsewhere_is_refused(change):
    network = made()
    change(network.projections["hidden1->output"])
    with pytest.raises(ActrelaxError, match=r"^the network's weights.* are torch\.float64 on cpu and torch\.float"):
        network(torch.rand(2, 4))


def test_feedback_weights_stay_with_the_others():
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    network = Network.from_sequential(module, (4,))
    network.add_feedback("random-feedback", torch.Generator().manual_seed(0))
    module.float()
    with pytest.raises(ActrelaxError, match=r"feedback weights included, are torch\.float32 on cpu and torch"):
        relax_backward(network, torch.rand(2, 4).float(), torch.tensor([0, 1]), assumptions="random-feedback")


def test_stimuli_of_another_kind_are_refused():
    with pytest.raises(ActrelaxError, match=r"are torch\.float64 on cpu, got stimuli of torch\.float32 on cpu: bring"):
        made()(torch.rand(2, 4).float())


def test_a_captured_network_takes_at_least_one_sample():
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    network, nothing = Network.from_module(module, torch.rand(2, 4)), torch.rand(0, 4)
    with pytest.raises(ActrelaxError, match=r"^a batch needs at least one sample, got stimuli of shape \(0, 4\)"):
        relax_backward(network, nothing, torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ActrelaxError, match=r"^a batch needs at least one sample, got stimuli of shape \(0, 4\)"):
        Network.from_module(module, nothing)
