"""Named networks with cycles are wired as their names say, and their rates settle from the first weights."""

import math

import numpy as np
import pytest
import torch

from actrelax.models.engines import Settle, Steps, settle
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import ARCHITECTURES, Network, Projection, build
from actrelax.models.network.parts import linear
from actrelax.models.network.recurrent import recurrent_scales

NAMES = [name for name, found in ARCHITECTURES.items() if found.is_recurrent]


def wiring(network):
    return {(p.source, p.target) for p in network.projections.values()}


def shapes(network):
    return {name: population.shape for name, population in network.populations.items()}


def recurrent_weights(network, target):
    """Return source -> weights of the projections into a population from its cycle."""
    (cycle,) = network.graph.cycles
    return {p.source: p.weight.detach() for p in network.incoming[target] if p.source in cycle}


def test_sizes_and_wiring():
    once = {("input", "hidden1"), ("hidden1", "hidden1"), ("hidden1", "output")}
    assert wiring(build("rec")) == wiring(build("digits-rec")) == once
    assert shapes(build("rec")) == {"input": (784,), "hidden1": (300,), "output": (10,)}
    assert shapes(build("digits-rec")) == {"input": (64,), "hidden1": (32,), "output": (10,)}
    h = build("hierarchy")
    assert {h.populations[name].shape for name in h.hidden} == {(100,)}
    up, down = {("hidden1", "hidden2"), ("hidden2", "hidden3")}, {("hidden3", "hidden2"), ("hidden2", "hidden1")}
    lateral = {(name, name) for name in h.hidden}
    assert wiring(h) == {("input", "hidden1"), ("hidden3", "output")} | up | down | lateral
    ei = build("ei")
    assert shapes(ei) == {"input": (784,), "excitatory": (80,), "inhibitory": (20,), "output": (10,)}
    assert {p.source for p in ei.incoming["output"]} == {"excitatory"}
    assert [len(ei.incoming[name]) for name in ("excitatory", "inhibitory")] == [3, 3]
    conv = build("conv-rec", input_shape=(3, 32, 32))
    assert [*shapes(conv).values()] == [(3, 32, 32), (8, 32, 32), (16, 16, 16), (10,)]
    assert {p.source for p in conv.incoming["output"]} == {"conv1", "conv2"}
    assert ("conv2", "conv1") in wiring(conv)


@pytest.mark.parametrize("name", NAMES)
def test_activations(name):
    for given, expected in ((None, "tanh"), ("softplus", "softplus")):
        network = build(name, activation=given)
        assert {network.populations[hidden].activation.name for hidden in network.hidden} == {expected}
        assert network.populations["output"].activation.name == "identity"


@pytest.mark.parametrize("name", NAMES)
def test_recurrent_weights(name, generator):
    network = build(name, generator=generator)
    gain = 0.5 if name == "conv-rec" else 0.8
    for target in network.hidden:
        weights = recurrent_weights(network, target)
        fan_in = sum(w[0].numel() for w in weights.values())
        square = sum(w[0].numel() * float(w.square().mean()) for w in weights.values())
        assert math.sqrt(square) == pytest.approx(gain, rel=5 / math.sqrt(sum(w.numel() for w in weights.values())))
        if name != "ei":
            for w in weights.values():
                assert float(w.std()) == pytest.approx(gain / math.sqrt(fan_in), rel=5 / math.sqrt(w.numel()))
        assert sum(p.bias is not None for p in network.incoming[target]) == 1


def test_signs_of_excitatory_and_inhibitory_weights(generator):
    network = build("ei", generator=generator)
    for target in network.hidden:
        weights = recurrent_weights(network, target)
        assert weights["excitatory"].min() > 0 > weights["inhibitory"].max()
        ratio = float(-weights["inhibitory"].mean() / weights["excitatory"].mean())
        assert ratio == pytest.approx(4, rel=0.2)
    assert float(network.projections["input->excitatory"].weight.detach().mean()) == pytest.approx(0, abs=0.002)
    one_size = build("ei", weight_std=0.1, generator=generator).projections["inhibitory->excitatory"].weight.detach()
    assert one_size.max() < 0
    assert float(one_size.square().mean().sqrt()) == pytest.approx(0.1, rel=0.1)


def test_only_connections_of_one_cycle_share_its_fan_in():
    network = Network(
        (4,),
        {"a": "tanh", "b": "tanh", "output": "identity"},
        [
            Projection("input", "a", linear(4, 5)),
            Projection("a", "a", linear(5, 5)),
            Projection("a", "b", linear(5, 6)),
            Projection("b", "b", linear(6, 6)),
            Projection("b", "b", name="copy"),
            Projection("b", "output", linear(6, 2)),
        ],
    )
    expected = {"a->a": 0.8 / math.sqrt(5), "b->b": 0.8 / math.sqrt(6)}
    assert recurrent_scales(network, {}) == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_rates_settle_from_the_first_weights(name):
    """The largest real part of the Jacobian's spectrum is well below 1, and cycles matter: it is well above 0."""
    shape = (1, 8, 8) if name == "conv-rec" else None
    for seed in range(3):
        network = build(name, input_shape=shape, generator=seed)
        x = torch.rand(1, *network.populations["input"].shape, generator=torch.Generator().manual_seed(seed))
        rates = settle(network, x, Settle(Steps.until(1e-8, eta=0.5)))
        offsets = np.cumsum([0, *(rates.activities[name].numel() for name in network.hidden)])
        jacobian = np.zeros((offsets[-1], offsets[-1]))
        place = {hidden: slice(offsets[i], offsets[i + 1]) for i, hidden in enumerate(network.hidden)}
        for p in network.projections.values():
            if p.source in place and p.target in place:
                gain = network.populations[p.target].activation.derivative(rates.drives[p.target]).flatten()
                matrix = p.as_sparse(rates.routes[p.name], p.weight.detach()).toarray()
                jacobian[place[p.target], place[p.source]] += gain.detach().numpy()[:, None] * matrix
        assert 0.3 < np.linalg.eigvals(jacobian).real.max() < 0.9


def test_maps_that_cannot_be_halved_are_refused():
    with pytest.raises(ActrelaxError, match=r"need an even height and width, got shape \(1, 9, 8\): pad the images\.$"):
        build("conv-rec", input_shape=(1, 9, 8))
