"""An `nn.Sequential` as a network. Oracle: the sequence itself."""

import pytest
import torch
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward
from actrelax.models.network import Network


def sequences():
    """Return name -> (module, input shape, expected populations)."""
    conv, linear = nn.Conv2d, nn.Linear
    return {
        "mlp": (nn.Sequential(linear(4, 3), nn.Tanh(), linear(3, 2)), (4,), ["input", "hidden1", "output"]),
        "conv-pool-activation": (
            nn.Sequential(conv(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), linear(18, 3)),
            (1, 8, 8),
            ["input", "conv1", "output"],
        ),
        "conv-activation-pool": (
            nn.Sequential(conv(1, 2, 3), nn.Sigmoid(), nn.AvgPool2d(2), conv(2, 3, 2), nn.GELU(), nn.Flatten()),
            (1, 8, 8),
            ["input", "conv1", "conv2", "output"],
        ),
        "decoder": (
            nn.Sequential(conv(2, 3, 1), nn.Tanh(), nn.Upsample(scale_factor=2), conv(3, 1, 3), nn.Upsample(None, 2)),
            (2, 4, 3),
            ["input", "conv1", "output"],
        ),
        "linear-linear": (
            nn.Sequential(linear(4, 3), linear(3, 3), nn.Softplus(), linear(3, 2)),
            (4,),
            ["input", "hidden1", "hidden2", "output"],
        ),
        "nested": (
            nn.Sequential(nn.Sequential(nn.Flatten(), linear(4, 3), nn.LeakyReLU(0.2)), nn.Identity(), linear(3, 2)),
            (1, 2, 2),
            ["input", "hidden1", "output"],
        ),
        "activation first, activation last": (
            nn.Sequential(nn.Tanh(), linear(4, 3), nn.Sigmoid()),
            (4,),
            ["input", "hidden1", "output"],
        ),
    }


@pytest.mark.parametrize("name", sequences())
def test_a_sequential_is_the_network(name):
    module, shape, populations = sequences()[name]
    network = Network.from_sequential(module, shape)
    assert list(network.populations) == populations
    x = torch.randn(3, *shape)
    assert torch.equal(network(x), module(x))
    assert {id(p) for p in network.parameters()} == {id(p) for p in module.parameters()}
    assert len(network.projections) == len(populations) - 1


def test_training_the_network_trains_the_module():
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    network = Network.from_sequential(module, (4,))
    before = module[0].weight.detach().clone()
    relax_backward(network, torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1]))
    torch.optim.SGD(network.parameters(), lr=0.5).step()
    assert not torch.equal(before, module[0].weight)
    assert torch.equal(network.projections["input->hidden1"].weight, module[0].weight)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.Dropout(), nn.SiLU(), nn.LayerNorm(3)])
def test_unknown_layers_are_refused(layer):
    with pytest.raises(ActrelaxError, match=f"^{type(layer).__name__} is not supported: use Linear, Conv2d"):
        Network.from_sequential(nn.Sequential(nn.Linear(4, 3), layer, nn.Linear(3, 2)), (4,))


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.GELU("tanh"), "GELU must be exact, got approximate='tanh': use 'none'"),
        (nn.Softplus(2.0), "Softplus must have beta 1 and threshold 20, got 2 and 20"),
    ],
)
def test_variants_of_layers_are_refused(layer, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        Network.from_sequential(nn.Sequential(nn.Linear(4, 3), layer), (4,))


def test_an_empty_sequence_is_refused():
    with pytest.raises(ActrelaxError, match="the sequence is empty"):
        Network.from_sequential(nn.Sequential(), (4,))
