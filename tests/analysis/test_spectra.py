"""Spectra against dense linear algebra in NumPy and SciPy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from modules import MODULES
from networks import deep_case, graph_case, mlp_case
from scipy.linalg import eigvals, expm

from actrelax.analysis import spectra, transient_growth
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem

TAUS = {"hidden1": 1.5, "hidden2": 0.7, "hidden3": 1.0}


def one_sample(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x[:1], case.y[:1], loss=case.loss, **fields)


def amplifying():
    """Return a chain whose feedback maps amplify by 1.5, so that errors grow before they decay."""
    return one_sample(deep_case(8, 1.5), assumptions="random-feedback")


PROBLEMS = {
    "chain": lambda: one_sample(mlp_case(gain=3.0)),
    "several taus": lambda: one_sample(mlp_case(gain=3.0), tau=TAUS),
    "graph": lambda: one_sample(graph_case()),
    "amplifying": amplifying,
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]()


def dense_singular_value(matrix, z):
    return float(np.linalg.svd(z * np.eye(len(matrix)) - matrix, compute_uv=False)[-1])


def test_the_linear_part_is_what_the_vector_field_does_to_a_state(problem):
    matrix = spectra.linear_part(problem).toarray()
    start = problem.initial_state()
    rest = {name: torch.zeros_like(x) for name, x in start.items()}
    moved, at_rest = problem.vector_field(start), problem.vector_field(rest)
    expected = torch.cat([(moved[name] - at_rest[name]).flatten() for name in problem.relaxing])
    state = torch.cat([start[name].flatten() for name in problem.relaxing])
    assert np.abs(matrix @ state.numpy() - expected.numpy()).max() < 1e-12


def test_all_eigenvalues_are_those_of_lone_units(problem):
    matrix = spectra.linear_part(problem).toarray()
    rates = [np.full(problem.initial_state()[n].numel(), -1 / float(problem.taus.of(n))) for n in problem.relaxing]
    assert np.sort(eigvals(matrix).real) == pytest.approx(np.sort(np.concatenate(rates)), abs=1e-14)
    assert np.abs(matrix - np.diag(matrix.diagonal())).max() > 0.1


@pytest.mark.parametrize("z", [0.1, -0.6 + 0.4j, -1.3 - 0.2j])
def test_the_smallest_singular_value_is_that_of_a_dense_svd(problem, z):
    matrix = spectra.linear_part(problem)
    assert spectra.smallest_singular_value(matrix, z) == pytest.approx(
        dense_singular_value(matrix.toarray(), z), rel=1e-8
    )


def single_units(depth):
    """Return a chain of single units with feedback weights of 1, for which A + 1 is a shift."""
    case = deep_case(depth, 1.0, width=1, activation="identity")
    with torch.no_grad():
        for p in case.network.projections.values():
            if p.feedback is not None:
                p.feedback.fill_(1.0)
    return spectra.linear_part(one_sample(case, assumptions="random-feedback"))


@pytest.mark.parametrize("distance", [1e-2, 1e-9])
def test_singular_values_are_exact_far_below_rounding(distance):
    matrix = single_units(31)
    hops = np.subtract.outer(np.arange(30), np.arange(30))
    # the inverse of a bidiagonal matrix has entries of one sign; scaled, so that they can be squared
    inverse = np.tril(distance ** (29.0 - np.maximum(hops, 0)))
    expected = distance**30 / np.linalg.norm(inverse, 2)
    assert expected < 1e-50
    assert spectra.smallest_singular_value(matrix, -1 + distance) == pytest.approx(expected, rel=1e-6)


def test_an_eigenvalue_has_no_distance():
    matrix = spectra.linear_part(PROBLEMS["chain"]())
    assert spectra.smallest_singular_value(matrix, -1) == 0
    # below the smallest float
    assert spectra.smallest_singular_value(single_units(31), -1 + 1e-30) == 0


def test_a_grid_has_its_rows_above_and_below_the_axis():
    matrix = spectra.linear_part(amplifying())
    real, imaginary = [-1.5, -0.4, 0.2], [-0.7, 0.0, 0.7, 1.1]
    expected = [[dense_singular_value(matrix.toarray(), x + 1j * y) for x in real] for y in imaginary]
    assert spectra.pseudospectrum(matrix, real, imaginary) == pytest.approx(np.array(expected), rel=1e-8)


def test_of_a_chain_pseudospectra_and_numerical_range_are_discs_and_of_a_graph_not():
    for name, is_disc in (("amplifying", True), ("graph", False)):
        matrix = spectra.linear_part(PROBLEMS[name]())
        values = [spectra.smallest_singular_value(matrix, -1 + 0.5 * np.exp(1j * turn)) for turn in (0.0, 1.0, 2.5)]
        radii = np.abs(spectra.numerical_range(matrix, 16) + 1)
        assert (np.ptp(values) < 1e-9) == is_disc
        assert (np.ptp(radii) < 1e-6) == is_disc


def test_no_direction_has_more_than_the_numerical_range(problem):
    matrix = spectra.linear_part(problem)
    border = spectra.numerical_range(matrix, 24)
    assert len(border) == 24
    for theta in (0.0, 0.8, 2.0, 4.0):
        turned = np.exp(-1j * theta) * matrix.toarray()
        support = np.linalg.eigvalsh((turned + turned.conj().T) / 2)[-1]
        # the furthest of 24 points is short by at most 1 - cos(pi/24) of the radius
        assert support * (1 - 1e-9) > (np.exp(-1j * theta) * border).real.max() - 1e-9 > support - 0.05
    assert border[0].real == pytest.approx(spectra.numerical_abscissa(matrix), abs=1e-8)


def test_the_numerical_abscissa_is_how_fast_errors_begin_to_grow(problem):
    matrix = spectra.linear_part(problem)
    dense = matrix.toarray()
    begins = (np.linalg.norm(expm(1e-5 * dense), 2) - 1) / 1e-5
    assert spectra.numerical_abscissa(matrix) == pytest.approx(begins, abs=1e-3)


def test_propagators_are_matrix_exponentials(problem):
    matrix = spectra.linear_part(problem)
    x = np.random.default_rng(1).standard_normal(matrix.shape[0])
    times = [0.0, 0.7, 6.0]
    exponentials = [expm(t * matrix.toarray()) for t in times]
    for t, exponential in zip(times, exponentials, strict=True):
        assert np.abs(transient_growth.propagator(matrix, t)(x) - exponential @ x).max() < 1e-10
    expected = [np.linalg.norm(exponential, 2) for exponential in exponentials]
    assert transient_growth.propagator_norms(matrix, times) == pytest.approx(expected, rel=1e-7)
    with pytest.raises(ActrelaxError, match=r"^a time must be a number, 0 or more, got -1\.$"):
        transient_growth.propagator_norms(matrix, [-1.0])


def test_the_kreiss_constant_bounds_growth_from_both_sides():
    matrix = spectra.linear_part(amplifying())
    growth = max(np.linalg.norm(expm(t * matrix.toarray()), 2) for t in np.linspace(0, 20, 81))
    kreiss = transient_growth.kreiss_constant(matrix)
    assert transient_growth.levels(matrix) == 7
    assert 2 < kreiss < growth < math.e * 7 * kreiss
    places = [x + 1j * y for x in np.geomspace(0.01, 3, 60) for y in (0.0, 0.1, 0.5)]
    brute = max(z.real / dense_singular_value(matrix.toarray(), z) for z in places)
    assert brute * (1 - 1e-9) < kreiss < brute * 1.01
    assert transient_growth.kreiss_constant(1e-4 * matrix) == pytest.approx(kreiss, rel=1e-6)  # in another unit of time


def test_what_never_grows_has_a_kreiss_constant_of_one():
    matrix = spectra.linear_part(one_sample(deep_case(4, 0.3), assumptions="random-feedback"))
    assert spectra.numerical_abscissa(matrix) < 0
    assert transient_growth.kreiss_constant(matrix) == pytest.approx(1, abs=1e-6)


def test_levels_are_the_longest_path():
    # longest path: conv1, conv2, conv3, hidden1, hidden2, hidden3
    assert transient_growth.levels(spectra.linear_part(PROBLEMS["graph"]())) == 6


def test_a_change_of_the_size_reaches_an_eigenvalue_there():
    matrix = spectra.linear_part(amplifying())
    z = spectra.reach(matrix, 1e-4)
    assert z > -1 + 0.1
    left, values, right = np.linalg.svd(z * np.eye(matrix.shape[0]) - matrix.toarray())
    assert values[-1] == pytest.approx(1e-4, rel=1e-6)
    changed = matrix.toarray() + values[-1] * np.outer(left[:, -1], right[-1])
    assert np.abs(eigvals(changed) - z).min() < 1e-6
    assert dense_singular_value(matrix.toarray(), z + 0.05) > 1.1e-4


def test_what_is_not_linear_or_not_one_sample_is_refused():
    case = mlp_case()
    batch = RelaxationProblem.from_batch(case.network, case.x, case.y)
    for problem, text in (
        (batch, "the matrix of a relaxation belongs to one sample, got a batch of 3: give a batch of one."),
        (one_sample(case, assumptions="unfrozen-relaxation"), "needs frozen gains, fixed weights"),
        (one_sample(case, clip=1.0), "needs frozen gains, fixed weights and no clip."),
        (one_sample(case, noise=0.1), "needs a problem without noise and delays: leave them out."),
        (replace(one_sample(case), delays=1.0), "needs a problem without noise and delays: leave them out."),
    ):
        with pytest.raises(ActrelaxError, match=text):
            spectra.linear_part(problem)


def test_what_has_no_answer_is_refused():
    matrix = spectra.linear_part(one_sample(mlp_case()))
    with pytest.raises(ActrelaxError, match=r"^epsilon, the size of a perturbation, must be above 0, got 0\.$"):
        spectra.reach(matrix, 0.0)
    with pytest.raises(ActrelaxError, match=r"^angles must be an even number of directions, got 7\.$"):
        spectra.numerical_range(matrix, 7)
    with pytest.raises(ActrelaxError, match=r"^Kreiss's constant needs a stable A, got "):
        transient_growth.kreiss_constant((-matrix).tocsr())


@pytest.mark.parametrize("name", ["residual", "pre-activation", "multihead"])
def test_captured_networks(name):
    """A is the derivative of PyTorch's vector field; without cycles its eigenvalues are -1/tau."""
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli()).eval()
    problem = RelaxationProblem.from_batch(network, case.stimuli(1), torch.tensor([0]), tau=2.0)
    A = spectra.linear_part(problem)
    state = {population: torch.randn_like(x) for population, x in problem.initial_state().items()}
    silent = {population: torch.zeros_like(x) for population, x in state.items()}
    at, rest = problem.vector_field(state), problem.vector_field(silent)
    expected = torch.cat([(at[population] - rest[population]).flatten() for population in problem.units])
    found = A @ torch.cat([state[population].flatten() for population in problem.units]).numpy()
    assert np.allclose(found, expected.numpy(), rtol=1e-11, atol=1e-12)
    assert spectra.rightmost_eigenvalue(A) == pytest.approx(-0.5)
