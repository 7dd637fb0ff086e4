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
