"""A module and its network share weights, even after either replaces them."""

import torch
from networks import mlp_case
from torch import nn

from actrelax.models.assumptions import PRESETS
from actrelax.models.learning.wrapped import Wrapped


def layers():
    return nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 4)), nn.ReLU(), nn.Linear(4, 3))


def test_weights_come_in_the_order_of_the_networks_slots():
    module = layers()
    wrapped = Wrapped(module, (6,))
    owned = dict(zip(wrapped.network.slots, wrapped.weights(), strict=True))
    assert owned["input->hidden1", "weight"] is module[0].weight
    assert owned["hidden1->hidden2", "bias"] is module[1][1].bias
    module[3].weight = nn.Parameter(2 * module[3].weight.detach())
    assert (
        dict(zip(wrapped.network.slots, wrapped.weights(), strict=True))["hidden2->output", "weight"]
        is module[3].weight
    )


def test_feedback_weights_belong_to_a_module_of_their_own():
    wrapped = Wrapped(layers(), (6,))
    wrapped.add_feedback(PRESETS["learned-feedback"], torch.Generator().manual_seed(0))
    assert sorted(wrapped.feedback.state_dict()) == ["hidden1->hidden2", "hidden2->output"]
    assert len(wrapped.weights()) == 8
    before = wrapped.weights()
    wrapped.add_feedback(PRESETS["learned-feedback"], None)  # feedback weights exist already
    assert all(x is y for x, y in zip(before, wrapped.weights(), strict=True))


def test_a_network_is_its_own_module():
    network = mlp_case().network
    wrapped = Wrapped(network, None)
    wrapped.add_feedback(PRESETS["random-feedback"], torch.Generator().manual_seed(0))
    assert wrapped.network is network
    assert wrapped.feedback is None
    assert len(wrapped.weights()) == len(network.slots)
