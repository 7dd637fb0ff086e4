"""The bound on |-x + feedback| against the relaxation stepped and looked at, step by step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import deep_case, dense_graphs, graph_case, mlp_case

from actrelax.models.closed_form.clip_bound import bracket_bound, unbounded
from actrelax.models.engines import INTEGRATORS
from actrelax.models.problem import RelaxationProblem

BOUNDED = ["euler", "sequential", "exponential"]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def largest(problem, integrator, dt, steps):
    """The largest bracket of any neuron at any step, from what neurons moved by; tau is 1."""
    x, found, share = problem.initial_state(), 0.0, float(-torch.expm1(torch.tensor(-dt, dtype=torch.float64)))
    for _ in range(steps):
        moved = INTEGRATORS[integrator].step(problem, x, dt)
        brackets = [(moved[name] - x[name]) / (share if integrator == "exponential" else dt) for name in x]
        found = max(found, *(float(b.abs().max()) for b in brackets))
        x = moved
    return found


@pytest.mark.parametrize("integrator", BOUNDED)
@pytest.mark.parametrize("gain", [0.7, 1.0, 2.0])
def test_the_bound_is_near(integrator, gain):
    """Where feedback amplifies, brackets grow a good deal before they fall, and come near what is carried down."""
    case = deep_case(6, gain)
    problem = problem_of(case, assumptions="random-feedback")
    reached = largest(problem, integrator, 0.1, 120)
    bound = float(bracket_bound(problem, INTEGRATORS[integrator], dt=0.1))
    assert reached <= bound * (1 + 1e-12)
    assert bound < 5 * reached
    if gain == 2.0:
        assert bound > 2 * largest(problem, integrator, 0.1, 1)


@given(dense_graphs(), st.sampled_from(BOUNDED), st.floats(0.01, 1.0), st.sampled_from([1, 4, 30]))
def test_no_bracket_exceeds_the_bound(case, integrator, eta, steps):
    problem = problem_of(case)
    bound = float(bracket_bound(problem, INTEGRATORS[integrator], dt=eta))
    assert largest(problem, integrator, eta, steps) <= bound * (1 + 1e-10)


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("integrator", BOUNDED)
def test_a_larger_clip_has_no_effect_and_a_smaller_one_may(make, integrator):
    """The largest of all brackets is the first one here, so that the bound is attained."""
    case, scheme = make(), INTEGRATORS[integrator]
    bound = float(bracket_bound(problem_of(case, tau=2.0), scheme, dt=0.4))

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
    for problem, integrator, dt, sentence in (
        (one, "euler", 1.0, None),
        (one, "rk4", 0.1, 'brackets are bounded for schemes of one stage, "rk4" has others: step the relaxation.'),
        (one, "exact", 0.1, 'brackets are bounded for schemes of one stage, "exact" has others: step the relaxation.'),
        (several, "euler", 0.1, "brackets are bounded for one time constant, this problem has several: step the"),
        (one, "euler", 1.1, "brackets are bounded up to dt / tau = 1: step the relaxation, or take smaller steps."),
    ):
        found = unbounded(problem, INTEGRATORS[integrator], dt=dt)
        assert found is None if sentence is None else found.startswith(sentence)
