"""The chain of single units. Oracles: matrix exponential, probability distributions, single steps."""

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm

from actrelax.models.engines import INTEGRATORS
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import chain_matrix, coefficients, flow

TAUS = [0.7, 1.0, 1.6, 0.9]


def test_flow_is_the_matrix_exponential():
    M = chain_matrix(TAUS)
    for t in (0.0, 1e-3, 0.5, 7.0, 300.0):
        np.testing.assert_allclose(flow(M, t), expm(t * M), rtol=0, atol=1e-13)


def test_with_one_tau_flow_is_poissons_law_however_small_its_entries():
    """Entries are accurate relative to themselves, even at 1e-300, where SciPy's exponential is not."""
    row = flow(chain_matrix([2.0] * 100), 0.01)[0]
    expected = [*stats.poisson.pmf(range(100), 0.005), stats.poisson.sf(99, 0.005)]
    assert 0 < expected[80] < 1e-300
    np.testing.assert_allclose(row[:100], expected[:100], rtol=1e-11)


@pytest.mark.parametrize("name", [name for name, scheme in INTEGRATORS.items() if scheme.takes_time])
def test_coefficients_are_those_of_steps_taken_one_by_one(name):
    transition, M, x = INTEGRATORS[name].transition, chain_matrix(TAUS), np.arange(1.0, 6.0)
    C = coefficients(transition, M, 0.2, 7)
    for _ in range(7):
        x = transition(M, 0.2) @ x
    np.testing.assert_allclose(C @ np.arange(1.0, 6.0), x, rtol=1e-13)
    np.testing.assert_allclose(C.sum(1), 1, rtol=1e-13)  # a clamp of 1 preserves a state of ones
    assert (C >= 0).all()


@pytest.mark.parametrize("steps", [-1, 1.5])
def test_numbers_of_steps_are_whole(steps):
    with pytest.raises(ActrelaxError, match=rf"^steps must be a whole number, 0 or more, got {steps}\.$"):
        coefficients(INTEGRATORS["euler"].transition, chain_matrix(TAUS), 0.1, steps)
