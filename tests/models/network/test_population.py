"""Shapes of populations follow from the projections."""

import pytest
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, Projection


def test_sizes_that_do_not_fit():
    projections = [Projection("input", "a", nn.Linear(4, 3)), Projection("input", "a", nn.Linear(4, 2), name="skip")]
    with pytest.raises(ActrelaxError, match=r"of population 'a' differ in shape: 'input->a' \(3,\), 'skip' \(2,\)"):
        Network((4,), {"a": "tanh"}, projections)
    with pytest.raises(ActrelaxError, match=r"a sample of shape \(5,\) doesn't fit the projections: mat1 and mat2"):
        Network((5,), {"a": "tanh"}, projections[:1])


def test_projections_that_close_a_cycle_must_fit_too():
    onward = [Projection("input", "a", nn.Linear(4, 3)), Projection("a", "b", nn.Linear(3, 2)), Projection("b", "out")]
    populations = {"a": "tanh", "b": "tanh", "out": "identity"}
    network = Network((4,), populations, [*onward, Projection("b", "a", nn.Linear(2, 3))])
    assert {name: p.shape for name, p in network.populations.items()} == {
        "input": (4,),
        "a": (3,),
        "b": (2,),
        "out": (2,),
    }
    with pytest.raises(ActrelaxError, match=r"of population 'a' differ in shape: 'input->a' \(3,\), 'b->a' \(4,\)\.$"):
        Network((4,), populations, [*onward, Projection("b", "a", nn.Linear(2, 4))])
    with pytest.raises(ActrelaxError, match=r"doesn't fit the projections: mat1 and mat2"):
        Network((4,), populations, [*onward, Projection("b", "a", nn.Linear(5, 3))])
