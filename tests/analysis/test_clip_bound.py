"""The bound on |-x + feedback| against the values in a stepped relaxation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import deep_case, dense_graphs, graph_case, mlp_case
from torch import nn

from actrelax.analysis.clip_bound import largest_derivative, why_no_bound
from actrelax.models.engines import INTEGRATORS
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem

BOUNDED = ["euler", "sequential", "exponential"]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def reached(problem, integrator, dt, steps):
    """Return the largest |-x + feedback| over all neurons and steps, from the steps taken; tau is 1."""
    x, found, share = problem.initial_state(), 0.0, float(-torch.expm1(torch.tensor(-dt, dtype=torch.float64)))
    for _ in range(steps):
        moved = INTEGRATORS[integrator].step(problem, x, dt)
        derivatives = [(moved[name] - x[name]) / (share if integrator == "exponential" else dt) for name in x]
        found = max(found, *(float(d.abs().max()) for d in derivatives))
        x = moved
    return found


@pytest.mark.parametrize("integrator", BOUNDED)
@pytest.mark.parametrize("gain", [0.7, 1.0, 2.0])
def test_the_bound_is_near(integrator, gain):
    """With amplifying feedback, derivatives grow before they decay, and come close to the bound."""
    case = deep_case(6, gain)
    problem = problem_of(case, assumptions="random-feedback")
    largest = reached(problem, integrator, 0.1, 120)
    bound = float(largest_derivative(problem, INTEGRATORS[integrator], dt=0.1))
    assert largest <= bound * (1 + 1e-12)
    assert bound < 5 * largest
    if gain == 2.0:
        assert bound > 2 * reached(problem, integrator, 0.1, 1)


@given(dense_graphs(), st.sampled_from(BOUNDED), st.floats(0.01, 1.0), st.sampled_from([1, 4, 30]))
def test_no_derivative_exceeds_the_bound(case, integrator, eta, steps):
    problem = problem_of(case)
    bound = float(largest_derivative(problem, INTEGRATORS[integrator], dt=eta))
    assert reached(problem, integrator, eta, steps) <= bound * (1 + 1e-10)


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("integrator", BOUNDED)
def test_a_larger_clip_has_no_effect_and_a_smaller_one_may(make, integrator):
    """The largest derivative occurs in the first step here, so the bound is attained."""
    case, scheme = make(), INTEGRATORS[integrator]
    bound = float(largest_derivative(problem_of(case, tau=2.0), scheme, dt=0.4))

    def end(clip):
        problem = problem_of(case, tau=2.0, clip=clip)
        state = problem.initial_state()
        for _ in range(12):
            state = scheme.step(problem, state, 0.4)
        return state

    for name, x in end(None).items():
        assert torch.allclose(end(1.001 * bound)[name], x, rtol=1e-12)
    assert any(not torch.allclose(end(bound / 3)[name], x, rtol=1e-3) for name, x in end(None).items())


def test_where_there_is_no_bound():
    several = problem_of(mlp_case(), tau={"hidden1": 0.7})
    one = problem_of(mlp_case())
    single = RelaxationProblem.from_batch(
        Network.from_sequential(nn.Sequential(nn.Linear(3, 2)), (3,)), torch.ones(1, 3), torch.ones(1).long()
    )
    for problem, integrator, dt, sentence in (
        (one, "euler", 1.0, None),
        (one, "rk4", 0.1, 'the bound on |-x + feedback| needs a scheme of one stage, got "rk4".'),
        (one, "exact", 0.1, 'the bound on |-x + feedback| needs a scheme of one stage, got "exact".'),
        (
            problem_of(mlp_case(), clip=1.0),
            "euler",
            0.1,
            "the closed form needs a linear relaxation: leave clip out, or",
        ),
        (several, "euler", 0.1, "the bound on |-x + feedback| needs one tau, got 2."),
        (single, "euler", 0.1, "the bound on |-x + feedback| needs a hidden population."),
        (one, "euler", 1.1, "the bound on |-x + feedback| needs dt / tau above 0 and up to 1, got 1.1."),
        (one, "euler", -0.1, "the bound on |-x + feedback| needs dt / tau above 0 and up to 1, got -0.1."),
    ):
        found = why_no_bound(problem, INTEGRATORS[integrator], dt=dt)
        assert found is None if sentence is None else found.startswith(sentence)
