"""Integration schemes. Oracles: plain NumPy loops, and the matrix exponential."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import dense_graphs, mlp_case
from reference import Reference, exact_flow, numpy_chain

from actrelax.models._names import look_up
from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import ACTIVATIONS, Projection, build
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]


def numpy_relaxation(name, case, steps, dt, tau):
    """Relax by a scheme written out; x[i] is hidden population i + 1, and the last is the clamped output."""
    W, g, x, clamp = numpy_chain(case)
    x = [*x[:-1], clamp]
    L = len(x) - 1  # hidden layers

    def feedback(x, i):
        return (g[i + 1] * x[i + 1]) @ W[i + 1]

    def slope(x):
        return [(-x[i] + feedback(x, i)) / tau[i] for i in range(L)] + [0 * clamp]

    def along(x, k, h):
        return [a + h * b for a, b in zip(x, k, strict=True)]

    for _ in range(steps):
        if name == "euler":
            x = along(x, slope(x), dt)
        elif name == "sequential":
            for i in reversed(range(L)):
                x[i] = (1 - dt / tau[i]) * x[i] + dt / tau[i] * feedback(x, i)
        elif name == "exponential":
            decay = [np.exp(-dt / t) for t in tau]
            x = [decay[i] * x[i] + (1 - decay[i]) * feedback(x, i) for i in range(L)] + [clamp]
        elif name == "heun":
            k1 = slope(x)
            k2 = slope(along(x, k1, dt))
            x = along(along(x, k1, dt / 2), k2, dt / 2)
        elif name == "rk4":
            k1 = slope(x)
            k2 = slope(along(x, k1, dt / 2))
            k3 = slope(along(x, k2, dt / 2))
            k4 = slope(along(x, k3, dt))
            for k, weight in ((k1, 1), (k2, 2), (k3, 2), (k4, 1)):
                x = along(x, k, dt * weight / 6)
    return x


def hidden_taus(case, kind):
    """Return one tau, one per population, or one per neuron."""
    shapes = [case.network.populations[name].shape for name in case.network.hidden]
    if kind == "one":
        return [0.7] * len(shapes)
    if kind == "population":
        return [0.5 + 0.3 * i for i in range(len(shapes))]
    return [torch.linspace(0.4, 1.6, shape[0]) for shape in shapes]


@pytest.mark.catches("gain dropped in the relaxation")
@pytest.mark.catches("one step too few")
@pytest.mark.catches("tau ignored")
@pytest.mark.catches("old for new values in the sequential sweep")
@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("kind", ["one", "population", "neuron"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_equals_the_scheme_written_out(name, kind, activation):
    case = mlp_case(activation)
    taus = hidden_taus(case, kind)
    expected = numpy_relaxation(name, case, 12, 0.14, [np.asarray(tau) for tau in taus])
    tau = 0.7 if kind == "one" else dict(zip(case.network.hidden, taus, strict=True))
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, tau=tau)
    for evaluation in ("stepped", "auto"):
        final = solve(problem, name, steps=12, dt=0.14, evaluation=evaluation).final
        for x, y in zip(final.values(), expected, strict=True):
            assert relative_error(x, torch.tensor(y)) < 1e-12


@given(
    st.sampled_from(STEPPED),
    st.lists(st.integers(2, 6), min_size=4, max_size=8),
    st.integers(0, 30),
    st.floats(0.01, 1.0),
    st.sampled_from(list(ACTIVATIONS)),
    st.integers(0, 1000),
)
def test_random_chains_equal_the_scheme_written_out(name, widths, steps, eta, activation, seed):
    case = mlp_case(activation, seed=seed, widths=tuple(widths))
    expected = numpy_relaxation(name, case, steps, eta, [1.0] * (len(widths) - 2))
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    for evaluation in ("stepped", "closed-form"):
        final = solve(problem, name, steps=steps, eta=eta, evaluation=evaluation).final
        for x, y in zip(final.values(), expected, strict=True):
            assert relative_error(x, torch.tensor(y)) < 1e-12


@given(dense_graphs(), st.sampled_from(["euler", "sequential"]), st.integers(0, 20), st.floats(0.01, 1.0))
def test_random_graphs_equal_the_scheme_written_out(case, name, steps, eta):
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    evaluations = ("stepped", "closed-form")
    finals = [solve(problem, name, steps=steps, eta=eta, evaluation=evaluation).final for evaluation in evaluations]
    for sample in range(len(case.x)):
        reference = Reference(case, sample, PRESETS["ar"])
        state = reference.relax(name, steps, eta, problem.clamped[sample].numpy())
        for population, x in [item for final in finals for item in final.items()]:
            scale = max(np.abs(state[population]).max(), np.abs(reference.xbar[population]).max() * (1 - eta) ** steps)
            assert relative_error(x[sample], torch.tensor(state[population]), magnitude=torch.tensor(scale)) < 1e-12


def test_the_schemes_differ_here():
    """The test network distinguishes the schemes, which the tests above rely on."""
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    lowest = [solve(problem, name, steps=12, eta=0.2, evaluation="stepped").final["hidden1"] for name in STEPPED]
    for i in range(len(lowest)):
        for j in range(i):
            assert relative_error(lowest[i], lowest[j]) > 1e-5


@pytest.mark.catches("states as coarse as the weights")
@pytest.mark.parametrize("name", [name for name, scheme in INTEGRATORS.items() if scheme.takes_time])
def test_in_bfloat16_a_relaxation_arrives(name):
    """1000 small steps settle completely; a bfloat16 state would stop about ten percent before."""
    network = build("mlp-3x12", input_shape=(64,), generator=torch.Generator().manual_seed(0)).bfloat16()
    x, y = torch.rand(8, 64, dtype=torch.bfloat16), torch.arange(8)
    problem = RelaxationProblem.from_batch(network, x, y)
    expected = solve(problem, "equilibrium").final
    for evaluation in ("stepped", "closed-form"):
        arrived = solve(problem, name, steps=1000, eta=0.02, evaluation=evaluation).final
        for population in network.hidden:
            assert arrived[population].dtype == torch.float32
            assert relative_error(arrived[population], expected[population]) < 0.01


@pytest.mark.catches("a stage of rk4 at the wrong time")
@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("tau", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.6)])
def test_order_of_convergence(name, tau):
    """The slope of the error between successive halvings, dt/tau = 1/16 to 1/256, is the declared order."""
    case = mlp_case()
    exact = exact_flow(case, 2.0, tau)
    problem = RelaxationProblem.from_batch(
        case.network, case.x, case.y, tau=dict(zip(case.network.hidden, tau, strict=True))
    )
    errors = []
    for inverse in (16, 32, 64, 128, 256):
        final = solve(problem, name, dt=1 / inverse, duration=2.0, evaluation="stepped").final
        errors.append((torch.cat(list(final.values()), 1) - exact).norm())
    slopes = [math.log2(errors[i] / errors[i + 1]) for i in range(len(errors) - 1)]
    assert slopes == pytest.approx([INTEGRATORS[name].order] * 4, abs=0.1)


@pytest.mark.parametrize("name", [name for name in STEPPED if INTEGRATORS[name].stability_limit < math.inf])
def test_stability_limit_is_where_a_lone_unit_stops_to_decay(name):
    """A hidden layer without feedback shrinks just below the limit, and grows just above it."""
    case = mlp_case()
    for projection in case.network.projections.values():
        torch.nn.init.zeros_(projection.weight)
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    limit = INTEGRATORS[name].stability_limit
    start = problem.initial_state()
    for factor, grows in ((0.99, False), (1.01, True)):
        state = INTEGRATORS[name].step(problem, start, factor * limit)
        assert bool((state["hidden1"].abs() > start["hidden1"].abs()).all()) is grows


@pytest.mark.parametrize("name", INTEGRATORS)
@pytest.mark.parametrize("evaluation", ["stepped", "closed-form"])
def test_feedback_applications_are_counted(name, evaluation, monkeypatch):
    calls = []
    original = Projection.feedback_from_weights
    monkeypatch.setattr(
        Projection, "feedback_from_weights", lambda *args: calls.append(len(args[1])) or original(*args)
    )
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    trajectory = solve(problem, name, evaluation=evaluation, **({} if name == "equilibrium" else {"steps": 7}))
    assert trajectory.evaluation == evaluation
    # the closed form's vectors travel in the batch dimension
    assert trajectory.feedback_applications == sum(calls) / len(case.x) > 0


def test_an_integrator_of_your_own():
    euler = INTEGRATORS["euler"]
    assert look_up("integrator", euler, INTEGRATORS) is euler
    with pytest.raises(ActrelaxError, match=r"^unknown integrator 'rk5'; known: euler, sequential, heun, rk4"):
        look_up("integrator", "rk5", INTEGRATORS)
