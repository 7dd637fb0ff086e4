"""Projections and problems as sparse matrices. Oracles: the projections themselves, and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import convolutional_chains, dense_graphs, graph_case, mlp_case, pipelines, runs
from torch import nn
from torch.autograd.functional import jacobian

from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import SparseProblem, vector
from actrelax.models.network import Projection
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def assert_is_its_matrix(stages, shape, seed=0):
    """Check that matrix @ x is the drive without bias along the batch's route, and matrix.T @ y the feedback."""
    torch.manual_seed(seed)
    x, other = torch.randn(2, 3, *shape)
    projection = Projection("a", "b", *(stage.double() for stage in stages))
    with torch.no_grad():
        drive, route = projection.find(x)
        silent = projection.drive(torch.zeros_like(x), route)
        matrix = projection.as_sparse(route, projection.weight)
        assert matrix.shape == (drive.numel(), x.numel())
        applied = torch.from_numpy(matrix @ vector(other)).view(drive.shape)
        assert relative_error(applied, projection.drive(other, route) - silent) < 1e-13
        y = torch.randn_like(drive)
        for weight in (projection.weight, None if projection.weight is None else torch.randn_like(projection.weight)):
            back = torch.from_numpy(projection.as_sparse(route, weight).T @ vector(y)).view(x.shape)
            assert relative_error(back, projection.feedback_signal(y, route, weight)) < 1e-13
    return matrix, route


@pytest.mark.parametrize(
    ("stages", "shape"),
    [
        ([], (2, 3)),
        ([nn.Flatten()], (2, 3, 4)),
        ([nn.Linear(7, 5)], (7,)),
        ([nn.Flatten(), nn.Linear(24, 5)], (2, 3, 4)),
        ([nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1), groups=2)], (4, 7, 6)),
        ([nn.Conv2d(3, 3, 3, padding="same", groups=3, bias=False)], (3, 5, 6)),
        ([nn.MaxPool2d(3, stride=1)], (2, 6, 5)),
        ([nn.MaxPool2d((2, 3), stride=(1, 2), padding=1, dilation=(2, 1), ceil_mode=True)], (2, 7, 6)),
        ([nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True)], (2, 6, 8)),
        ([nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)], (2, 6, 8)),
        ([nn.AvgPool2d((2, 3), stride=1, divisor_override=5)], (2, 6, 5)),
        ([nn.AvgPool2d(4, stride=3)], (1, 18, 17)),  # more pixels than are processed at once
        ([nn.MaxPool2d(2, 1), nn.Conv2d(2, 4, 2), nn.AvgPool2d(2), nn.Flatten()], (2, 7, 8)),
    ],
    ids=lambda value: " ".join(type(stage).__name__ for stage in value) or "copy" if isinstance(value, list) else None,
)
def test_each_kind_of_projection(stages, shape):
    assert_is_its_matrix(stages, shape)


@given(pipelines(), st.integers(0, 1000))
def test_random_pipelines(stages, seed):
    if runs(stages, torch.zeros(3, 2, 9, 10)):
        assert_is_its_matrix(stages, (2, 9, 10), seed)


def test_samples_take_their_own_routes():
    matrix, route = assert_is_its_matrix([nn.MaxPool2d(3, stride=1)], (1, 6, 5))
    winners = route.before[0].winners.flatten(1)
    assert not torch.equal(winners[0], winners[1])
    blocks = [matrix[12 * i : 12 * (i + 1), 30 * i : 30 * (i + 1)].toarray() for i in range(3)]
    assert matrix.nnz == sum(np.count_nonzero(block) for block in blocks) == 36
    assert (blocks[0] != blocks[1]).any()


def random_state(problem, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {v: torch.randn(x.shape, generator=generator) for v, x in problem.initial_state().items()}


def joined(flat, state):
    return flat.join({v: vector(x) for v, x in state.items()})


def assert_same_field(problem, seed=0):
    flat, state = SparseProblem(problem), random_state(problem, seed)
    ours = problem.vector_field(state)
    theirs = flat.as_tensors(flat.split(flat.vector_field(joined(flat, state))))
    assert list(theirs) == list(ours)
    for name, x in ours.items():
        scale = torch.stack([state[name].abs().max(), x.abs().max()])
        assert relative_error(theirs[name], x, magnitude=scale) < 1e-13


LIFTED = {
    "nothing": {},
    "tau": {"tau": {"hidden1": torch.linspace(0.4, 1.6, 7).double(), "conv2": 0.7}},
    "clip": {"clip": 0.7},
    "transform": {"feedback_transform": "quantised-4"},
    "dynamics": {"dynamics": {"conv1": UnitDynamics.second_order(0.8, 0.4)}},
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fields", LIFTED.values(), ids=LIFTED)
def test_the_vector_field_is_the_problems(preset, fields, generator):
    case = graph_case()
    case.network.add_feedback(preset, generator)
    assert_same_field(problem_of(case, assumptions=preset, **fields))


@given(st.one_of(dense_graphs(), convolutional_chains()), st.sampled_from(["ar", "unfrozen"]), st.integers(0, 1000))
def test_random_networks(case, preset, seed):
    assert_same_field(problem_of(case, assumptions=preset), seed)


def test_a_network_in_single_precision_is_solved_in_double():
    case = graph_case()
    single = graph_case()
    single.network.float()
    problem = RelaxationProblem.from_batch(single.network, single.x.float(), single.y, assumptions="unfrozen")
    flat = SparseProblem(problem)
    assert flat.vector_field(flat.initial_state).dtype == np.float64
    double = SparseProblem(problem_of(case, assumptions="unfrozen"))
    ours, theirs = (f.vector_field(f.initial_state) for f in (flat, double))
    assert 1e-10 < np.abs(ours - theirs).max() < 1e-5


def test_join_and_split_undo_each_other():
    flat = SparseProblem(problem_of(graph_case(), dynamics=LIFTED["dynamics"]["dynamics"]))
    y = np.random.default_rng(0).normal(size=flat.initial_state.size)
    state = flat.split(y)
    assert list(state) == list(flat.problem.initial_state())
    assert np.array_equal(flat.join(state), y)


CURVED = {
    "frozen": {},
    "neuron": {"tau": {"hidden1": torch.linspace(0.4, 1.6, 7).double(), "hidden2": 0.7}},
    "current": {"assumptions": "unfrozen"},
    "mixed": {"assumptions": "unfrozen", "tau": {"hidden2": torch.linspace(0.4, 1.6, 6).double()}, "clip": 0.4},
    "dynamics": {
        "assumptions": "unfrozen",
        "dynamics": {
            "hidden1": UnitDynamics(((-1, 0.5, 0), (-0.3, -2, 1), (0.2, 0, -0.7)), (0.4, 1, -0.6), (1, 0.5, 2)),
            "hidden2": UnitDynamics.synaptic_filter(1.1, 0.3),
        },
    },
}


def autograd_jacobian(problem, state, monkeypatch):
    """Return the Jacobian of the problem's vector field, by PyTorch."""
    monkeypatch.setattr(RelaxationProblem, "feedback", RelaxationProblem.feedback.__wrapped__)
    shapes = {v: x.shape for v, x in state.items()}

    def field(y):
        parts = torch.split(y, [shape.numel() for shape in shapes.values()])
        given = {v: part.view(shapes[v]) for v, part in zip(shapes, parts, strict=True)}
        return torch.cat([x.reshape(-1) for x in problem.vector_field(given).values()])

    return jacobian(field, torch.cat([x.reshape(-1) for x in state.values()]))


@pytest.mark.parametrize("fields", CURVED.values(), ids=CURVED)
@pytest.mark.parametrize("activation", ["tanh", "softplus", "relu", "gelu"])
def test_the_jacobian_is_autograds(fields, activation, monkeypatch):
    """It includes the curvature of current gains through the drives, and is zero where the clip is active."""
    case = mlp_case(activation)
    problem, flat = problem_of(case, **fields), SparseProblem(problem_of(case, **fields))
    state = random_state(problem)
    found = flat.jacobian(joined(flat, state)).toarray()
    expected = autograd_jacobian(problem, state, monkeypatch)
    assert relative_error(torch.from_numpy(found), expected) < 1e-12
    if "clip" in fields:
        held = (expected == 0).all(1)
        assert 0 < held.sum() < len(held)


@pytest.mark.parametrize("preset", ["ar", "unfrozen", "no-derivatives-conv"])
def test_the_jacobian_of_a_graph_is_autograds(preset, monkeypatch):
    case = graph_case()
    case.x, case.y = case.x[:2], case.y[:2]
    problem = problem_of(case, assumptions=preset)
    state = random_state(problem)
    flat = SparseProblem(problem)
    found = flat.jacobian(joined(flat, state)).toarray()
    frozen = SparseProblem(problem_of(case)).jacobian(joined(flat, state)).toarray()
    assert preset == "ar" or np.abs(found - frozen).max() > 1e-3
    assert relative_error(torch.from_numpy(found), autograd_jacobian(problem, state, monkeypatch)) < 1e-12


def test_a_skip_beside_weights_adds_up():
    """Two projections between the same populations, one of them a copy, with current gains."""
    case = graph_case()
    between = [p.name for p in case.network.projections.values() if (p.source, p.target) == ("hidden2", "hidden3")]
    assert len(between) == 2
    flat = SparseProblem(problem_of(case, assumptions="unfrozen"))
    matrix = flat.drives["hidden3"].matrices["hidden2"].toarray()
    weight = case.network.projections["hidden2->hidden3"].weight.detach().numpy()
    assert np.abs(matrix - np.kron(np.eye(3), weight + np.eye(6))).max() < 1e-14
