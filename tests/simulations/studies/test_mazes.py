"""What a network can know of a maze: no more than its hops reach, and all once a suitable one has settled."""

import json
import math

import numpy as np
import pytest
import torch
from outcomes import is_drawn

from actrelax.simulations.data.connected import APART, EMPTY
from actrelax.simulations.data.mazes import mazes
from actrelax.simulations.studies import mazes as study
from actrelax.simulations.studies import tracing
from actrelax.simulations.studies.mazes import FAR, WAYS
from actrelax.simulations.studies.tracing import Way, accuracies, built, loss, responses, trained


@pytest.mark.parametrize(("way", "reach"), [("1 hop", 1), ("4 hops", 4), ("feedforward", 2)])
def test_nothing_is_known_beyond_the_hops(way, reach):
    data = mazes(5, 4, seed=3)
    moved = data.images.clone()
    moved[:, :, 0, 0] = 1 - moved[:, :, 0, 0]
    network = built(data, WAYS[way].cyclic)
    before, after = (responses(WAYS[way], network, each) for each in (data, data._replace(images=moved)))
    away = np.maximum.outer(np.arange(7), np.arange(7))
    assert np.array_equal(((before - after).abs().amax(0) > 0).numpy(), away <= reach)


def by_hand(data):
    """Return a network in which activity spreads from the seed to all pixels beside, except into walls."""
    network = built(data, cyclic=True)
    with torch.no_grad():
        for p in network.projections.values():
            p.weight.zero_()
        entering, lateral, readout = (network.projections[f"{ends}"] for ends in ("input->a", "a->a", "a->output"))
        entering.weight[0, :, 1, 1] = torch.tensor([60.0, 20.0])
        entering.bias.fill_(-65)
        lateral.weight[0, 0] = torch.tensor([[0.0, 10, 0], [10, 10, 10], [0, 10, 0]])
        readout.weight[0, 0], readout.bias[0] = 10, -5
    return network


@pytest.mark.parametrize("cells", [4, 7])
def test_a_settled_network_can_reach_all(cells):
    data = mazes(20, cells, seed=4)
    found = responses(WAYS["AR"], by_hand(data), data) > 0
    assert torch.equal(found, data.distance > APART)
    assert data.distance.max() > 15
    assert all(row["accuracy"] == 1 for row in accuracies(found, data.distance, FAR))


def test_the_same_network_stops_at_its_hops():
    data = mazes(20, 4, seed=4)
    found = responses(Way("bptt", hops=4), by_hand(data), data) > 0
    assert torch.equal(found, (data.distance > APART) & (data.distance < 4))  # the first hop reaches the seed
    rows = {row["distance"]: row["accuracy"] for row in accuracies(found, data.distance, FAR)}
    assert [rows[at] for at in (0, 3, 4, math.inf)] == [1, 1, 0.5, 0.5]


def test_walls_are_not_judged():
    distance = torch.tensor([[[0, 1, EMPTY], [EMPTY, EMPTY, APART]]])
    output = torch.tensor([[[[0.5, -1.0, 9.0], [-9.0, 9.0, 2.0]]]], dtype=torch.float64)
    expected = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(1.0)) + math.log1p(math.exp(2.0))) / 3
    assert loss(output, distance).tolist() == pytest.approx([expected])
    rows = accuracies(output[:, 0] > 0, distance, FAR)
    assert [(row["distance"], row["accuracy"]) for row in rows[:-1]] == [(-1, pytest.approx(1 / 3)), (0, 0.5), (1, 0)]


def test_ar_and_backprop_through_time_begin_alike():
    """Both descend the same gradient, but for what a tolerance of 1 % leaves."""
    data = mazes(32, 3, seed=5)
    weights = [
        torch.cat([w.detach().flatten() for w in trained(WAYS[way], data, 0, 3).network.parameters()])
        for way in ("AR", "backprop through time", "4 hops")
    ]
    start = torch.cat([w.detach().flatten() for w in built(data, cyclic=True).parameters()])
    moved = [w - start for w in weights]
    alike, other = (torch.cosine_similarity(moved[0], each, dim=0) for each in moved[1:])
    assert alike > 0.99
    assert alike > other


def test_results_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "ENOUGH", 1)
    table = study.main(tmp_path, ways=("AR", "feedforward"), seeds=1, batches=2, training=32, test=5)
    assert set(table["side"]) == {7, 13}
    assert is_drawn(tmp_path / "mazes.png")
    numbers = json.loads((tmp_path / "mazes.json").read_text())
    assert numbers["accuracy"]["7"].keys() == {"AR", "feedforward"}
    assert numbers["range"]["far"]["13"]["AR"]["least"] == pytest.approx(numbers["far"]["13"]["AR"])
    assert study.beyond(table, FAR)[7]["AR"] == pytest.approx(numbers["far"]["7"]["AR"])
