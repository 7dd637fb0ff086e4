"""Which contours a network can follow: all by hand-made weights that know good continuation, once it has settled."""

import json
import math
from dataclasses import replace

import pytest
import torch
from outcomes import is_drawn

from actrelax import Settle, Steps, settle
from actrelax.simulations.data.contours import STEPS, contours
from actrelax.simulations.studies import contours as study
from actrelax.simulations.studies import tracing
from actrelax.simulations.studies.contours import AR, WAYS, loop
from actrelax.simulations.studies.tracing import accuracies, built, responses, trained


def by_hand(data):
    """Return a network with one map per orientation, in which activity spreads from the mark to what continues."""
    network = built(data, cyclic=True)
    entering, lateral, readout = (network.projections[ends] for ends in ("input->a", "a->a", "a->output"))
    with torch.no_grad():
        for p in network.projections.values():
            p.weight.zero_()
        entering.bias.fill_(-65)
        for o, (down, right) in enumerate(STEPS[:4]):
            for k in (-1, 0, 1):
                entering.weight[o, 0, 1 + k * down, 1 + k * right] = 20
            entering.weight[o, 1] = 20 / 9  # the mark
            for other in (o - 1, o, o + 1):
                for which in {o, other % 4}:  # one of both points to the other
                    for sign in (-1, 1):
                        down, right = STEPS[which]
                        lateral.weight[o, other % 4, 1 + sign * down, 1 + sign * right] = 10
        readout.weight[0, :4], readout.bias[0] = 10, -5
    return network


@pytest.mark.parametrize("size", study.SIZES)
def test_a_settled_network_can_follow_all(size):
    data = contours(20, *size, seed=4)
    found = responses(AR, by_hand(data), data) > 0
    rows = accuracies(found, data.distance, far=6)
    assert data.distance.max() > 7
    assert all(row["accuracy"] == 1 for row in rows)
    stopped = responses(WAYS["4 hops"], by_hand(data), data) > 0
    assert torch.equal(stopped, found & (data.distance < 4))  # the first hop reaches the mark


def test_a_loop_is_described():
    data = contours(4, 4, 4, seed=5)
    network = built(data, cyclic=True)
    weight = network.projections["a->a"].weight
    with torch.no_grad():
        weight.zero_()
        weight[0, 0, 1, 1] = 2.0  # each place of one map feeds itself
        network.projections["input->a"].bias[0] = -2.5
    found = loop(network, data)
    rates = settle(network, data.images, Settle(Steps.until(1e-6))).activities["a"][:, 0]
    largest = 2 * float((rates * (1 - rates)).max())
    assert 0.1 < largest < 0.4
    assert found == {"norm": 2.0, "moving": 0.0, "abscissa": pytest.approx(largest, rel=1e-5)}
    with torch.no_grad():
        weight[0, 0, 1, 1], network.projections["input->a"].bias[0] = -30.0, 15.0  # on and off
    found = loop(network, data)
    assert found["moving"] == 1
    assert math.isnan(found["abscissa"])


def test_results_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "SIZES", ((4, 4), (5, 5)))
    monkeypatch.setattr(study, "FARS", (1, 2))
    monkeypatch.setattr(study, "SAMPLES", 1)
    monkeypatch.setattr(tracing, "ENOUGH", 1)
    ways = ("AR, norm up to 12", "10 hops", "feedforward")
    table = study.main(tmp_path, ways=ways, seeds=1, batches=2, training=32, test=5)
    assert set(table["side"]) == {4, 5}
    assert is_drawn(tmp_path / "contours.png")
    numbers = json.loads((tmp_path / "contours.json").read_text())
    assert numbers["far"]["5"].keys() == {*ways, study.RUN_ON}
    assert numbers["loop"]["norm"].keys() == {ways[0], study.RUN_ON}


def test_weights_are_bounded_and_labels_left_out():
    data = contours(32, 4, 4, seed=6)
    plain, bounded, single = (
        trained(replace(AR, most=5, **options), data, 0, 1).network
        for options in ({}, {"bound": 1.0}, {"single": True})
    )
    before, after = (float(*network.bound_recurrence(1e9).values()) for network in (plain, bounded))
    assert before > 2
    assert after == pytest.approx(1, rel=0.05)
    readouts = [network.projections["a->output"].weight for network in (plain, single)]
    assert not torch.equal(*readouts)
