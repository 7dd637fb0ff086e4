"""Suites of networks with cycles: their conditions are what their names say."""

import pytest

from actrelax.models.network import build
from actrelax.simulations.suites.recurrent import INPUT, RECURRENT, WITHIN_CYCLES


@pytest.mark.parametrize("name", WITHIN_CYCLES)
def test_the_recurrent_weights_are_those_inside_cycles(name):
    network = build(name, generator=0)
    inside = {
        p.name
        for p in network.projections.values()
        if any(p.source in cycle and p.target in cycle for cycle in network.graph.cycles)
    }
    assert set(WITHIN_CYCLES[name]) == inside
    assert network.projections[INPUT[name]].source == network.input


@pytest.mark.parametrize("name", ["recurrent-digits", "recurrent-mnist", "recurrent-fashion"])
def test_controls_freeze_weights(name):
    suite = RECURRENT[name]
    network = build(suite.base.model.network, generator=0)
    frozen, readout = (suite.conditions[name]["freeze"] for name in ("recurrent weights frozen", "readout only"))
    weights = {name for name, w in network.named_parameters() if w.dim() > 1}
    entering = {p.name for p in network.projections.values() if p.target == network.output}
    assert weights - set(frozen) == {f"{name}.weight" for name in {INPUT[network_name(suite)], *entering}}
    assert set(network.projections) - set(readout) == entering


def network_name(suite):
    return suite.base.model.network
