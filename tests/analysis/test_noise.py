"""Noise in the updates: variances equal the recursion over all neurons, angles agree with many samples."""

import math

import numpy as np
import pytest
import torch
from networks import graph_case, make_case, mlp_case
from torch import nn

from actrelax import solve
from actrelax.analysis.checks.moments import scheme_moments
from actrelax.analysis.noise import expected_noise_angles, noise_shares, noise_variances
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import parameter_gradients, postsynaptic_factor, presynaptic_factor
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem


def problem_of(case, samples=slice(None), **fields):
    return RelaxationProblem.from_batch(case.network, case.x[samples], case.y[samples], **fields)


def test_variances_are_those_of_the_recursion():
    """S' = T S T^T + Q over all neurons of a sample, from the check of noise."""
    case = mlp_case()
    fields = {"noise": {"hidden1": 0.1, "hidden2": 0.4, "hidden3": 0.3}, "tau": {"hidden1": 0.7, "hidden3": 2.0}}
    found = noise_variances(problem_of(case, **fields), dt=0.2, steps=12)
    for sample in range(3):
        moments = scheme_moments(problem_of(case, slice(sample, sample + 1), **fields), 0.2, 12)
        expected = moments.covariance.diagonal()
        ours = [float(found[name][sample, unit]) for name, unit in zip(moments.populations, moments.units, strict=True)]
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
    # samples differ in their gains
    assert float((found["hidden1"][0] / found["hidden1"][1] - 1).abs().max()) > 1e-3


def test_shares_in_the_end():
    """1 / (1 - eta/2) from the population itself; for small steps binomial(2k, k) / 4^k from k hops above."""
    problem = problem_of(mlp_case(), noise=0.1)
    shares = noise_shares(problem, dt=0.2, steps=400)
    assert shares.diagonal() == pytest.approx([1 / 0.9] * 3, rel=1e-12)
    assert np.all(shares[np.tril_indices(3, -1)] == 0)  # no noise travels upwards
    fine = noise_shares(problem, dt=0.001, steps=40_000)
    assert fine[0] == pytest.approx([math.comb(2 * k, k) / 4**k for k in range(3)], rel=1e-3)


def test_angles_are_those_of_many_relaxations():
    """tan^2 of the expected angle is the mean squared norm of the update's noise over the gradient's squared norm."""
    case, repeats = mlp_case(), 400
    x, y = case.x.repeat(repeats, 1), case.y.repeat(repeats)
    many = RelaxationProblem.from_batch(case.network, x, y, noise=0.1)
    final = solve(many, "euler", dt=0.2, steps=80, generator=torch.Generator().manual_seed(0)).final
    expected = expected_noise_angles(problem_of(case, noise=0.1), dt=0.2, steps=80)
    exact = parameter_gradients(case.network, case.x, case.y)
    assert list(expected) == ["input->hidden1", "hidden1->hidden2", "hidden2->hidden3"]
    for name, degrees in expected.items():
        projection = case.network.projections[name]
        pre, post = presynaptic_factor(many, projection, final), postsynaptic_factor(many, projection, final)
        updates = torch.einsum("rbj,rbi->rji", post.unflatten(0, (repeats, 3)), pre.unflatten(0, (repeats, 3)))
        noise = (updates - exact[projection.weight]).square().sum((1, 2)) / exact[projection.weight].square().sum()
        assert 10 < degrees < 80
        assert abs(float(noise.mean()) - math.tan(math.radians(degrees)) ** 2) < 4 * float(noise.std()) / repeats**0.5


def parallel_case():
    return make_case((3,), {"a": "tanh", "b": "tanh", "output": "identity"}, [
        ("input", "a", [nn.Linear(3, 4)]),
        ("a", "b", [nn.Linear(4, 4)]),
        ("a", "b", []),
        ("b", "output", [nn.Linear(4, 2)]),
    ])  # fmt: skip


def captured(**fields):
    x = torch.rand(3, 4)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    return RelaxationProblem.from_batch(Network.from_module(module, x), x, torch.tensor([0, 1, 0]), **fields)


def test_noise_is_refused_where_it_is_not_followed():
    case = mlp_case()
    for problem, said in (
        (problem_of(graph_case(), noise=0.1), "need a hand-built chain of dense projections"),
        (problem_of(parallel_case(), noise=0.1), "need a hand-built chain of dense projections"),
        (captured(noise=0.1), "need a hand-built chain of dense projections"),
        (problem_of(case, noise={"hidden1": torch.full((7,), 0.1)}), "one sigma per population"),
        (problem_of(case, noise=0.1, delays=1.0), "needs feedback without delays"),
    ):
        with pytest.raises(ActrelaxError, match=said):
            noise_variances(problem, dt=0.2, steps=12)
