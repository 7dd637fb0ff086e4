"""Matrices of captured networks: PyTorch's feedback unit by unit, and the same relaxations on all engines."""

import pytest
import torch
from modules import MODULES

from actrelax import PRESETS, ActrelaxError, Network, RelaxationProblem, SciPyOptions, solve
from actrelax.models.engines import captured_feedback
from actrelax.models.engines.captured_feedback import CapturedFeedback
from actrelax.models.engines.sparse_problem import SparseProblem
from actrelax.models.engines.sparse_system import vector

CAPTURED = [name for name, case in MODULES.items() if case.refused is None]
LOSS = "half-sum-of-squares"


def problem_of(name, training=True, batch=3, **fields):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli(), output=case.output, paths=case.paths).train(training)
    x = case.stimuli(batch, seed=5)
    y = torch.randn(network(x).shape)
    torch.manual_seed(1)
    return RelaxationProblem.from_batch(network, x, y, loss=LOSS, **fields)


def same(found, expected, bound):
    for name, x in expected.final.items():
        assert float((found.final[name] - x).abs().max()) <= bound * float(x.abs().max()), name


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", CAPTURED)
def test_all_engines_relax_alike(name, training):
    problem = problem_of(name, training)
    tight = SciPyOptions(rtol=1e-12, atol=1e-14)
    same(solve(problem, "DOP853", 12, eta=0.2, options=tight), solve(problem, "exact", 12, eta=0.2), 1e-10)
    stepped = solve(problem, "euler", 12, eta=0.2, evaluation="stepped")
    same(solve(problem, "euler", 12, eta=0.2, engine="brian2"), stepped, 1e-12)


@pytest.mark.parametrize("name", ["batch-norm", "transformer", "pre-activation", "class-token"])
def test_the_vector_field_is_pytorchs(name):
    problem = problem_of(name)
    flat = SparseProblem(problem)
    state = {population: torch.randn_like(x) for population, x in problem.initial_state().items()}
    found = flat.split(flat.vector_field(flat.join({k: vector(x) for k, x in state.items()})))
    for population, rate in problem.vector_field(state).items():
        assert torch.allclose(torch.from_numpy(found[population]), rate.flatten(), rtol=1e-12, atol=1e-13)


FROZEN = [
    name
    for name, preset in PRESETS.items()
    if not preset.is_continuous and all("current" not in (k.activity_gain, k.weight_gain) for k in preset.all_knobs)
]


@pytest.mark.parametrize("preset", FROZEN)
@pytest.mark.parametrize("name", ["residual", "pre-activation", "multihead"])
def test_assumptions_are_part_of_the_matrices(name, preset):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli())
    network.add_feedback(preset, 3)
    x = case.stimuli(3, seed=5)
    problem = RelaxationProblem.from_batch(network, x, torch.tensor([0, 1, 2]), assumptions=preset)
    stepped = solve(problem, "euler", 12, eta=0.2, evaluation="stepped")
    same(solve(problem, "euler", 12, eta=0.2, engine="brian2"), stepped, 1e-12)
    same(solve(problem, "euler", 12, eta=0.2, evaluation="closed-form"), stepped, 1e-12)
    for feedback in network.feedback.parameters():
        with torch.no_grad():
            feedback.mul_(1.5)
    stepped = solve(problem, "euler", 12, eta=0.2, evaluation="stepped")
    same(solve(problem, "euler", 12, eta=0.2, engine="brian2"), stepped, 1e-12)


@pytest.mark.parametrize(("name", "mixes"), [("batch-norm", True), ("layer-norm", False), ("pre-activation", False)])
def test_one_block_per_sample_where_samples_do_not_mix(name, mixes):
    problem = problem_of(name)
    for feedback in SparseProblem(problem).feedback.values():
        rows, columns = (size // 3 for size in feedback.matrix.shape)
        apart = feedback.matrix.toarray()[:rows, columns:]
        if feedback.connection.target != "output":  # which no norm follows
            assert bool(apart.any()) is mixes
    assert CapturedFeedback(problem).units == sum(
        CapturedFeedback(problem)._units_of(name) for name in problem.network.path.names
    )


def test_zeros_are_dropped():
    problem = problem_of("residual", training=False)
    matrices = [feedback.matrix for feedback in SparseProblem(problem).feedback.values()]
    assert all(matrix.data.all() for matrix in matrices)
    assert sum(m.nnz for m in matrices) < 0.2 * sum(m.shape[0] * m.shape[1] for m in matrices)


def test_delays_add_up_past_relays():
    problem = problem_of("pre-activation", False)
    delays = {name: 0.1 * (1 + i % 3) for i, name in enumerate(problem.feedback_projections)}
    problem = problem_of("pre-activation", False, delays=delays)
    same(solve(problem, "euler", 15, dt=0.1, engine="brian2"), solve(problem, "euler", 15, dt=0.1), 1e-12)


def test_time_constants_per_neuron_and_noise():
    problem = problem_of("multihead", False)
    shapes = {name: p.shape for name, p in problem.network.populations.items() if name in problem.network.hidden}
    taus = {name: 1 + torch.rand(shape) for name, shape in shapes.items()}
    problem = problem_of("multihead", False, tau=taus)
    tight = SciPyOptions(rtol=1e-11, atol=1e-14)
    same(solve(problem, "DOP853", dt=0.1, duration=3.0, options=tight), solve(problem, "rk4", 1200, dt=0.0025), 1e-9)
    same(solve(problem, "euler", 15, dt=0.1, engine="brian2"), solve(problem, "euler", 15, dt=0.1), 1e-12)
    noisy = problem_of("layer-norm", False, noise=0.1)
    first, second = (solve(noisy, "euler", 5, eta=0.1, engine="brian2", generator=g).final for g in (1, 2))
    assert not torch.equal(first[noisy.network.hidden[0]], second[noisy.network.hidden[0]])


def test_matrices_are_made_once_per_problem(monkeypatch):
    calls = []
    problem = problem_of("residual")
    transpose = CapturedFeedback._transpose
    monkeypatch.setattr(CapturedFeedback, "_transpose", lambda self, name: calls.append(name) or transpose(self, name))
    solve(problem, "RK45", 5, eta=0.1)
    solve(problem, "euler", 5, eta=0.1, engine="brian2")
    assert len(calls) == len(set(calls)) == len([n for n in problem.network.path.names if n != "stem"])
    with torch.no_grad():
        next(problem.network.parameters()).add_(1.0)
    with pytest.raises(ActrelaxError, match="a weight has changed in place since the forward pass"):
        solve(problem, "RK45", 5, eta=0.1)


@pytest.mark.parametrize("integrator", ["RK45", "brian2:rk4"])
def test_too_many_units_are_refused(monkeypatch, integrator):
    problem = problem_of("residual")
    monkeypatch.setattr(captured_feedback, "MOST_UNITS", 100)
    with pytest.raises(
        ActrelaxError, match=r"take at most 100 units, got [\d,]+: take a smaller network, a smaller ba"
    ):
        solve(problem, integrator, 5, eta=0.1)
