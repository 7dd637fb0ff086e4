"""Matrices of captured networks: PyTorch's feedback unit by unit, and the same relaxations on all engines."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from modules import MODULES
from torch import nn

from actrelax import (
    PRESETS,
    ActrelaxError,
    Assumptions,
    Brian2Options,
    Knobs,
    Network,
    RelaxationProblem,
    SciPyOptions,
    solve,
)
from actrelax.models.engines import captured_feedback
from actrelax.models.engines.captured_feedback import CapturedFeedback
from actrelax.models.engines.sparse_problem import SparseProblem
from actrelax.models.engines.sparse_system import vector
from actrelax.models.results import relative_error

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


def differs_in_training(name):
    layers = nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._InstanceNorm
    return any(isinstance(module, layers) for module in MODULES[name].make().modules())


@pytest.mark.parametrize(
    ("name", "training"), [(n, t) for n in CAPTURED for t in (True, False) if t or differs_in_training(n)]
)
def test_all_engines_relax_alike(name, training):
    problem = problem_of(name, training)
    tight = SciPyOptions(rtol=1e-12, atol=1e-14)
    same(solve(problem, "DOP853", 12, eta=0.2, options=tight), solve(problem, "exact", 12, eta=0.2), 1e-10)
    stepped = solve(problem, "euler", 12, eta=0.2, evaluation="stepped")
    same(solve(problem, "euler", 12, eta=0.2, engine="brian2"), stepped, 1e-12)


def assert_same_field(problem):
    flat = SparseProblem(problem)
    state = {population: torch.randn_like(x) for population, x in problem.initial_state().items()}
    found = flat.split(flat.vector_field(flat.join({k: vector(x) for k, x in state.items()})))
    for population, rate in problem.vector_field(state).items():
        assert torch.allclose(torch.from_numpy(found[population]), rate.flatten(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["batch-norm", "transformer", "pre-activation", "class-token"])
def test_the_vector_field_is_pytorchs(name):
    assert_same_field(problem_of(name))


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
    same(solve(problem, "euler", 12, eta=0.2, evaluation="closed-form"), stepped, 1e-12)
    assert_same_field(problem)
    for feedback in network.feedback.root.parameters():
        with torch.no_grad():
            feedback.mul_(1.5)
    assert_same_field(problem)
    if name == "multihead":
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


def images(pool=None):
    """Convolutions and dense layers, each with a smooth function; optionally with a pool after one."""
    torch.manual_seed(0)
    pooled = [] if pool is None else [pool]
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 3, 2), nn.Softplus(), *pooled, nn.Flatten(),
        nn.Linear(27 if pool is None else 12, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(),
    )  # fmt: skip


def unfrozen(module, preset="unfrozen-relaxation", shape=(1, 6, 6), built=False, **fields):
    torch.manual_seed(1)
    x, y = torch.randn(3, *shape), torch.tensor([0, 1, 2])
    network = Network.from_sequential(module, shape) if built else Network.from_module(module, x)
    network.add_feedback(preset, 3)
    return RelaxationProblem.from_batch(network, x, y, assumptions=preset, **fields)


TIGHT = SciPyOptions(rtol=1e-12, atol=1e-14)


def test_current_gains_are_those_of_a_hand_built_network():
    captured, built = unfrozen(images()), unfrozen(images(), built=True)
    for engine, integrator, options in (("scipy", "DOP853", TIGHT), ("brian2", "euler", Brian2Options())):
        runs = [solve(p, integrator, 12, eta=0.2, engine=engine, options=options).final for p in (captured, built)]
        for x, y in zip(*(run.values() for run in runs), strict=True):
            assert relative_error(x.flatten(), y.flatten()) < 1e-12
    frozen = solve(unfrozen(images(), "ar"), "euler", 12, eta=0.2).final
    assert relative_error(frozen["2"], runs[0]["2"]) > 1e-3


class Branches(nn.Module):
    """Drives of several populations, a copy, a norm with frozen gains, and a function of a relay."""

    def __init__(self, relay=False):
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.top, self.head, self.relay = nn.LayerNorm(6), nn.Linear(6, 5), nn.Linear(5, 3), relay

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        y = F.silu(self.left(x) + x)
        if self.relay:
            return self.head(self.top(y)) + self.head(self.top(torch.tanh(y)))
        z = self.norm(torch.tanh(self.right(y)) + x)
        return self.head(torch.sigmoid(self.top(z) + self.top(y)))


def normed():
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Sigmoid(), nn.Linear(5, 3)
    ).eval()


class Hooked(nn.Module):
    """Three layers, with a hook at a population."""

    def __init__(self):
        super().__init__()
        self.stem, self.below, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.sigmoid(self.below(torch.tanh(self.stem(x))))
        x.register_hook(lambda signal: signal * torch.linspace(1, 3, 6))
        return self.head(x)


BESIDE_A_NORM = {name: Knobs(activity_gain="current") for name in ("left", "stem->left", "top", "top#2")}
CURRENT = {
    "learned": (images, Assumptions(dense=Knobs("learned", "current"), conv=Knobs("learned", "current")), (1, 6, 6)),
    "dense": (images, Assumptions(dense=Knobs(activity_gain="current"), conv=Knobs(activity_gain="none")), (1, 6, 6)),
    "average": (lambda: images(nn.AvgPool2d(2, 1)), "unfrozen-relaxation", (1, 6, 6)),
    "maximum": (lambda: images(nn.MaxPool2d(2, 1)), "unfrozen-relaxation", (1, 6, 6)),
    "hook": (Hooked, "unfrozen-relaxation", (4,)),
    "evaluation": (normed, "unfrozen-relaxation", (4,)),
    "norm": (Branches, Assumptions(projections=BESIDE_A_NORM), (4,)),
}


@pytest.mark.catches("stimulus left out of the present drive")
@pytest.mark.parametrize("name", CURRENT)
def test_the_vector_field_has_current_gains(name):
    make, assumptions, shape = CURRENT[name]
    torch.manual_seed(0)
    problem = unfrozen(make(), assumptions, shape)
    flat = SparseProblem(problem)
    assert "current" in {c.gain for c in flat.connections.values()}
    state = {population: torch.randn_like(x) for population, x in problem.initial_state().items()}
    y = flat.join({k: vector(x) for k, x in state.items()})
    found = flat.split(flat.vector_field(y))
    for population, rate in problem.vector_field(state).items():
        assert relative_error(torch.from_numpy(found[population]), rate.flatten()) < 1e-12
    way = np.random.default_rng(0).standard_normal(len(y))
    change = (flat.vector_field(y + 1e-6 * way) - flat.vector_field(y - 1e-6 * way)) / 2e-6
    assert np.abs(flat.jacobian(y) @ way - change).max() < 1e-7 * np.abs(change).max()


@pytest.mark.parametrize("name", ["average", "maximum", "norm"])
def test_brian2_has_current_gains(name):
    """Behind a pool the units of the function are neurons of their own, which the delay lines read."""
    make, assumptions, shape = CURRENT[name]
    torch.manual_seed(0)
    projections = unfrozen(make(), assumptions, shape).feedback_projections
    delays = {p: 0.2 * (i % 3) for i, p in enumerate(projections)}
    problem = unfrozen(make(), assumptions, shape, delays=delays)
    same(solve(problem, "euler", 12, eta=0.2, engine="brian2"), solve(problem, "euler", 12, eta=0.2), 1e-12)


@pytest.mark.parametrize("integrator", ["RK45", "brian2:rk4"])
def test_the_current_gain_of_a_relay_is_refused(integrator):
    torch.manual_seed(0)
    problem = unfrozen(Branches(relay=True), shape=(4,))
    sentence = r"relay \"left'\" applies a pointwise function but has no drive, so its current gain"
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem, integrator, 5, eta=0.1)


def test_brian2_needs_a_formula():
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 3))
    problem = unfrozen(module, shape=(4,))
    with pytest.raises(ActrelaxError) as refused:
        solve(problem, "euler", 5, eta=0.1, engine="brian2")
    assert str(refused.value).endswith(
        "activation 'gelu' of population '2' has no formula for Brian2: let the module use one of identity, tanh, "
        'relu, leaky-relu, sigmoid, softplus, silu, elu, hardtanh, relu6, gelu(approximate="tanh").'
    )
    same(solve(problem, "DOP853", 5, eta=0.2, options=TIGHT), solve(problem, "rk4", 200, eta=0.005), 1e-10)


@pytest.mark.parametrize("integrator", ["RK45", "brian2:rk4"])
def test_too_many_units_are_refused(monkeypatch, integrator):
    problem = problem_of("residual")
    monkeypatch.setattr(captured_feedback, "MOST_UNITS", 100)
    with pytest.raises(
        ActrelaxError, match=r"take at most 100 units, got [\d,]+: take a smaller network, a smaller ba"
    ):
        solve(problem, integrator, 5, eta=0.1)
