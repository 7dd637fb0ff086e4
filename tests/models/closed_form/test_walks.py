"""The sum over walks against the stepped relaxation, SciPy's distributions and the matrix exponential."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import RECURRENT, hierarchy_case, recurrent_graphs
from scipy import stats
from scipy.linalg import expm

from actrelax.models.closed_form import predict, uncovered, uncovered_by_walks
from actrelax.models.engines import INTEGRATORS, Settle, SparseProblem, Steps, settle, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]


def problem_of(case, **fields):
    rates = settle(case.network, case.x, Settle(Steps.until(1e-10, eta=0.3)))
    return RelaxationProblem.from_batch(case.network, rates, case.y, loss=case.loss, **fields)


def assert_predicted(problem, name, dt, steps, bound=1e-12):
    """Check the prediction, relative to the largest activity of the state before and after."""
    stepped, start = solve(problem, name, dt=dt, steps=steps).final, problem.initial_state()
    predicted = predict(problem, INTEGRATORS[name], dt=dt, steps=steps)
    assert set(predicted) == set(problem.network.hidden)
    for population, x in predicted.items():
        scale = torch.stack([stepped[population].abs().max(), start[population].abs().max()])
        assert relative_error(x, stepped[population], magnitude=scale) < bound


@pytest.mark.parametrize("case", RECURRENT)
@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("start", ["feedforward", "zero"])
def test_stepped_relaxations(case, name, start):
    problem = problem_of(RECURRENT[case](), tau=0.8, start=start)
    assert uncovered(problem) is not None
    for steps in (0, 1, 2, 12, 60):
        assert_predicted(problem, name, 0.2, steps)


@given(recurrent_graphs(), st.sampled_from(STEPPED), st.integers(0, 20), st.floats(0.01, 1.0))
def test_random_graphs(case, name, steps, eta):
    assert_predicted(problem_of(case, tau=0.5), name, eta * 0.5, steps, bound=1e-11)


@pytest.mark.parametrize("preset", ["no-derivatives", "random-feedback"])
@pytest.mark.parametrize("name", ["euler", "sequential"])
def test_assumptions(preset, name, generator):
    case = hierarchy_case()
    case.network.add_feedback(preset, generator)
    assert_predicted(problem_of(case, assumptions=preset), name, 0.2, 12)


@pytest.mark.parametrize("steps", [0, 3, 40, 400])
def test_the_flow(steps):
    problem = problem_of(hierarchy_case(), tau=0.8)
    flat = SparseProblem(problem)
    y, J, b = flat.initial_state, flat.jacobian(flat.initial_state).toarray(), flat.vector_field(0 * flat.initial_state)
    rest = np.linalg.solve(J, -b)
    expected = flat.as_tensors(flat.split(rest + expm(steps * 0.1 * J) @ (y - rest)))
    for name, x in predict(problem, INTEGRATORS["exact"], dt=0.1, steps=steps).items():
        assert relative_error(x, expected[name]) < 1e-11


def test_walks_are_counted_by_the_binomial_distribution():
    """Every power of A contributes, far beyond the number of populations, where a sum over paths would end."""
    case, eta, steps = RECURRENT["dense"](), 0.4, 25
    problem = problem_of(case, start="zero")
    flat = SparseProblem(problem)
    silent = np.zeros_like(flat.initial_state)
    A, b = flat.jacobian(silent).toarray() + np.eye(len(silent)), flat.vector_field(silent)
    terms = [stats.binom(steps, eta).sf(k) * np.linalg.matrix_power(A, k) @ b for k in range(steps)]
    expected = flat.as_tensors(flat.split(sum(terms)))["a"]
    assert np.abs(terms[4]).max() > 1e-3 * np.abs(sum(terms)).max()
    assert relative_error(predict(problem, INTEGRATORS["euler"], dt=eta, steps=steps)["a"], expected) < 1e-13


def test_the_schemes_differ_here():
    problem = problem_of(hierarchy_case())
    found = [predict(problem, INTEGRATORS[name], dt=0.2, steps=12)["a"] for name in [*STEPPED, "exact"]]
    for i in range(len(found)):
        for j in range(i):
            assert relative_error(found[i], found[j]) > 1e-6


def test_refusals():
    taus = problem_of(hierarchy_case(), tau={"a": 1.0, "b": 2.0, "c": 1.0, "stem": 1.0, "head": 1.0})
    for problem, reason in (
        (taus, "the closed form needs one tau when the network has cycles, got 2: pass one tau, or step"),
        (problem_of(hierarchy_case(), clip=0.1), "the closed form needs a linear relaxation: leave clip out, or step"),
    ):
        assert uncovered_by_walks(problem).startswith(reason)
        with pytest.raises(ActrelaxError, match=reason[:40]):
            predict(problem, INTEGRATORS["euler"], dt=0.1, steps=3)
    with pytest.raises(ActrelaxError, match=r'^infinitely many walks lead .*: call solve\(problem, "equilibrium"\)\.$'):
        predict(problem_of(hierarchy_case()), INTEGRATORS["equilibrium"], dt=0.1, steps=3)
