"""The closed form of captured networks: equal to their steps, for a few transposes of each piece."""

import numpy as np
import pytest
import torch
from modules import MODULES

from actrelax import ActrelaxError, Network, RelaxationProblem, solve
from actrelax.models.closed_form import Generators, captured, plan_applications, plan_of, settled_plan, stream_captured
from actrelax.models.closed_form.captured import whole_graph
from actrelax.models.integrators import EULER, SEQUENTIAL
from actrelax.models.network import build_module

CAPTURED = [name for name, case in MODULES.items() if case.refused is None]
LOSS = "half-sum-of-squares"


def make(name, training=True):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli(), output=case.output, paths=case.paths)
    return case, network.train(training)


def problem_of(name, training, **fields):
    case, network = make(name, training)
    x = case.stimuli(3, seed=5)
    y = torch.randn(network(x).shape)
    torch.manual_seed(1)
    return RelaxationProblem.from_batch(network, x, y, loss=LOSS, **fields)


def assert_same(problem, integrator, steps, **size):
    stepped = solve(problem, integrator, steps, evaluation="stepped", **size)
    closed = solve(problem, integrator, steps, evaluation="closed-form", **size)
    assert list(closed.final) == list(stepped.final)
    for name, x in stepped.final.items():
        assert float((closed.final[name] - x).abs().max()) <= 1e-12 * float(x.abs().max()), name
    return closed


@pytest.mark.parametrize("start", ["feedforward", "zero"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", CAPTURED)
def test_equals_steps(name, training, start):
    """With GroupNorm, BatchNorm over the batch and as constants, LayerNorm, and without a norm."""
    problem = problem_of(name, training, start=start)
    for integrator in (EULER, SEQUENTIAL):
        for steps in (20, 200):
            assert_same(problem, integrator, steps, eta=0.1)


@pytest.mark.parametrize("name", ["residual", "u-shape", "pre-activation", "shifted", "class-token", "overwritten"])
def test_large_vectors_go_one_by_one(name, monkeypatch):
    monkeypatch.setattr(captured, "LARGE", 0)
    for start in ("feedforward", "zero"):
        assert_same(problem_of(name, True, start=start), SEQUENTIAL, 20, eta=0.1)


def test_combined_changes_only_what_nothing_else_reads(generator):
    """The product with a matrix, in place where a column has one reader and the input is spare."""
    given = [torch.randn(3, 4, generator=generator) for _ in range(4)]
    matrix = np.array([[0.5, 2.0, 0.0, 1.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
    expected = torch.einsum("ij,jkl->ikl", torch.from_numpy(matrix), torch.stack(given))
    inputs = [x.clone() for x in given]
    found = captured.combined(Generators(True, matrix, {}), inputs, spare={2, 3})
    assert torch.allclose(torch.stack(found), expected)
    assert found[1] is inputs[2]  # one reader
    assert found[2] is inputs[3]
    for number in (0, 1, 3):
        assert torch.equal(inputs[number], given[number])
    assert not captured.combined(Generators(True, np.zeros((1, 1)), {}), given[:1], set())[0].any()
    silent = captured.combined(Generators(True, matrix[:1], {}), [given[0], None, None, given[3]], set())
    assert torch.allclose(silent[0], 0.5 * given[0] + given[3])


@pytest.mark.parametrize("integrator", ["heun", "rk4", "exponential", "exact"])
@pytest.mark.parametrize("name", ["residual", "pre-activation", "transformer"])
def test_other_integrators(name, integrator):
    assert_same(problem_of(name, training=False), integrator, 9, eta=0.2)


@pytest.mark.parametrize("name", ["batch-norm", "layer-norm"])
def test_chains_with_several_time_constants(name):
    """A relay, the LayerNorm here, takes no time between two populations."""
    _, network = make(name)
    taus = {population: 1.0 + i for i, population in enumerate(network.hidden)}
    assert_same(problem_of(name, True, tau=taus), SEQUENTIAL, 12, dt=0.2)


def test_a_given_start():
    problem = problem_of("residual", False)
    start = {name: torch.randn_like(x) for name, x in problem.initial_state().items()}
    assert_same(problem_of("residual", False, start=start), EULER, 15, eta=0.2)


def test_one_transpose_of_a_piece_per_vector(monkeypatch):
    """ResNet-8 has 7 populations; a hundred steps of 0.1 take 700 transposes."""
    network = Network.from_module(build_module("digits-resnet-8", generator=0), torch.rand(3, 1, 8, 8))
    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    counts = {}
    for start in ("feedforward", "zero"):
        problem = RelaxationProblem.from_batch(network, x, y, start=start)
        calls, transposed = [], type(problem.feedforward).transposed
        monkeypatch.setattr(
            type(problem.feedforward),
            "transposed",
            lambda self, *a, transposed=transposed, calls=calls, **k: calls.append(1) or transposed(self, *a, **k),
        )
        closed = assert_same(problem, SEQUENTIAL, 100, eta=0.1)
        calls.clear()
        solve(problem, SEQUENTIAL, 100, eta=0.1)
        counts[start] = len(calls)
        monkeypatch.undo()
        plan = plan_of(problem, SEQUENTIAL, dt=0.1, steps=100)
        assert closed.feedback_applications == plan_applications(plan, problem.network)
    assert counts == {"feedforward": 16, "zero": 10}


def test_relays_hold_what_they_receive():
    problem = problem_of("pre-activation", False)
    network = problem.network
    assert network.relays
    plan = plan_of(problem, EULER, dt=0.2, steps=9)
    final = solve(problem, EULER, 9, eta=0.2, evaluation="stepped")
    with torch.no_grad():
        found = dict(stream_captured(problem, plan))
    assert list(found) == list(whole_graph(network).order)
    for relay in network.relays:
        expected = problem.activity_of(relay, final.state)
        assert torch.allclose(found[relay], expected, rtol=1e-12, atol=1e-14)


def test_nothing_is_sent_without_steps():
    problem = problem_of("pre-activation", False, start="zero")
    final = solve(problem, EULER, 0, eta=0.1).final
    assert not any(bool(final[name].any()) for name in problem.network.hidden)
    assert_same(problem_of("pre-activation", False), EULER, 0, eta=0.1)


def test_the_plan_at_equilibrium_is_the_settled_one():
    problem = problem_of("residual", True)
    network = problem.network
    from actrelax.models.integrators import EQUILIBRIUM

    assert plan_of(problem, EQUILIBRIUM, dt=1.0, steps=1) is settled_plan(network.graph)


class Complex(torch.nn.Module):
    """A complex tensor that two populations need."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two, self.head = (torch.nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        z = torch.complex(self.stem(x), self.stem(x).tanh())
        return self.head(torch.tanh(self.one(z.real) + z.imag) + (z * z).real)


def test_complex_populations_are_refused_as_when_they_are_stepped():
    network = Network.from_module(Complex(), torch.rand(3, 6))
    assert any(x.is_complex() for x in network.feedforward(torch.rand(3, 6)).activities.values())
    for start in ("feedforward", "zero"):
        problem = RelaxationProblem.from_batch(network, torch.rand(3, 6), torch.tensor([0, 1, 2]), start=start)
        for evaluation in ("stepped", "closed-form"):
            with pytest.raises(ActrelaxError, match="is complex, and has no real state to step"):
                solve(problem, "euler", 10, evaluation=evaluation)
