"""Unit dynamics. Oracles: matrix exponential, `solve_ivp` of the equations in docstrings, backprop's gradient."""

import math

import numpy as np
import pytest
import torch
from brian2 import ms
from networks import graph_case, mlp_case
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from torch import nn

from actrelax.models.closed_form import uncovered
from actrelax.models.engines import INTEGRATORS, SciPyOptions, Steps, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Network, Projection
from actrelax.models.problem import Leaky, RelaxationProblem, StateSpace, UnitDynamics
from actrelax.models.results import relative_error

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]
DYNAMICS = {
    "ringing": UnitDynamics.second_order(tau=0.8, damping=0.4),
    "synapse": UnitDynamics.synaptic_filter(tau=1.1, tau_synapse=0.3),
    "adapting": UnitDynamics.adapting(tau=0.6, tau_adaptation=2.5, strength=1.7),
    "third order": UnitDynamics(((-1, 0.5, 0), (-0.3, -2, 1), (0.2, 0, -0.7)), (0.4, 1, -0.6), (1, 0.5, 2)),
}
GAIN_ONE = [name for name in DYNAMICS if name != "third order"]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


X, U, TAU = np.array([[0.7, -0.2], [1.5, 0.1]]), np.array([[-0.3, 0.9], [0.4, 0.15]]), np.array([0.5, 1.7])


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("tau", [0.7, "neuron"])
def test_a_leaky_unit_written_out(clip, tau):
    """tau x' = clip(-x + u), by Euler's step and by the exact decay with constant input."""
    unit = Leaky("v", torch.tensor(TAU) if tau == "neuron" else tau, clip)
    number = TAU if tau == "neuron" else tau
    residual = U - X if clip is None else np.clip(U - X, -clip, clip)
    assert (np.abs(residual) < np.abs(U - X)).sum() == (0 if clip is None else 3)
    state, u = {"v": torch.tensor(X)}, torch.tensor(U)
    for found, expected in (
        (unit.rate(state, u), residual / number),
        (unit.euler(state, u, 0.2), X + 0.2 / number * residual),
        (unit.exact_step(state, u, 0.2), X + (1 - np.exp(-0.2 / number)) * residual),
        (unit.fixed_point(u), U),
    ):
        assert list(found) == ["v"]
        np.testing.assert_allclose(found["v"], expected, rtol=1e-14, atol=1e-15)
    assert unit.activity(state) is state["v"]
    assert (unit.gain, unit.variables) == (1, ("v",))


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_state_space_written_out(name):
    """s' = A s + b u: derivative, Euler's step, exact flow with constant u, and fixed point."""
    dynamics = DYNAMICS[name]
    A, b, c = map(np.array, (dynamics.A, dynamics.b, dynamics.c))
    unit = StateSpace("v", dynamics)
    rng = np.random.default_rng(0)
    s = rng.normal(size=(dynamics.order, 2, 2))
    assert unit.variables == tuple(f"v.{i}" for i in range(dynamics.order))
    state, u = {v: torch.tensor(x) for v, x in zip(unit.variables, s, strict=True)}, torch.tensor(U)
    slope = np.einsum("ij,j...->i...", A, s) + b[:, None, None] * U
    rest = -np.einsum("i,...->i...", np.linalg.solve(A, b), U)
    # s(h) = rest + exp(h A) (s - rest)
    flowed = rest + np.einsum("ij,j...->i...", expm(0.3 * A), s - rest)
    for found, expected in (
        (unit.rate(state, u), slope),
        (unit.euler(state, u, 0.3), s + 0.3 * slope),
        (unit.exact_step(state, u, 0.3), flowed),
        (unit.fixed_point(u), rest),
    ):
        assert list(found) == list(unit.variables)
        np.testing.assert_allclose(np.stack([np.asarray(x) for x in found.values()]), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(unit.activity(state), np.einsum("i,i...->...", c, s), rtol=1e-14)
    np.testing.assert_allclose(unit.activity(unit.fixed_point(u)), unit.gain * U, rtol=1e-14)
    np.testing.assert_allclose(unit.gain, -c @ np.linalg.inv(A) @ b, rtol=1e-14)


@pytest.mark.parametrize(
    ("dynamics", "equations"),
    [
        (
            DYNAMICS["ringing"],  # tau^2 x'' + 2 damping tau x' + x = u
            lambda y, u: [y[1], (u - y[0] - 2 * 0.4 * 0.8 * y[1]) / 0.8**2],
        ),
        (
            DYNAMICS["synapse"],  # tau x' = -x + s, tau_synapse s' = -s + u
            lambda y, u: [(y[1] - y[0]) / 1.1, (u - y[1]) / 0.3],
        ),
        (
            DYNAMICS["adapting"],  # tau x' = -x - strength w + (1 + strength) u, tau_adaptation w' = x - w
            lambda y, u: [(-y[0] - 1.7 * y[1] + 2.7 * u) / 0.6, (y[0] - y[1]) / 2.5],
        ),
    ],
    ids=["second order", "synaptic filter", "adapting"],
)
def test_named_dynamics_are_their_equations(dynamics, equations):
    """From silence, x follows the docstring's ODE for a varying input, and settles for a constant one."""

    def u(t):
        return 1 + 0.5 * math.sin(3 * t)

    A, b, c = map(np.array, (dynamics.A, dynamics.b, dynamics.c))
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}
    ours = solve_ivp(lambda t, s: A @ s + b * u(t), (0, 2), np.zeros(2), t_eval=np.linspace(0, 2, 9), **options)
    theirs = solve_ivp(lambda t, y: equations(y, u(t)), (0, 2), np.zeros(2), t_eval=np.linspace(0, 2, 9), **options)
    assert np.abs(theirs.y[0]).max() > 0.5
    np.testing.assert_allclose(c @ ours.y, theirs.y[0], rtol=1e-9, atol=1e-11)
    settled = solve_ivp(lambda t, y: equations(y, 0.8), (0, 80), np.zeros(2), **options).y[0, -1]
    assert dynamics.gain == pytest.approx(1, abs=1e-14)
    assert settled == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize(
    ("matrix", "b", "c", "sentence"),
    [
        (
            ((-1, 0), (0, -1)),
            (1,),
            (1, 0),
            r"^unit dynamics take A \(order, order\) with b and c \(order,\), got \(2, 2",
        ),
        ((-1, -1), (1, 1), (1, 0), r"^unit dynamics take A \(order, order\)"),
        ((), (), (), r"^unit dynamics take A \(order, order\)"),
        (((-1,),), 1, (1,), r"^unit dynamics take A \(order, order\)"),
        (
            ((-1, 0), (0,)),
            (1, 0),
            (1, 0),
            r"^A of unit dynamics must hold finite numbers, got \(\(-1, 0\), \(0,\)\)\.$",
        ),
        (((math.nan,),), (1,), (1,), r"^A of unit dynamics must hold finite numbers"),
        *[
            (A, b, (1,), rf"^{name} of unit dynamics takes numbers, in the problem's unit of time, got ")
            for A, b, name in ((((-1 / ms,),), (1,), "A"), (((-1,),), (1 / ms,), "b"), (((-1,),), np.ones(1) / ms, "b"))
        ],
        (((-1,),), ("x",), (1,), r"^b of unit dynamics must hold finite numbers, got \('x',\)\.$"),
        (
            ((0.25,),),
            (1,),
            (1,),
            r"^unit dynamics must be stable: eigenvalues of A need negative real parts, got 0\.25\.$",
        ),
        (((0, 1), (-1, 0)), (0, 1), (1, 0), r"^unit dynamics must be stable: eigenvalues .*, got 0\.$"),
        (((-1, 0), (0, -2)), (1, 0), (0, 1), r"^unit dynamics must have a gain -c A\^-1 b other than 0\.$"),
    ],
)
def test_dynamics_that_are_refused(matrix, b, c, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        UnitDynamics(matrix, b, c)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"dynamics": {"hidden9": DYNAMICS["ringing"]}},
            r"^dynamics names an unknown population 'hidden9'; known: hid",
        ),
        ({"dynamics": {"hidden2": "ringing"}}, r"^dynamics of 'hidden2' must be UnitDynamics, got str\.$"),
        (
            {"dynamics": {"hidden2": DYNAMICS["ringing"]}, "tau": {"hidden2": 1.0}},
            r"^population 'hidden2' has dynamics in place of a tau: leave its tau out\.$",
        ),
        (
            {"dynamics": {"hidden2": DYNAMICS["ringing"]}, "noise": "0.1"},
            r"^noise of 'hidden3' must be a number or a tensor, got '0\.1'\.$",
        ),
        (
            {"dynamics": {"hidden2": DYNAMICS["ringing"]}, "clip": 1.0},
            r"^a clip needs leaky units: leave clip or dynamics out\.$",
        ),
    ],
)
def test_problems_that_are_refused(fields, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(mlp_case(), **fields)


def test_steps_that_are_refused():
    """eta needs taus; Euler's step must make every mode decay, here |1 + dt lambda| < 1 for dt < 2 damping tau."""
    problem = problem_of(mlp_case(), dynamics={"hidden2": DYNAMICS["ringing"]})
    for options in ({}, {"eta": 0.1}):
        with pytest.raises(
            ActrelaxError, match=r"^eta is dt/tau and needs one tau, but some units have other dynamics"
        ):
            solve(problem, "euler", **options)
    limit = 2 * 0.4 * 0.8
    solve(problem, "euler", dt=0.99 * limit, steps=1)
    with pytest.raises(
        ActrelaxError, match=r"^dt 0\.6464 is unstable for the units of 'hidden2' under \"euler\": give a smaller dt"
    ):
        solve(problem, "euler", dt=1.01 * limit, steps=1)
    solve(problem, "exponential", dt=20.0, steps=1)
    slow = dict.fromkeys(["hidden1", "hidden2", "hidden3"], UnitDynamics.second_order(tau=50.0, damping=1.0))
    solve(problem_of(mlp_case(), dynamics=slow), "euler", dt=5.0, steps=1)  # no leaky units: no tau to exceed


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.parametrize("start", ["feedforward", "zero"])
def test_starts_at_rest_with_the_activity_of_the_start(name, start):
    """Units start in the state of rest with activity xbar, which a constant input of xbar / gain preserves."""
    case = graph_case()
    problem = problem_of(case, dynamics={"conv3": DYNAMICS[name], "hidden1": DYNAMICS["adapting"]}, start=start)
    state = problem.initial_state()
    passed = case.network.feedforward(case.x).activities
    for population in ("conv3", "hidden1", "hidden2"):
        x, unit = (start == "feedforward") * passed[population].detach(), problem.units[population]
        assert relative_error(problem.activities(state)[population], x) < 1e-14
        assert all(rate.abs().max() < 1e-13 for rate in unit.rate(state, x / unit.gain).values())
    given = {name: torch.randn_like(passed[name]) for name in case.network.hidden}
    own = problem_of(case, dynamics={"conv3": DYNAMICS[name]}, start=given)
    assert relative_error(own.activities(own.initial_state())["conv3"], given["conv3"]) < 1e-14


def flat_system(case, dynamics):
    """Return F and r of s' = F s + r for all variables of one sample with frozen gains, and the readout matrix."""
    weights = [p.weight.detach().numpy() for p in case.network.projections.values()]
    biases = [p.bias.detach().numpy() for p in case.network.projections.values()]
    x, passed, gains = case.x[0].numpy(), [], []
    for i, (W, bias) in enumerate(zip(weights, biases, strict=True)):
        a = W @ x + bias
        last = i == len(weights) - 1
        x, gain = (a, np.ones_like(a)) if last else (np.tanh(a), 1 - np.tanh(a) ** 2)
        passed.append(x)
        gains.append(gain)
    softmax = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    clamp = softmax - np.eye(len(x))[int(case.y[0])]
    spaces = [
        tuple(np.array(m) for m in (d.A, d.b, d.c)) if d else (np.array([[-1.0]]), np.array([1.0]), np.array([1.0]))
        for d in dynamics
    ]
    sizes = [len(b) * len(v) for (_, b, _), v in zip(spaces, passed, strict=False)]
    edges = np.cumsum([0, *sizes])
    F, r, start, read = np.zeros((edges[-1], edges[-1])), np.zeros(edges[-1]), np.zeros(edges[-1]), []
    for i, (A, b, c) in enumerate(spaces):
        here, eye = slice(edges[i], edges[i + 1]), np.eye(len(passed[i]))
        F[here, here] = np.kron(A, eye)
        rest = -np.linalg.solve(A, b)
        start[here] = np.kron(rest / (c @ rest), passed[i])
        back = weights[i + 1].T * gains[i + 1]
        if i + 1 < len(spaces):
            above = slice(edges[i + 1], edges[i + 2])
            F[here, above] = np.kron(b[:, None], back) @ np.kron(spaces[i + 1][2][None], np.eye(back.shape[1]))
        else:
            r[here] = np.kron(b, back @ clamp)
        read.append((here, np.kron(c[None], eye)))
    return F, r, start, read


ALL_THREE = (DYNAMICS["adapting"], None, DYNAMICS["third order"])


def exact_activities(case, t):
    F, r, start, read = flat_system(case, ALL_THREE)
    augmented = np.zeros((len(r) + 1, len(r) + 1))
    augmented[:-1, :-1], augmented[:-1, -1] = F, r
    end = (expm(t * augmented) @ np.append(start, 1))[:-1]
    return torch.tensor(np.concatenate([c @ end[here] for here, c in read]))


def activities_by(case, integrator, engine="torch", **options):
    dynamics = {"hidden1": ALL_THREE[0], "hidden3": ALL_THREE[2]}
    final = solve(problem_of(case, dynamics=dynamics), integrator, engine=engine, **options).final
    return torch.cat([final[name][0] for name in case.network.hidden])


@pytest.mark.parametrize("name", STEPPED)
def test_integrators_converge_at_their_order(name):
    """They converge to the matrix exponential of a network with leaky units and units with dynamics."""
    case = mlp_case()
    exact = exact_activities(case, 2.0)
    plain = solve(problem_of(case), name, dt=1 / 64, duration=2.0).final
    assert relative_error(torch.cat([plain[v][0] for v in case.network.hidden]), exact) > 1e-3
    errors = [(activities_by(case, name, dt=1 / n, duration=2.0) - exact).norm() for n in (32, 64, 128)]
    slopes = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert slopes == pytest.approx([INTEGRATORS[name].order] * 2, abs=0.15)


def test_scipy_follows_the_matrix_exponential():
    case = mlp_case()
    for method in ("DOP853", "Radau"):
        rtol = 1e-11 if method == "DOP853" else 1e-7
        found = activities_by(case, method, engine=None, dt=0.5, duration=2.0, options=SciPyOptions(rtol=rtol))
        assert relative_error(found, exact_activities(case, 2.0)) < 100 * rtol


@pytest.mark.parametrize("scheme", ["euler", "sequential", "exponential"])
def test_a_step_written_out(scheme):
    """A layer uses the old activity above (Euler, exponential) or the new one (sequential)."""
    case = mlp_case()
    problem = problem_of(case, dynamics={"hidden1": ALL_THREE[0], "hidden2": ALL_THREE[2]})
    state = problem.initial_state()
    generator = torch.Generator().manual_seed(1)
    state = {name: torch.randn(x.shape, generator=generator) for name, x in state.items()}
    moved = INTEGRATORS[scheme].step(problem, state, 0.2)
    weight = case.network.projections["hidden1->hidden2"].weight.detach()
    gain = 1 - torch.tanh(case.network.feedforward(case.x).drives["hidden2"].detach()) ** 2
    above = moved if scheme == "sequential" else state
    x = sum(c * above[f"hidden2.{i}"] for i, c in enumerate(ALL_THREE[2].c))
    u = ((gain * x) @ weight).numpy()
    s = np.stack([state["hidden1.0"].numpy(), state["hidden1.1"].numpy()])
    A, b = np.array(ALL_THREE[0].A), np.array(ALL_THREE[0].b)
    rest = -np.einsum("i,...->i...", np.linalg.solve(A, b), u)
    expected = s + 0.2 * (np.einsum("ij,j...->i...", A, s) + b[:, None, None] * u)
    if scheme == "exponential":
        expected = rest + np.einsum("ij,j...->i...", expm(0.2 * A), s - rest)
    for i in range(2):
        assert relative_error(moved[f"hidden1.{i}"], torch.tensor(expected[i])) < 1e-13


@pytest.mark.parametrize("name", GAIN_ONE)
def test_the_equilibrium_is_backprops_gradient(name):
    """Units with gain 1 settle at the gradient, whatever their transient."""
    case = graph_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    dynamics = {"conv1": DYNAMICS[name], "hidden2": DYNAMICS["synapse"]}
    problem = problem_of(case, dynamics=dynamics)
    at_once = solve(problem, "equilibrium").final
    relaxed = solve(problem, "sequential", dt=0.2, steps=600).final
    early = solve(problem, "sequential", dt=0.2, steps=12).final
    leaky = solve(problem_of(case), "sequential", dt=0.2, steps=12).final
    assert relative_error(early["conv1"], leaky["conv1"]) > 1e-3
    for population in case.network.hidden:
        assert relative_error(at_once[population], gradients[population]) < 1e-12
        assert relative_error(relaxed[population], gradients[population]) < 1e-10


def test_where_the_gain_is_not_one_it_multiplies_the_gradient():
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    dynamics = {"hidden2": DYNAMICS["third order"]}
    gain = DYNAMICS["third order"].gain
    assert abs(gain - 1) > 0.1
    for integrator, options in (("equilibrium", {}), ("euler", {"dt": 0.2, "steps": 600})):
        final = solve(problem_of(case, dynamics=dynamics), integrator, **options).final
        for name, factor in (("hidden1", gain), ("hidden2", gain), ("hidden3", 1)):
            assert relative_error(final[name], factor * gradients[name]) < 1e-10


def test_where_the_law_stops():
    case = mlp_case()
    assert uncovered(problem_of(case, dynamics={"hidden1": DYNAMICS["ringing"]})) == (
        "the closed form needs leaky units: leave dynamics out, or step the relaxation."
    )
    assert uncovered(problem_of(case, tau={"hidden1": torch.ones(7)})) == (
        "the closed form needs one tau per population, got one per neuron: pass numbers, or step the relaxation."
    )
    assert uncovered(problem_of(case, tau={"hidden1": torch.tensor(2.0)})) is None


def test_settling_looks_at_every_variable():
    """A slow adaptation variable that has not yet affected the activity prevents settling."""
    dynamics = {"hidden1": UnitDynamics(((-2, 0), (0, -0.05)), (2, 0.05), (1, 0))}
    problem = problem_of(mlp_case(), dynamics=dynamics, start="zero")
    trajectory = solve(problem, "euler", Steps.until(1e-6, of="change", dt=0.2, most=5000))
    final = solve(problem, "equilibrium").state["hidden1.1"]
    assert relative_error(trajectory.state["hidden1.1"], final) < 1e-3
    assert trajectory.steps > 500


@pytest.mark.parametrize("values", [(0.0, 0.5), (-1.0, 0.5), (1.0, "x")])
def test_constants_of_units_are_positive(values):
    with pytest.raises(ActrelaxError, match=r"^(tau|damping) of unit dynamics must be positive, got"):
        UnitDynamics.second_order(*values)


def test_constants_of_units_have_no_unit():
    with pytest.raises(
        ActrelaxError, match=r"^tau of unit dynamics takes numbers, in the problem's unit of time, got 10"
    ):
        UnitDynamics.second_order(10 * ms, 0.5)


@pytest.mark.parametrize("name", DYNAMICS)
def test_noise_gives_a_lone_unit_unit_variance(name):
    """int_0^inf (c exp(A t) n)^2 dt = 1, with n along b."""
    d = DYNAMICS[name]
    times = np.linspace(0, 80, 40_001)
    step, response, s = expm(np.asarray(d.A) * times[1]), [], np.asarray(d.noise)
    for _ in times:
        response.append(np.asarray(d.c) @ s)
        s = step @ s
    assert np.trapezoid(np.square(response), times) == pytest.approx(1, rel=1e-4)
    assert np.linalg.matrix_rank(np.array([d.noise, d.b])) == 1


def test_noise_of_a_leaky_unit_is_the_usual_one():
    leaky = UnitDynamics(((-1 / 0.7,),), (1 / 0.7,), (1,))
    assert leaky.noise == pytest.approx([math.sqrt(2 / 0.7)])
    one, other = (unit.noise_scales(0.3, 0.1) for unit in (StateSpace("v", leaky), Leaky("v", 0.7)))
    assert one["v.0"] == pytest.approx(other["v"])


def test_names_of_variables_are_not_those_of_populations():
    hops = [("input", "a", 2, 3), ("a", "a.1", 3, 3), ("a.1", "output", 3, 2)]
    projections = [Projection(source, to, nn.Linear(m, n), name=f"hop{n}{m}") for source, to, m, n in hops]
    network = Network((2,), dict.fromkeys(["a", "a.1", "output"], "tanh"), projections)
    dynamics = {"a": DYNAMICS["ringing"]}
    with pytest.raises(ActrelaxError, match=r"^'a\.1' names a population and a variable of another: rename the first"):
        RelaxationProblem.from_batch(network, torch.rand(1, 2), torch.tensor([0]), dynamics=dynamics)
