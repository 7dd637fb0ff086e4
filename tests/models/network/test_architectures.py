"""The named networks have the papers' sizes, scales and orders of stages."""

import math

import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import ARCHITECTURES, Design, build


def shapes(network):
    return [population.shape for population in network.populations.values()]


def test_the_papers_networks():
    assert shapes(build("mlp")) == [(784,), (300,), (300,), (100,), (10,)]
    assert shapes(build("mlp-figure1")) == [(784,), (300,), (100,), (100,), (10,)]
    cnn = build("cnn")
    assert shapes(cnn) == [(3, 32, 32), (6, 14, 14), (16, 10, 10), (120,), (120,), (10,)]
    assert cnn.projections["input->conv1"].bias is None
    assert cnn.projections["conv1->conv2"].bias is None
    assert cnn.projections["conv2->hidden1"].bias is not None
    activations = [population.activation.name for population in cnn.populations.values()]
    assert activations[1:] == ["tanh"] * 4 + ["identity"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scale_of_the_weights(name, generator):
    network = build(name, generator=generator)
    hidden = network.populations[network.hidden[0]].activation.name
    for p in network.projections.values():
        if p.weight is None:
            continue
        if any(p.source in cycle and p.target in cycle for cycle in network.graph.cycles):
            continue
        fan_in = math.prod(p.weight.shape[1:])
        papers = name in ("mlp", "mlp-figure1", "cnn")
        expected = 0.05 if papers else math.sqrt((2 if hidden == "relu" else 1) / fan_in)
        assert float(p.weight.detach().std()) == pytest.approx(expected, rel=5 / math.sqrt(p.weight.numel()))
        assert p.bias is None or not p.bias.any()


def test_a_scale_of_ones_own(generator):
    network = build("digits-cnn", weight_std=0.3, generator=generator)
    weights = torch.cat([p.weight.detach().flatten() for p in network.projections.values()])
    assert float(weights.std()) == pytest.approx(0.3, rel=0.02)
    assert not build("digits-cnn", weight_std=0.0).projections["hidden1->output"].weight.any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_which_networks_have_cycles(name):
    assert build(name).is_recurrent == ARCHITECTURES[name].is_recurrent


def test_skips_of_two_lengths_and_both_poolings():
    network = build("cnn-skip")
    assert network.projections["conv1->conv3"].map is None
    assert "AvgPool2d" in repr(network)
    assert "MaxPool2d" in repr(network)
    assert [p.name for p in network.incoming["hidden1"]] == ["conv3->hidden1", "conv1->hidden1"]


def test_sizes_follow_the_data():
    assert shapes(build("mlp", input_shape=(1, 28, 28), classes=47))[0] == (1, 28, 28)
    assert shapes(build("mlp", input_shape=(1, 28, 28), classes=47))[-1] == (47,)
    assert shapes(build("cnn", input_shape=(1, 28, 28), classes=100))[2] == (16, 8, 8)
    assert len(shapes(build("mlp-50x300", input_shape=(20,)))) == 51
    assert {p.activation.name for p in list(build("mlp", activation="relu").populations.values())[1:-1]} == {"relu"}


def test_a_seed_means_the_same_in_every_precision():
    single, double = [], []
    for dtype, result in ((torch.float32, single), (torch.float64, double)):
        torch.set_default_dtype(dtype)
        result.extend(build("digits-cnn", generator=torch.Generator().manual_seed(1)).parameters())
    assert all(torch.equal(p, q.float()) for p, q in zip(single, double, strict=True))


def test_global_seed_is_used_without_a_generator():
    torch.manual_seed(4)
    first = build("digits-mlp").projections["input->hidden1"].weight
    torch.manual_seed(4)
    assert torch.equal(first, build("digits-mlp").projections["input->hidden1"].weight)


def test_the_width_of_a_cnn():
    """A quarter of the width is a quarter of all channels and dense units but the image's and the classes'."""
    full, quarter = (build("vgg8", design=Design(width=width)) for width in (None, 16))
    sizes = [[p.weight.shape[0] for p in network.projections.values()] for network in (full, quarter)]
    assert sizes == [[64, 64, 128, 128, 256, 256, 256, 10], [16, 16, 32, 32, 64, 64, 64, 10]]
    with pytest.raises(ActrelaxError, match=r"^vgg8 has no skips to choose: leave it out\.$"):
        build("vgg8", design=Design(width=16, skips="no"))


def test_what_is_refused():
    said = (
        r"^unknown network 'resnet'; known: digits-mlp, .*, mlp-DEPTHxWIDTH, with --network also FILE\.py:FUNCTION\.$"
    )
    with pytest.raises(ActrelaxError, match=said):
        build("resnet")
    with pytest.raises(ActrelaxError, match=r"of at least 14 x 14, got shape \(3, 8, 8\)\.$"):
        build("cnn", input_shape=(3, 8, 8))
    with pytest.raises(ActrelaxError, match=r"takes images \(channels, height, width\)"):
        build("vgg8", input_shape=(64,))
