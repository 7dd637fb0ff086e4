"""The closed form, term by term, against the stepped relaxation, SciPy's distributions and the matrix exponential."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import dense_graphs, graph_case, mlp_case
from scipy import stats
from scipy.linalg import expm

from actrelax.models.closed_form import predict, uncovered
from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import chain_matrix, coefficients, flow
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]
DEPTH = 6


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def law(name, eta, steps):
    return coefficients(INTEGRATORS[name].transition, chain_matrix([1.0] * DEPTH), eta, steps)


def assert_predicted(problem, name, dt, steps, bound=1e-12):
    """Check the prediction, relative to the largest term: initial activities or the clamp's share."""
    stepped = solve(problem, name, dt=dt, steps=steps, evaluation="stepped").final
    predicted = predict(problem, INTEGRATORS[name], dt=dt, steps=steps)
    assert set(predicted) == set(problem.network.hidden)
    for population, x in predicted.items():
        start = problem.initial_state()[population].abs().max() * (1 - min(dt, 1)) ** steps
        scale = torch.stack([stepped[population].abs().max(), start])
        assert relative_error(x, stepped[population], magnitude=scale) < bound


@pytest.mark.catches("euler's transition for the sequential sweep")
@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("tau", [1.0, {"hidden1": 0.7, "hidden3": 1.9}], ids=["one tau", "taus"])
@pytest.mark.parametrize("start", ["feedforward", "zero"])
@pytest.mark.parametrize("steps", [0, 1, 2, 12])
def test_chains(name, tau, start, steps):
    assert_predicted(problem_of(mlp_case(), tau=tau, start=start), name, 0.2, steps)


@pytest.mark.catches("the clamp's tails in the wrong order")
@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("start", ["feedforward", "zero"])
@pytest.mark.parametrize("steps", [0, 1, 12, 40])
def test_graphs(name, start, steps):
    problem = problem_of(graph_case(), tau=0.8, start=start)
    assert not problem.network.graph.is_chain
    assert_predicted(problem, name, 0.2, steps)


@given(dense_graphs(), st.sampled_from(STEPPED), st.integers(0, 25), st.floats(0.01, 1.0), st.sampled_from([0.5, 1.0]))
def test_random_graphs(case, name, steps, eta, tau):
    assert_predicted(problem_of(case, tau=tau), name, eta * tau, steps, bound=1e-11)


@pytest.mark.parametrize("preset", ["no-derivatives", "learned-feedback", "sign-feedback", "random-feedback"])
def test_assumptions(preset, generator):
    case = graph_case()
    case.network.add_feedback(preset, generator)
    assert_predicted(problem_of(case, assumptions=preset), "sequential", 0.2, 12)


@pytest.mark.parametrize("make", [mlp_case, graph_case])
def test_equilibrium(make):
    problem = problem_of(make())
    exact = solve(problem, "equilibrium").final
    for name, x in predict(problem, INTEGRATORS["equilibrium"], dt=1.0, steps=1).items():
        assert relative_error(x, exact[name]) < 1e-13


def test_the_schemes_differ_here():
    """The test networks distinguish the schemes, so no transition can pass under another's name."""
    problem = problem_of(mlp_case())
    lowest = [predict(problem, INTEGRATORS[name], dt=0.2, steps=12)["hidden1"] for name in STEPPED]
    for i in range(len(lowest)):
        for j in range(i):
            assert relative_error(lowest[i], lowest[j]) > 1e-5


DISTRIBUTIONS = {
    "euler": lambda n, eta: stats.binom(n, eta),
    "sequential": lambda n, eta: stats.nbinom(n, 1 - eta),
    "exponential": lambda n, eta: stats.binom(n, -np.expm1(-eta)),
}


@pytest.mark.parametrize("name", ["euler", "sequential", "exponential"])
@pytest.mark.parametrize("eta", [0.02, 0.1, 0.7])
@pytest.mark.parametrize("steps", [1, 3, 100, 100_000])
def test_hops_are_counted_by_a_distribution(name, eta, steps):
    """C[l, m] = P(K = m - l), and P(K >= L - l) for the clamp, each accurate relative to itself."""
    C, K = law(name, eta, steps), DISTRIBUTIONS[name](steps, eta)
    hops = np.arange(DEPTH)
    expected = K.pmf(hops)
    assert C[0, :DEPTH] == pytest.approx(expected, rel=1e-9, abs=1e-290)
    assert C[:DEPTH, DEPTH] == pytest.approx(K.sf(DEPTH - hops - 1), rel=1e-9, abs=1e-290)
    assert C[1, 1:DEPTH] == pytest.approx(C[0, : DEPTH - 1], rel=1e-12, abs=1e-290)


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, 5.0, 40.0, 3000.0])
def test_the_flow_is_poisson(t):
    C, K = flow(chain_matrix([2.0] * DEPTH), t), stats.poisson(t / 2)
    hops = np.arange(DEPTH)
    assert C[0, :DEPTH] == pytest.approx(K.pmf(hops), rel=1e-10, abs=1e-290)
    assert C[:DEPTH, DEPTH] == pytest.approx(K.sf(DEPTH - hops - 1), rel=1e-10, abs=1e-290)


@pytest.mark.parametrize("t", [0.01, 1.0, 30.0])
def test_the_flow_of_several_taus_is_the_matrix_exponential(t):
    matrix = chain_matrix([0.7, 1.0, 1.6, 0.3])
    assert flow(matrix, t) == pytest.approx(expm(t * matrix), rel=1e-9, abs=1e-14)


def test_smaller_steps_approach_the_flow():
    """Transitions converge at the order of their integrator, with unequal taus."""
    matrix = chain_matrix([0.7, 1.0, 1.6])
    for name in STEPPED:
        scheme = INTEGRATORS[name]
        errors = [
            np.abs(coefficients(scheme.transition, matrix, 2 / n, n) - flow(matrix, 2.0)).max() for n in (64, 128, 256)
        ]
        slopes = np.log2(np.array(errors[:-1]) / errors[1:])
        assert slopes == pytest.approx([scheme.order] * 2, abs=0.1)


@pytest.mark.parametrize("name", STEPPED)
def test_coefficients_are_probabilities(name):
    for eta in (0.05, 0.5, 1.0):
        C = law(name, eta, 37)
        assert C.min() >= 0
        assert C.sum(1) == pytest.approx(np.ones(DEPTH + 1), rel=1e-13)


def test_what_the_closed_form_does_not_cover(generator):
    chain, graph = mlp_case(), graph_case()
    for problem, sentence in (
        (problem_of(chain, assumptions="unfrozen"), "the closed form needs frozen gains: a current activity gain"),
        (problem_of(chain, assumptions="continuous"), "the closed form needs constant weights: continuous"),
        (
            problem_of(chain, clip=1.0),
            "the closed form needs a linear relaxation: leave clip out, or step the relaxation.",
        ),
        (
            problem_of(chain, tau={"hidden1": torch.ones(7)}),
            "the closed form needs one tau per population, got one per neuron",
        ),
        (
            problem_of(graph, tau={"conv2": 2.0}),
            "the closed form needs one tau when the network has skip connections, got 2: pass",
        ),
    ):
        assert uncovered(problem).startswith(sentence)
        with pytest.raises(ActrelaxError, match=f"^{sentence}"):
            predict(problem, INTEGRATORS["euler"], dt=0.1, steps=3)
    assert uncovered(problem_of(chain, tau={"hidden1": 2.0})) is None
    assert uncovered(problem_of(graph, tau=2.0)) is None
