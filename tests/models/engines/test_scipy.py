"""The SciPy engine. Oracles: the closed form, many small steps of the torch engine, backprop's gradient."""

import itertools
import pickle
import warnings

import numpy as np
import pytest
import torch
from networks import exploding_case, graph_case, mlp_case
from scipy import integrate, sparse

from actrelax.models.closed_form import predict
from actrelax.models.engines import (
    INTEGRATORS,
    SCIPY,
    SciPyOptions,
    SparseProblem,
    Steps,
    TorchOptions,
    integrator_named,
    solve,
)
from actrelax.models.engines.solve import engine_named
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, activity_gradients, relax_backward
from actrelax.models.network import Activation
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import DivergenceError, Record, Status, relative_error

METHODS = [f"scipy:{method}" for method in SCIPY]
ADAPTING = UnitDynamics.adapting(0.8, 2.0, 1.5)


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def closest(final, expected):
    return max(relative_error(final[name], x) for name, x in expected.items())


@pytest.mark.parametrize("method", METHODS)
def test_methods_follow_the_exact_law(method):
    """On a chain with several taus, a smaller rtol reduces the error."""
    problem = problem_of(mlp_case(), tau={"hidden1": 0.7, "hidden3": 1.9})
    exact = predict(problem, INTEGRATORS["exact"], dt=2.0, steps=1)
    distances = []
    for rtol in (1e-4, 1e-8):
        trajectory = solve(problem, method, dt=0.5, duration=2.0, options=SciPyOptions(rtol=rtol, atol=rtol / 1e3))
        distances.append(closest({**trajectory.final}, exact))
    assert (trajectory.engine, trajectory.time, trajectory.status) == ("scipy", 2.0, Status.COMPLETED)
    assert 1e-8 < distances[0] < 1e-2
    assert distances[1] < 3e-6
    assert distances[1] < distances[0] / 30


def test_a_high_order_method_reaches_ten_digits():
    case = graph_case()
    problem = problem_of(case, tau=0.8)
    exact = predict(problem, INTEGRATORS["exact"], dt=2.0, steps=1)
    found = solve(problem, "scipy:DOP853", dt=0.5, duration=2.0, options=SciPyOptions(rtol=1e-12, atol=1e-14))
    assert closest(found.final, exact) < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_methods_follow_unfrozen_gains_and_dynamics(method):
    """Against many small steps of rk4 in PyTorch, with current tanh gains and one tau per neuron."""
    tau = {"hidden1": torch.linspace(0.5, 1.5, 7)}
    problem = problem_of(mlp_case(), assumptions="unfrozen", dynamics={"hidden2": ADAPTING}, tau=tau)
    fine = solve(problem, "rk4", dt=0.02, duration=2.0).final
    assert closest(solve(problem, "rk4", dt=0.4, duration=2.0).final, fine) > 1e-6
    found = solve(problem, method, dt=0.5, duration=2.0, options=SciPyOptions(rtol=1e-6, atol=1e-9))
    assert closest(found.final, fine) < 1e-4
    assert found.feedback_applications % 3 == 0


@pytest.mark.parametrize("method", ["scipy:Radau", "scipy:BDF"])
def test_implicit_methods_get_the_jacobian(method, monkeypatch):
    """A wrong Jacobian shows only in the number of evaluations."""
    problem = problem_of(mlp_case(), assumptions="unfrozen", tau={"hidden2": 0.05})
    loose = SciPyOptions(rtol=1e-5)
    right = solve(problem, method, dt=0.5, duration=2.0, options=loose).feedback_applications
    original = SparseProblem.jacobian
    monkeypatch.setattr(SparseProblem, "jacobian", lambda flat, y: -original(flat, y))
    assert solve(problem, method, dt=0.5, duration=2.0, options=loose).feedback_applications > 1.5 * right


def test_recording_and_dense_output():
    """States recorded every dt agree with the closed form; `at` agrees with them, and interpolates."""
    problem = problem_of(mlp_case())
    record, options = Record(every=2), SciPyOptions(rtol=1e-11, atol=1e-14, dense=True)
    trajectory = solve(problem, "scipy:DOP853", dt=0.3, steps=7, record=record, options=options)
    assert trajectory.times == pytest.approx((0, 0.6, 1.2, 1.8))
    for i, time in enumerate(trajectory.times):
        exact = predict(problem, INTEGRATORS["exact"], dt=time or 1.0, steps=int(time > 0))
        for name, x in exact.items():
            assert relative_error(trajectory[name][i], x) < 1e-7  # DOP853 interpolates with order 7
            assert torch.equal(trajectory.at(time)[name], trajectory[name][i])
    between = predict(problem, INTEGRATORS["exact"], dt=0.77, steps=1)
    assert closest(trajectory.at(0.77), between) < 1e-7
    assert list(trajectory.at(0.77)) == list(trajectory.final)
    assert closest(trajectory.at(2.1), trajectory.final) < 1e-13
    for time in (-0.1, 2.2, np.array([0.1, 0.2]), "now"):
        with pytest.raises(ActrelaxError, match=r"^time must lie between 0 and 2\.1, the end of the relaxation, got "):
            trajectory.at(time)
    assert solve(problem, "scipy:DOP853", dt=0.3, steps=7, record=record).at is None


def test_a_dense_trajectory_is_pickled_and_gives_tensors_of_its_own():
    problem = problem_of(mlp_case())
    trajectory = solve(problem, "scipy:RK45", dt=0.2, steps=5, record=True, options=SciPyOptions(dense=True))
    again = pickle.loads(pickle.dumps(trajectory))
    for time in (0.0, 0.33, trajectory.time):
        expected = {name: x.clone() for name, x in trajectory.at(time).items()}
        assert all(torch.equal(again.at(time)[name], x) for name, x in expected.items())
        for x in trajectory.at(time).values():
            x.fill_(7.0)
        assert all(torch.equal(trajectory.at(time)[name], x) for name, x in expected.items())
    at_the_end = trajectory.at(trajectory.time)  # an interpolant: equal to rounding, which depends on the BLAS
    assert all(torch.allclose(at_the_end[name], x, rtol=1e-13, atol=1e-15) for name, x in trajectory.final.items())
    assert not any((x == 7.0).any() for x in (*trajectory.final.values(), problem.clamped))
    trajectory.final["hidden1"].zero_()
    assert trajectory.at(trajectory.time)["hidden1"].all()


def test_recording_activities_of_units_with_dynamics():
    problem = problem_of(mlp_case(), dynamics={"hidden1": ADAPTING})
    trajectory = solve(problem, "scipy:RK45", dt=0.2, steps=4, record=True, options=SciPyOptions(dense=True))
    assert list(trajectory.recorded) == list(trajectory.at(0.3)) == ["hidden1", "hidden2", "hidden3", "output"]
    assert list(trajectory.state) == ["hidden3", "hidden2", "hidden1.0", "hidden1.1"]


@pytest.mark.parametrize("method", METHODS)
def test_stops_at_equilibrium(method):
    """It stops, within dt, when the change over dt is small; activities are then the gradients."""
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    until = Steps.until(1e-6, of="change", dt=0.2, most=1000)
    trajectory = solve(problem_of(case), method, until, record="hidden1", options=SciPyOptions(dense=True))
    points = len(trajectory.times) - 1
    assert trajectory.status is Status.SETTLED
    assert points < 500
    assert trajectory.time == trajectory.times[-1] <= points * 0.2 < trajectory.time + 0.2
    change = problem_of(case).vector_field(trajectory.state)
    largest = max(0.2 * float(change[v].abs().max() / trajectory.state[v].abs().max()) for v in change)
    assert largest == pytest.approx(1e-6, rel=0.05)
    assert max(relative_error(trajectory.final[name], gradients[name]) for name in case.network.hidden) < 1e-4
    assert torch.equal(trajectory["hidden1"][-1], trajectory.at(trajectory.time)["hidden1"])
    with pytest.warns(UserWarning, match="^not settled after 5 steps"):
        short = solve(problem_of(case), method, Steps.until(1e-6, of="change", dt=0.2, most=5))
    assert (short.status, short.time) == (Status.NOT_SETTLED, 1.0)


def test_settling_on_a_point_of_the_grid_ends_there():
    """Dividing the end time by dt may round to either side of the last grid point."""
    problem = problem_of(mlp_case())
    settled = solve(problem, "scipy:RK45", Steps.until(1e-4, of="change", dt=0.2, most=1000))
    for steps in range(20, 80):
        dt = settled.time / steps
        until = Steps.until(1e-4 * dt / 0.2, of="change", dt=dt, most=1000)
        trajectory = solve(problem, "scipy:RK45", until, record="hidden1")
        assert trajectory.time == pytest.approx(settled.time, rel=1e-12)
        assert (trajectory.status, len(trajectory.times)) == (Status.SETTLED, steps + 1)
        assert trajectory.times[-1] == trajectory.time
        assert torch.equal(trajectory["hidden1"][-1], trajectory.final["hidden1"])


@pytest.mark.parametrize("method", METHODS)
def test_a_start_at_equilibrium_is_seen(method):
    case = mlp_case()
    exact = solve(problem_of(case), "equilibrium").state
    trajectory = solve(problem_of(case, start=exact), method, Steps.until(1e-6, of="change", dt=0.2), record=True)
    assert (trajectory.status, trajectory.steps, trajectory.time) == (Status.SETTLED, 0, 0.0)
    assert trajectory.times == (0.0,)
    assert closest(trajectory.final, {name: exact[name] for name in case.network.hidden}) == 0
    none = solve(problem_of(case), method, 0, dt=0.2)
    assert (none.status, none.steps, none.time) == (Status.COMPLETED, 0, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_limit_on_evaluations_is_one_sentence(method):
    """Relu with current gains slides along kinks; the limit also works through LSODA's callback."""
    problem = problem_of(mlp_case("relu"), assumptions="unfrozen")
    stiff = "for a stiff problem Radau, BDF or LSODA, " if method[6:] in ("RK23", "RK45", "DOP853") else ""
    with pytest.raises(
        ActrelaxError,
        match=r"^stopped at t = [\d.]+ after 300 evaluations: with relu and current gains take fixed steps, "
        + stiff
        + r"otherwise raise max_evaluations or rtol\.$",
    ):
        solve(problem, method, dt=1.0, duration=50.0, options=SciPyOptions(max_evaluations=300))
    # exactly the needed number of evaluations is allowed, one fewer is not
    smooth = problem_of(mlp_case())
    needed = solve(smooth, method, dt=0.5, duration=1.0).feedback_applications // 3
    solve(smooth, method, dt=0.5, duration=1.0, options=SciPyOptions(max_evaluations=needed))
    with pytest.raises(ActrelaxError, match=rf"after {needed - 1:,} evaluations"):
        solve(smooth, method, dt=0.5, duration=1.0, options=SciPyOptions(max_evaluations=needed - 1))


@pytest.mark.parametrize("method", METHODS[:5])
def test_a_method_that_gives_up_says_why(method, monkeypatch):
    """y' = y^2 from y = 1 is infinite at t = 1."""
    monkeypatch.setattr(SparseProblem, "vector_field", lambda flat, y: y**2)
    monkeypatch.setattr(SparseProblem, "jacobian", lambda flat, y: sparse.diags_array(2 * y).tocsr())
    start = {name: torch.ones_like(x) for name, x in problem_of(mlp_case()).initial_state().items()}
    with pytest.raises(
        ActrelaxError,
        match=rf"^SciPy's {method[6:]} failed at t = 1: Required step size is less than spacing between numbers\.$",
    ):
        solve(problem_of(mlp_case(), start=start), method, dt=0.2, steps=50)


@pytest.mark.parametrize("action", ["default", "error", "ignore"])
def test_lsodas_warning_is_the_sentence(action, monkeypatch):
    """It becomes an error whatever the warning filters; all activities reach 0 at t = 0.5, and atol is 0."""
    monkeypatch.setattr(SparseProblem, "vector_field", lambda flat, y: np.where(y > 0, -1.0, 0.0))
    start = {name: torch.full_like(x, 0.5) for name, x in problem_of(mlp_case()).initial_state().items()}
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(
            ActrelaxError, match=r"^SciPy's LSODA failed at t = 0\.5: lsoda: Excess accuracy requested .*[^.]\.$"
        ):
            solve(problem_of(mlp_case(), start=start), "scipy:LSODA", 50, dt=0.2, options=SciPyOptions(atol=0.0))


@pytest.mark.parametrize("method", METHODS)
def test_without_an_atol_silence_is_refused(method):
    with pytest.raises(
        ActrelaxError, match=r"^SciPy can't choose a step if activities and atol are 0: pass atol > 0\.$"
    ):
        solve(problem_of(mlp_case(), start="zero"), method, dt=0.5, steps=2, options=SciPyOptions(atol=0.0))
    solve(problem_of(mlp_case()), method, dt=0.5, steps=2, options=SciPyOptions(rtol=1e-5, atol=0.0))


def test_linear_algebra_that_fails_is_a_sentence(generator):
    """SuperLU's RuntimeError becomes one sentence."""
    with pytest.raises(ActrelaxError, match=r"^SciPy's Radau failed at t = 0: Factor is exactly singular\.$"):
        solve(exploding(generator), "scipy:Radau", 50, dt=0.5, options=SciPyOptions(rtol=1e-3))


def own_gains(extra):
    """Return a problem with a user-defined tanh, whose derivative first calls a given function."""

    def derivative(a):
        return 1 - torch.tanh(a) ** 2 + extra(a)

    return problem_of(mlp_case(Activation("mine", torch.tanh, derivative)), assumptions="unfrozen")


MINE = (RuntimeError("my matrix is singular"), UserWarning("lsoda: of mine"), ValueError("wrong"), KeyError())


@pytest.mark.parametrize("method", METHODS)
def test_what_a_users_own_function_raises_passes_through(method):
    """Exceptions pass through from the vector field, from the Jacobian and from the recorder."""
    places = ["recorder", "field"] + ["Jacobian"] * (method in ("scipy:Radau", "scipy:BDF"))
    for error, place in itertools.product(MINE, places):
        running = []

        def gains(a, error=error, place=place, running=running):
            if running and place == ("Jacobian" if a.requires_grad else "field"):
                raise error
            return 0.0

        def record(state, error=error, place=place, running=running):
            running.append(state)
            if place == "recorder" and len(running) == 3:
                raise error
            return state

        with pytest.raises(type(error)) as caught:
            solve(own_gains(gains), method, dt=0.2, steps=5, record=record)
        assert caught.value is error


@pytest.mark.parametrize("method", METHODS)
def test_what_a_users_own_function_warns_of_passes_through(method):
    def warn(a):
        warnings.warn("my own warning.", stacklevel=2)
        return 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.warns(UserWarning, match=r"^my own warning\.$"):
            trajectory = solve(own_gains(warn), method, dt=0.2, steps=5)
    assert closest(trajectory.final, solve(own_gains(lambda a: 0.0), method, dt=0.2, steps=5).final) == 0


def exploding(generator):
    """Return a problem that overflows within a few steps of 0.5, one population after another."""
    case = exploding_case(generator)
    return problem_of(case, assumptions="random-feedback", start="zero")


@pytest.mark.parametrize("method", METHODS)
def test_divergence_names_population_and_step(method, generator):
    if method == "scipy:Radau":  # its linear algebra fails first
        return
    with (
        np.errstate(over="raise", invalid="raise", divide="raise"),
        pytest.raises(
            DivergenceError, match=r'^population "hidden[123]" became non-finite at step \d+ of 50: l'
        ) as caught,
    ):
        solve(exploding(generator), method, 50, dt=0.5, record=True, options=SciPyOptions(rtol=1e-3))
    reached = caught.value.trajectory
    assert reached.status is Status.DIVERGED
    assert all(torch.isfinite(x).all() for x in reached.final.values())
    assert reached.times == (0.0,)
    assert reached.time < 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_blow_up_is_an_error_of_ours(method):
    """LSODA follows a cubic activation to infinity; the other methods give up before."""
    case = mlp_case(Activation("cubic", lambda a: a**3, lambda a: 3 * a**2))
    case.x *= 0.3
    with pytest.raises(
        ActrelaxError, match=r"(hidden\d\" became non-finite at step 40 of 50|failed at t = 0\.039)"
    ) as e:
        solve(problem_of(case, assumptions="unfrozen"), method, dt=0.001, steps=50, record=True)
    if isinstance(e.value, DivergenceError):
        assert method == "scipy:LSODA"
        assert 0.039 <= e.value.trajectory.time < 0.04
        assert all(torch.isfinite(x).all() for x in e.value.trajectory.recorded.values())


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_divergence_leaves_what_was_reached(method, record, monkeypatch):
    """The derivative of hidden2 becomes nan once activities have decayed far enough."""
    steps = Steps(50, dt=0.1)
    expected = solve(problem_of(mlp_case()), method, steps, record=True, options=SciPyOptions(dense=True))
    threshold = torch.cat([x.flatten() for x in expected.at(0.45).values()]).norm()
    original = SparseProblem.vector_field

    def field(flat, y):
        rates = original(flat, y)
        if np.linalg.norm(np.append(y, flat.clamped)) < threshold:
            flat.split(rates)["hidden2"][3] = np.nan
        return rates

    monkeypatch.setattr(SparseProblem, "vector_field", field)
    with pytest.raises(
        DivergenceError, match=r'^population "hidden2" became non-finite at step \d+ of 50: l'
    ) as caught:
        solve(problem_of(mlp_case()), method, steps, record=record)
    reached = caught.value.trajectory
    assert reached.status is Status.DIVERGED
    assert 0.1 <= reached.time < 0.45
    assert reached.steps == np.count_nonzero(expected.at.solution.ts <= reached.time) - 1
    points = 1 + int(reached.time / 0.1)
    assert closest(reached.final, expected.at(reached.time)) < 1e-12
    assert reached.times == (expected.times[:points] if record else ())
    for name, x in reached.recorded.items():
        assert relative_error(x, expected[name][:points]) < 1e-12


@pytest.mark.parametrize("integrator", METHODS)
def test_bad_values_at_the_start_are_said_to_be_there(integrator, tmp_path):
    case = mlp_case()
    case.x[1, 2] = float("nan")
    path, unchecked = tmp_path / "recorded.nc", SciPyOptions(check_finite=False)  # SciPy insists
    with pytest.raises(DivergenceError, match=r'^population "input" is non-finite at the start: look') as caught:
        solve(problem_of(case), integrator, record=Record("hidden1", path=path), options=unchecked)
    assert caught.value.trajectory["hidden1"].shape == (1, 3, 7)
    assert torch.isnan(caught.value.trajectory["hidden1"][0, 1]).all()


def test_single_precision_is_solved_in_double():
    """All populations return in float64; updates have the network's precision."""
    integrator = "scipy:RK45"
    case = graph_case()
    double = solve(problem_of(case), integrator, dt=0.2, steps=12).final
    case.network.float()
    case.x = case.x.float()
    trajectory = solve(problem_of(case), integrator, dt=0.2, steps=12, record=True)
    assert trajectory.problem.clamped.dtype == torch.float32
    for states in (trajectory.final, trajectory.recorded, trajectory.state):
        assert {x.dtype for x in states.values()} == {torch.float64}
    assert 1e-10 < closest(trajectory.final, double) < 1e-5
    keep = BackwardOptions(keep=True)
    ours = relax_backward(case.network, case.x, case.y, 20, integrator=integrator, dt=0.2, options=keep)
    assert ours.trajectory.engine == "scipy"
    gradients = {name: p.grad.clone() for name, p in case.network.named_parameters()}
    case.network.zero_grad()
    relax_backward(case.network, case.x, case.y, integrator="exact", dt=0.2, steps=20)
    for name, p in case.network.named_parameters():
        assert gradients[name].dtype == torch.float32
        assert relative_error(gradients[name], p.grad) < 1e-4


@pytest.mark.parametrize("integrator", METHODS)
def test_a_network_without_hidden_populations_has_nothing_to_relax(integrator):
    case = mlp_case(widths=(6, 4))
    trajectory = solve(problem_of(case), integrator, record=True, steps=3)
    assert list(trajectory.final) == ["output"]
    assert trajectory["output"].shape == (4, 3, 4)


@pytest.mark.parametrize("engine", ["torch", "brian2"])
def test_where_nothing_relaxes_all_has_settled(engine):
    problem = problem_of(mlp_case(widths=(6, 4)), clip=1.0)  # a clip makes it step
    found = solve(problem, "euler", Steps.until(1e-3), engine=engine)
    assert (found.status, found.steps) == (Status.SETTLED, 0)


OWN = 'SciPy runs its own methods only: pass one, such as "RK45", or engine="torch".'


@pytest.mark.parametrize(
    ("integrator", "fields", "sentence"),
    [
        *((name, {}, OWN) for name in INTEGRATORS if name != "equilibrium"),
        (
            "scipy:RK45",
            {"assumptions": "continuous"},
            "continuous plasticity changes weights during the relaxation: use relax_continuously.",
        ),
        ("brian2:rk4", {}, '"brian2:rk4" is a method of another engine.'),
    ],
)
def test_what_it_can_not_do(integrator, fields, sentence):
    problem = problem_of(mlp_case(), **fields)
    assert engine_named("scipy").unsupported(problem, integrator_named(integrator)) == sentence
    with pytest.raises(ActrelaxError) as refused:
        solve(problem, integrator, engine="scipy", dt=0.2)
    assert str(refused.value) == f'"{integrator}" can\'t be used on scipy here: {sentence}'


@pytest.mark.parametrize("fields", [{"noise": 0.1}, {"delays": 0.2}])
def test_adaptive_methods_follow_neither_noise_nor_delays(fields):
    with pytest.raises(
        ActrelaxError, match=r"^\"scipy:RK45\" can't be used here: it does not support (noise|delays): use"
    ):
        solve(problem_of(mlp_case(), **fields), "scipy:RK45", dt=0.2)


@pytest.mark.parametrize(
    ("integrator", "options", "sentence"),
    [
        ("RK45", {"rtol": 0.1}, r"^unknown keyword 'rtol'; known: eta, dt, duration\.$"),
        (
            "RK45",
            {"options": TorchOptions()},
            r"^scipy takes SciPyOptions, got options=TorchOptions\(check_finite=True\)\.$",
        ),
        (
            "RK45",
            {"evaluation": "closed-form"},
            r'^the closed form needs engine="torch", got "scipy": leave evaluation out\.$',
        ),
        ("RK45", {"evaluation": "fast"}, r"^unknown evaluation 'fast'; known: auto, stepped, closed-form\.$"),
        (
            "scipy:RK45",
            {"engine": "torch"},
            r"^\"scipy:RK45\" can't be used on torch here: \"scipy:RK45\" is a method of",
        ),
        (
            "euler",
            {"engine": "torch", "options": SciPyOptions()},
            r"^torch takes TorchOptions, got options=SciPyOptions\(",
        ),
    ],
)
def test_options_that_are_refused(integrator, options, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), integrator, **{"engine": "scipy", **options})


def test_evaluations_are_counted(monkeypatch):
    """Evaluations of the search for equilibrium are counted, too."""
    calls = []
    original = SparseProblem.vector_field
    monkeypatch.setattr(SparseProblem, "vector_field", lambda *args: calls.append(1) or original(*args))
    for steps in (Steps(20, dt=0.2), Steps.until(1e-3, of="change", dt=0.2)):
        calls.clear()
        trajectory = solve(problem_of(mlp_case()), "scipy:RK45", steps)
        assert trajectory.feedback_applications == 3 * len(calls)


@pytest.mark.parametrize("method", SCIPY)
def test_steps_are_the_methods_own(method):
    """The number of steps is SciPy's own, for any dt."""
    problem = problem_of(mlp_case())
    system = SparseProblem(problem)
    jac = {"jac": lambda t, y: system.jacobian(y)} if method in ("Radau", "BDF") else {}
    expected = integrate.solve_ivp(
        lambda t, y: system.vector_field(y), (0, 4), system.initial_state, method, rtol=1e-8, atol=1e-12, **jac
    )
    for dt in (0.2, 1.0):
        trajectory = solve(problem, method, dt=dt, duration=4.0)
        assert (trajectory.steps, trajectory.time) == (len(expected.t) - 1, 4.0)
        assert type(trajectory.steps) is int
        assert f"completed after {trajectory.steps} steps until 4 by scipy:{method} on scipy" in repr(trajectory)


def test_an_early_end_counts_the_step_in_which_it_falls():
    problem = problem_of(mlp_case())
    settled = solve(problem, "RK45", Steps.until(1e-4, of="change", dt=0.2), options=SciPyOptions(dense=True))
    times = settled.at.solution.ts
    assert settled.steps == len(times) - 1
    assert times[-2] < settled.time <= times[-1]
