"""The SciPy engine. Oracles: the torch engine for our own steps, the exact law and `solve_ivp` for adaptive methods."""

import gc
import itertools
import pickle
import warnings

import numpy as np
import pytest
import torch
from networks import exploding_case, graph_case, mlp_case
from scipy import sparse
from scipy.integrate import BDF, DenseOutput, solve_ivp

from actrelax.models.assumptions import PRESETS
from actrelax.models.closed_form import predict
from actrelax.models.engines import INTEGRATORS, SCIPY, integrator_named, solve, unsupported
from actrelax.models.engines.solve import engine_named
from actrelax.models.engines.sparse_problem import SparseProblem, vector
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients, relax_backward
from actrelax.models.network import Activation
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import DivergenceError, Status, open_trajectory, relative_error

OURS = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]
METHODS = [f"scipy:{method}" for method in SCIPY]
ADAPTING = UnitDynamics.adapting(0.8, 2.0, 1.5)


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def closest(final, expected):
    return max(relative_error(final[name], x) for name, x in expected.items())


@pytest.mark.parametrize(
    ("name", "preset"),
    [("euler", preset) for preset in PRESETS]
    + [(name, p) for name in [*OURS, "equilibrium"] for p in ("ar", "unfrozen")],
)
def test_own_steps_equal_torchs(name, preset, generator):
    problem_options = {"assumptions": preset}
    case = graph_case()
    case.network.add_feedback(preset, generator)
    problem = problem_of(case, **problem_options)
    if reason := unsupported(problem, name, "scipy"):
        assert reason.startswith(("weights that change while it relaxes", "it needs an activity gain that is constant"))
        return
    options = {} if name == "equilibrium" else {"steps": 5, "eta": 0.2}
    ours = solve(problem, name, method="stepped", **options)
    theirs = solve(problem, name, engine="scipy", **options)
    assert (theirs.engine, theirs.steps, theirs.dt) == ("scipy", ours.steps, ours.dt)
    assert theirs.feedback_applications == ours.feedback_applications
    assert closest(theirs.final, ours.final) < 1e-12


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    "fields",
    [
        {"clip": 0.1},
        {"tau": {"conv1": 0.7, "hidden1": torch.linspace(0.5, 1.5, 7).double()}},
        {"dynamics": {"conv2": ADAPTING, "hidden1": ADAPTING}},
        {"start": "zero", "feedback_transform": "sparse-0.6"},
    ],
    ids=["clip", "tau", "dynamics", "start"],
)
def test_own_steps_equal_torchs_with_other_fields(name, fields):
    problem = problem_of(graph_case(), **fields)
    ours = solve(problem, name, steps=12, dt=0.1)
    theirs = solve(problem, name, steps=12, dt=0.1, engine="scipy")
    assert closest(ours.final, solve(problem_of(graph_case()), name, steps=12, dt=0.1).final) > 1e-3
    assert closest(theirs.final, ours.final) < 1e-12
    assert closest(theirs.state, ours.state) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_methods_follow_the_exact_law(method):
    """On a chain with several taus; and a smaller rtol is closer."""
    problem = problem_of(mlp_case(), tau={"hidden1": 0.7, "hidden3": 1.9})
    exact = predict(problem, INTEGRATORS["exact"], dt=2.0, steps=1)
    distances = []
    for rtol in (1e-4, 1e-8):
        trajectory = solve(problem, method, dt=0.5, duration=2.0, rtol=rtol, atol=rtol / 1e3)
        distances.append(closest({**trajectory.final}, exact))
    assert (trajectory.engine, trajectory.steps, trajectory.time) == ("scipy", 4, 2.0)
    assert trajectory.status is Status.COMPLETED
    assert 1e-8 < distances[0] < 1e-2
    assert distances[1] < 3e-6
    assert distances[1] < distances[0] / 30


def test_a_high_order_method_reaches_ten_digits():
    case = graph_case()
    problem = problem_of(case, tau=0.8)
    exact = predict(problem, INTEGRATORS["exact"], dt=2.0, steps=1)
    assert closest(solve(problem, "scipy:DOP853", dt=0.5, duration=2.0, rtol=1e-12, atol=1e-14).final, exact) < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_methods_follow_unfrozen_gains_and_dynamics(method):
    """Against many small steps of rk4 in PyTorch: tanh's gains of the moment, a tau per neuron."""
    tau = {"hidden1": torch.linspace(0.5, 1.5, 7)}
    problem = problem_of(mlp_case(), assumptions="unfrozen", dynamics={"hidden2": ADAPTING}, tau=tau)
    fine = solve(problem, "rk4", dt=0.02, duration=2.0).final
    assert closest(solve(problem, "rk4", dt=0.4, duration=2.0).final, fine) > 1e-6
    found = solve(problem, method, dt=0.5, duration=2.0, rtol=1e-6, atol=1e-9)
    assert closest(found.final, fine) < 1e-4
    assert found.feedback_applications % 3 == 0


@pytest.mark.parametrize("method", ["scipy:Radau", "scipy:BDF"])
def test_implicit_methods_get_the_jacobian(method, monkeypatch):
    """A wrong one costs evaluations, which is why nothing else shows it."""
    problem = problem_of(mlp_case(), assumptions="unfrozen", tau={"hidden2": 0.05})
    right = solve(problem, method, dt=0.5, duration=2.0, rtol=1e-5).feedback_applications
    original = SparseProblem.jacobian
    monkeypatch.setattr(SparseProblem, "jacobian", lambda flat, state: -original(flat, state))
    assert solve(problem, method, dt=0.5, duration=2.0, rtol=1e-5).feedback_applications > 1.5 * right


def test_recording_and_dense_output():
    """What is recorded every dt is where the exact law is then; `at` is what is recorded, and more."""
    problem = problem_of(mlp_case())
    options = {"rtol": 1e-11, "atol": 1e-14, "record": True, "every": 2}
    trajectory = solve(problem, "scipy:DOP853", dt=0.3, steps=7, dense=True, **options)
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
    for time in (-0.1, 2.2):
        with pytest.raises(ActrelaxError, match=r"^this relaxation is known from 0 to 2\.1, not at "):
            trajectory.at(time)
    assert solve(problem, "scipy:DOP853", dt=0.3, steps=7, **options).at is None
    assert solve(problem, "euler", engine="scipy", steps=2).at is None


def reference_solution(problem, method, end, dt, stop_change=None):
    """`solve_ivp`'s, with the event written out."""
    flat = SparseProblem(problem)

    def field(t, y):
        return flat.joined(flat.vector_field(flat.split(y)))

    def excess(t, y):
        x, rates = flat.split(y), flat.split(field(t, y))
        return np.log(max(dt * np.abs(rates[v]).max() / np.abs(x[v]).max() for v in x) / stop_change)

    excess.terminal, excess.direction = True, -1
    options = {"rtol": 1e-7, "atol": 1e-10, "dense_output": True, "events": [excess] if stop_change else None}
    if method in ("Radau", "BDF"):
        options["jac"] = lambda t, y: flat.jacobian(flat.split(y)).tocsc()
    return flat, solve_ivp(field, (0, end), flat.joined(flat.initial_state()), method, **options)


@pytest.mark.parametrize("stop_change", [None, 1e-4])
@pytest.mark.parametrize("method", METHODS)
def test_steps_are_solve_ivps_bit_for_bit(method, stop_change):
    problem = problem_of(mlp_case(), assumptions="unfrozen", tau={"hidden1": 0.7})
    end, dt = (3.0, 0.25) if stop_change is None else (50.0, 0.25)
    flat, expected = reference_solution(problem, method[6:], end, dt, stop_change)
    options = {"rtol": 1e-7, "atol": 1e-10, "dt": dt, "duration": end, "stop_change": stop_change}
    trajectory = solve(problem, method, record=True, dense=True, **options)
    assert trajectory.time == expected.t[-1]
    assert (trajectory.time == end) == (stop_change is None)
    assert np.array_equal(flat.joined({v: vector(x) for v, x in trajectory.state.items()}), expected.y[:, -1])
    *between, last = trajectory.times
    assert last == trajectory.time
    for i, time in enumerate([*between, 0.123, 1.777, *expected.t[1:-1]]):
        then = flat.as_tensors(flat.split(expected.sol(time)))
        for name, x in then.items():
            assert torch.equal(trajectory.at(time)[name], x)
            assert i >= len(between) or relative_error(trajectory[name][i], x) < 1e-14
    assert all(torch.equal(trajectory.at(last)[name], x) for name, x in trajectory.final.items())
    if stop_change is None:
        assert np.array_equal(trajectory.at.solution.ts, expected.t)
        assert trajectory.feedback_applications == 3 * expected.nfev
    plain = solve(problem, method, **options)
    assert all(torch.equal(x, trajectory.final[name]) for name, x in plain.final.items())


@pytest.mark.parametrize("method", METHODS)
def test_what_is_recorded_is_recorded_while_it_runs(method, monkeypatch):
    """And no more than one step is kept in memory."""
    events, alive = [], []
    original = SparseProblem.vector_field
    monkeypatch.setattr(SparseProblem, "vector_field", lambda *args: events.append("field") or original(*args))

    def interpolants():
        return sum(issubclass(type(each), DenseOutput) for each in gc.get_objects())

    def record(state):
        events.append("record")
        alive.append(interpolants())
        return {"h": state["hidden1"]}

    gc.collect()
    before = interpolants()
    solve(problem_of(mlp_case()), method, dt=0.5, steps=10, record=record)
    recorded = [i for i, event in enumerate(events) if event == "record"]
    assert len(recorded) == 11
    assert all("field" in events[a:b] for a, b in zip(recorded[:-5], recorded[3:-2], strict=True))
    assert max(alive) <= before + 1


def test_a_limit_that_is_reached_leaves_the_file(tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "limited.zarr"
    problem = problem_of(mlp_case())
    whole = solve(problem, "scipy:RK45", dt=0.1, steps=50, record="hidden1")
    with pytest.raises(ActrelaxError, match=r"^no end in sight at t = 1\.\d+ after 200 evaluations: with"):
        solve(problem, "scipy:RK45", dt=0.1, steps=50, record="hidden1", path=path, max_evaluations=200)
    with open_trajectory(path) as dataset:
        found = torch.from_numpy(dataset["hidden1"].values)
        assert len(found) == dataset.sizes["time"] >= 10
        assert torch.equal(found, whole["hidden1"][: len(found)])


def test_a_dense_trajectory_is_pickled_and_gives_tensors_of_its_own():
    problem = problem_of(mlp_case())
    trajectory = solve(problem, "scipy:RK45", dt=0.2, steps=5, record=True, dense=True)
    again = pickle.loads(pickle.dumps(trajectory))
    for time in (0.0, 0.33, trajectory.time):
        expected = {name: x.clone() for name, x in trajectory.at(time).items()}
        assert all(torch.equal(again.at(time)[name], x) for name, x in expected.items())
        for x in trajectory.at(time).values():
            x.fill_(7.0)
        assert all(torch.equal(trajectory.at(time)[name], x) for name, x in expected.items())
    assert all(torch.equal(trajectory.at(trajectory.time)[name], x) for name, x in trajectory.final.items())
    assert not any((x == 7.0).any() for x in (*trajectory.final.values(), problem.clamped))
    trajectory.final["hidden1"].zero_()
    assert trajectory.at(trajectory.time)["hidden1"].all()


def test_recording_activities_of_units_with_dynamics():
    problem = problem_of(mlp_case(), dynamics={"hidden1": ADAPTING})
    trajectory = solve(problem, "scipy:RK45", dt=0.2, steps=4, record=True, dense=True)
    assert list(trajectory.recorded) == list(trajectory.at(0.3)) == ["hidden1", "hidden2", "hidden3", "output"]
    assert list(trajectory.state) == ["hidden3", "hidden2", "hidden1.0", "hidden1.1"]


@pytest.mark.parametrize("method", METHODS)
def test_stops_at_equilibrium(method):
    """When the change over dt is small; there, within dt of where that is so, activities are the gradients."""
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    options = {"stop_change": 1e-6, "record": "hidden1", "dense": True}
    trajectory = solve(problem_of(case), method, dt=0.2, duration=200.0, **options)
    assert trajectory.status is Status.SETTLED
    assert trajectory.steps < 500
    assert trajectory.time == trajectory.times[-1] <= trajectory.steps * 0.2 < trajectory.time + 0.2
    assert len(trajectory.times) == trajectory.steps + 1
    change = problem_of(case).vector_field(trajectory.state)
    largest = max(0.2 * float(change[v].abs().max() / trajectory.state[v].abs().max()) for v in change)
    assert largest == pytest.approx(1e-6, rel=0.05)
    assert max(relative_error(trajectory.final[name], gradients[name]) for name in case.network.hidden) < 1e-4
    assert torch.equal(trajectory["hidden1"][-1], trajectory.at(trajectory.time)["hidden1"])
    short = solve(problem_of(case), method, dt=0.2, duration=1.0, stop_change=1e-6)
    assert (short.status, short.steps) == (Status.NOT_SETTLED, 5)


def test_settling_on_a_point_of_the_grid_ends_there():
    """The same end, divided by whole numbers of dt: rounding puts it on either side of the last point."""
    problem = problem_of(mlp_case())
    settled = solve(problem, "scipy:RK45", dt=0.2, duration=200.0, stop_change=1e-4)
    for steps in range(20, 80):
        dt = settled.time / steps
        options = {"dt": dt, "steps": 1000, "stop_change": 1e-4 * dt / 0.2}
        trajectory = solve(problem, "scipy:RK45", record="hidden1", **options)
        assert trajectory.time == pytest.approx(settled.time, rel=1e-12)
        assert (trajectory.status, trajectory.steps, len(trajectory.times)) == (Status.SETTLED, steps, steps + 1)
        assert trajectory.times[-1] == trajectory.time
        assert torch.equal(trajectory["hidden1"][-1], trajectory.final["hidden1"])


@pytest.mark.parametrize("early", [False, True])
def test_an_interpolant_that_misses_both_ends_of_the_step_settles_at_one(early, monkeypatch):
    """Where it shows rest all along that is where the step began, where it shows none where it ended."""
    problem = problem_of(mlp_case())
    options = {"dt": 0.2, "duration": 200.0, "stop_change": 1e-4}
    settled = solve(problem, "scipy:BDF", **options)
    ends, moving = [0.0], []

    def constant(solver):
        ends.extend([solver.t_old, solver.t])
        y = solver.y if early else moving[0]
        return lambda time: y

    step = BDF.step
    monkeypatch.setattr(BDF, "step", lambda solver: moving.append(solver.y) or step(solver))
    monkeypatch.setattr(BDF, "dense_output", constant)
    trajectory = solve(problem, "scipy:BDF", **options)
    assert ends[-2] <= settled.time <= ends[-1]
    assert (trajectory.status, trajectory.time) == (Status.SETTLED, ends[-2 if early else -1])
    assert closest(trajectory.final, settled.final) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_start_at_equilibrium_is_seen(method):
    case = mlp_case()
    exact = solve(problem_of(case), "equilibrium").state
    trajectory = solve(problem_of(case, start=exact), method, dt=0.2, steps=50, stop_change=1e-6, record=True)
    assert (trajectory.status, trajectory.steps, trajectory.time) == (Status.SETTLED, 0, 0.0)
    assert trajectory.times == (0.0,)
    assert trajectory.feedback_applications == 3  # one look, no step
    assert closest(trajectory.final, {name: exact[name] for name in case.network.hidden}) == 0
    none = solve(problem_of(case), method, dt=0.2, steps=0, stop_change=1e-6)
    assert (none.status, none.steps) == (Status.NOT_SETTLED, 0)


def test_own_steps_stop_as_torchs():
    problem = problem_of(mlp_case())
    ours = solve(problem, "euler", eta=0.2, steps=1000, stop_change=1e-8)
    theirs = solve(problem, "euler", eta=0.2, steps=1000, stop_change=1e-8, engine="scipy")
    assert (theirs.status, theirs.steps) == (ours.status, ours.steps)


@pytest.mark.parametrize("method", METHODS)
def test_the_limit_on_evaluations_is_one_sentence(method):
    """Relu with gains of the moment slides along kinks; through LSODA's own callback too."""
    problem = problem_of(mlp_case("relu"), assumptions="unfrozen")
    stiff = "for a stiff problem Radau, BDF or LSODA, " if method[6:] in ("RK23", "RK45", "DOP853") else ""
    with pytest.raises(
        ActrelaxError,
        match=r"^no end in sight at t = [\d.]+ after 300 evaluations: with relu and current gains take fixed steps, "
        + stiff
        + r"elsewhere raise max_evaluations or rtol\.$",
    ):
        solve(problem, method, dt=1.0, duration=50.0, max_evaluations=300)
    solve(problem, "sequential", dt=0.1, duration=5.0, engine="scipy")
    # the limit is what it says: as many evaluations as it takes are allowed, one fewer is not
    smooth = problem_of(mlp_case())
    needed = solve(smooth, method, dt=0.5, duration=1.0).feedback_applications // 3
    solve(smooth, method, dt=0.5, duration=1.0, max_evaluations=needed)
    with pytest.raises(ActrelaxError, match=rf"after {needed - 1:,} evaluations"):
        solve(smooth, method, dt=0.5, duration=1.0, max_evaluations=needed - 1)


@pytest.mark.parametrize("method", METHODS[:5])
def test_a_method_that_gives_up_says_why(method, monkeypatch):
    """y' = y^2 from y = 1 is infinite at t = 1; what was due before is recorded."""
    monkeypatch.setattr(SparseProblem, "vector_field", lambda flat, state: {v: x**2 for v, x in state.items()})
    monkeypatch.setattr(
        SparseProblem, "jacobian", lambda flat, state: sparse.diags_array(2 * flat.joined(state)).tocsr()
    )
    start = {name: torch.ones_like(x) for name, x in problem_of(mlp_case()).initial_state().items()}
    seen = []

    def record(state):
        seen.append(float(state["hidden2"][0, 0]))
        return state

    with pytest.raises(
        ActrelaxError,
        match=rf"^SciPy's {method[6:]} gave up at t = 1: Required step size is less than spacing between numbers\.$",
    ):
        solve(problem_of(mlp_case(), start=start), method, dt=0.2, steps=50, record=record)
    assert seen[:5] == pytest.approx([1 / (1 - 0.2 * step) for step in range(5)], rel=1e-5)


@pytest.mark.parametrize("action", ["default", "error", "ignore"])
def test_lsodas_warning_is_the_sentence(action):
    """Whatever becomes of warnings outside; without an atol there is no step from silence."""
    problem = problem_of(mlp_case(), start="zero")
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(ActrelaxError, match=r"^SciPy's LSODA gave up at t = 0: lsoda: Illegal input.*[^.]\.$"):
            solve(problem, "scipy:LSODA", dt=0.5, steps=2, atol=0.0)
    for method in METHODS[:5]:
        with pytest.raises(
            ActrelaxError,
            match=rf"^SciPy's {method[6:]} gave up at t = 0: it finds no step where activities are 0 and atol is: give",
        ):
            solve(problem, method, dt=0.5, steps=2, atol=0.0)


def test_linear_algebra_that_fails_is_a_sentence(generator):
    """SuperLU's RuntimeError."""
    with pytest.raises(ActrelaxError, match=r"^SciPy's Radau gave up at t = 0: Factor is exactly singular\.$"):
        solve(exploding(generator), "scipy:Radau", steps=50, dt=0.5, rtol=1e-3)


def own_gains(extra):
    """A problem with a tanh of the user's own, whose derivative calls a function of theirs first."""

    def derivative(a):
        return 1 - torch.tanh(a) ** 2 + extra(a)

    return problem_of(mlp_case(Activation("mine", torch.tanh, derivative)), assumptions="unfrozen")


MINE = (RuntimeError("my matrix is singular"), UserWarning("lsoda: of mine"), ValueError("wrong"), KeyError())


@pytest.mark.parametrize("method", METHODS)
def test_what_a_users_own_function_raises_passes_through(method):
    """Out of the field, the Jacobian, which has gradients on, and the recorder."""
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
    """Overflows within some steps of 0.5, a population after the other."""
    case = exploding_case(generator)
    return problem_of(case, assumptions="random-feedback", start="zero")


@pytest.mark.parametrize("integrator", ["euler", *METHODS])
def test_divergence_names_population_and_step(integrator, generator):
    if integrator == "scipy:Radau":  # its linear algebra fails before
        return
    options = {} if integrator == "euler" else {"rtol": 1e-3}
    with pytest.raises(
        DivergenceError, match=r'^population "hidden[123]" became non-finite at step \d+ of 50: l'
    ) as caught:
        solve(exploding(generator), integrator, steps=50, dt=0.5, record=True, engine="scipy", **options)
    reached = caught.value.trajectory
    assert reached.status is Status.DIVERGED
    assert all(torch.isfinite(x).all() for x in reached.final.values())
    if integrator == "euler":
        assert str(caught.value).startswith('population "hidden1" became non-finite at step 3 of 50')
        assert (reached.steps, reached.times) == (2, (0.0, 0.5, 1.0))
        assert reached.final["hidden2"].any()
    else:
        assert (reached.steps, reached.times) == (0, (0.0,))


@pytest.mark.parametrize("method", METHODS)
def test_divergence_leaves_what_was_recorded(method):
    """Gains become nan as soon as the fourth point has been recorded: while it runs, that is."""
    seen = []
    problem = own_gains(lambda a: np.nan if len(seen) >= 4 else 0.0)
    with pytest.raises(DivergenceError) as caught:
        solve(problem, method, dt=0.1, steps=50, record=lambda state: seen.append(1) or {"h": state["hidden1"]})
    reached = caught.value.trajectory
    assert str(caught.value).startswith(f'population "hidden2" became non-finite at step {reached.steps + 1} of 50: l')
    assert 3 <= reached.steps < 10
    assert reached.times == pytest.approx([0.1 * step for step in range(reached.steps + 1)])
    assert reached.times[-1] <= reached.time < reached.times[-1] + 0.1
    expected = solve(own_gains(lambda a: 0.0), method, dt=0.1, steps=50, record="hidden1")["hidden1"]
    assert torch.equal(reached["h"], expected[: reached.steps + 1])


@pytest.mark.parametrize("integrator", ["euler", *METHODS])
def test_bad_values_at_the_start_are_said_to_be_there(integrator, tmp_path):
    case = mlp_case()
    case.x[1, 2] = float("nan")
    path = tmp_path / "recorded.nc"
    with pytest.raises(DivergenceError, match=r'^population "input" is non-finite at the start: look') as caught:
        solve(problem_of(case), integrator, engine="scipy", record="hidden1", path=path)
    assert caught.value.trajectory["hidden1"].shape == (1, 3, 7)
    assert torch.isnan(caught.value.trajectory["hidden1"][0, 1]).all()


def test_without_a_look_divergence_is_left_to_the_caller():
    case = mlp_case()
    case.x[1, 2] = float("nan")
    final = solve(problem_of(case), "euler", engine="scipy", check_finite=False, steps=3).final
    assert torch.isnan(final["hidden1"][1]).all()
    assert torch.isfinite(final["hidden1"][[0, 2]]).all()
    with pytest.raises(DivergenceError, match=r"is non-finite at the start"):  # SciPy takes nothing else
        solve(problem_of(case), "scipy:RK45", check_finite=False)


@pytest.mark.parametrize("integrator", ["euler", "scipy:RK45"])
def test_single_precision_is_solved_in_double(integrator):
    """Everything comes back in float64, the clamped output too; updates take the network's own precision."""
    case = graph_case()
    double = solve(problem_of(case), integrator, engine="scipy", dt=0.2, steps=12).final
    case.network.float()
    case.x = case.x.float()
    trajectory = solve(problem_of(case), integrator, engine="scipy", dt=0.2, steps=12, record=True)
    assert trajectory.problem.clamped.dtype == torch.float32
    for states in (trajectory.final, trajectory.recorded, trajectory.state):
        assert {x.dtype for x in states.values()} == {torch.float64}
    assert 1e-10 < closest(trajectory.final, double) < 1e-5
    if integrator != "euler":
        ours = relax_backward(case.network, case.x, case.y, integrator=integrator, dt=0.2, steps=20, keep=True)
        assert ours.trajectory.engine == "scipy"
        gradients = {name: p.grad.clone() for name, p in case.network.named_parameters()}
        case.network.zero_grad()
        relax_backward(case.network, case.x, case.y, integrator="exact", dt=0.2, steps=20)
        for name, p in case.network.named_parameters():
            assert gradients[name].dtype == torch.float32
            assert relative_error(gradients[name], p.grad) < 1e-4


@pytest.mark.parametrize("integrator", ["euler", *METHODS])
def test_a_network_without_hidden_populations_has_nothing_to_relax(integrator):
    case = mlp_case(widths=(6, 4))
    trajectory = solve(problem_of(case), integrator, engine="scipy", record=True, steps=3)
    assert list(trajectory.final) == ["output"]
    assert trajectory["output"].shape == (4, 3, 4)


@pytest.mark.parametrize(
    ("integrator", "fields", "options", "sentence"),
    [
        ("exact", {}, {}, 'the law is evaluated by PyTorch: use that engine, or "scipy:DOP853" with a small rtol.'),
        ("euler", {"noise": 0.1}, {}, "noise is for the engines torch and brian2."),
        ("euler", {"input_noise": 0.1}, {}, "noise is for the engines torch and brian2."),
        ("euler", {"delays": 0.2}, {}, "delays are for the engines torch and brian2."),
        (
            "euler",
            {"assumptions": "continuous"},
            {},
            "weights that change while it relaxes are for relax_continuously; here they are held.",
        ),
        ("brian2:rk4", {}, {}, '"brian2:rk4" is a method of another engine.'),
    ],
)
def test_what_it_can_not_do(integrator, fields, options, sentence):
    problem = problem_of(mlp_case(), **fields)
    assert engine_named("scipy").unsupported(problem, integrator_named(integrator)) == sentence
    with pytest.raises(ActrelaxError) as refused:
        solve(problem, integrator, engine="scipy", dt=0.2)
    assert str(refused.value) == f'"{integrator}" can\'t be used on scipy here: {sentence}'


@pytest.mark.parametrize("fields", [{"noise": 0.1}, {"delays": 0.2}])
def test_adaptive_methods_follow_neither_noise_nor_delays(fields):
    with pytest.raises(
        ActrelaxError, match=r"^\"scipy:RK45\" can't be used here: it does not follow (noise|delays): use"
    ):
        solve(problem_of(mlp_case(), **fields), "scipy:RK45", dt=0.2)


@pytest.mark.parametrize(
    ("integrator", "options", "sentence"),
    [
        ("scipy:RK45", {"rtol": 1e-17}, r"^rtol must lie between 2\.22e-14 and 1, got 1e-17\.$"),
        ("scipy:RK45", {"rtol": 1.5}, r"^rtol must lie between 2\.22e-14 and 1, got 1\.5\.$"),
        ("scipy:RK45", {"atol": -1.0}, r"^atol must be 0 or positive, got -1\.0\.$"),
        ("scipy:RK45", {"rtol": "a"}, r"^rtol must lie between 2\.22e-14 and 1, got 'a'\.$"),
        ("scipy:RK45", {"atol": [0.1]}, r"^atol must be 0 or positive, got \[0\.1\]\.$"),
        ("scipy:RK45", {"max_evaluations": "a"}, r"^max_evaluations must be a whole number, 1 or more, got 'a'\.$"),
        ("scipy:RK45", {"max_evaluations": 0}, r"^max_evaluations must be a whole number, 1 or more, got 0\.$"),
        (
            "scipy:RK45",
            {"max_step": 0.1},
            r"^unknown scipy option 'max_step'; known: rtol, atol, max_evaluations, dense\.$",
        ),
        ("euler", {"rtol": 1e-6}, r'^"euler" takes fixed steps: leave out rtol\.$'),
        ("euler", {"atol": 0.0, "dense": True}, r'^"euler" takes fixed steps: leave out atol and dense\.$'),
        (
            "scipy:RK45",
            {"engine": "torch"},
            r"^\"scipy:RK45\" can't be used on torch here: \"scipy:RK45\" is a method of",
        ),
        (
            "euler",
            {"engine": "torch", "rtol": 1e-6},
            r"^unknown torch option 'rtol'; known: method\.$",
        ),
    ],
)
def test_options_that_are_refused(integrator, options, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), integrator, **{"engine": "scipy", **options})


def test_evaluations_are_counted(monkeypatch):
    """Looking for the equilibrium is work as well."""
    calls = []
    original = SparseProblem.vector_field
    monkeypatch.setattr(SparseProblem, "vector_field", lambda *args: calls.append(1) or original(*args))
    for options in ({}, {"stop_change": 1e-6}):
        calls.clear()
        trajectory = solve(problem_of(mlp_case()), "scipy:RK45", dt=0.2, steps=20, **options)
        assert trajectory.feedback_applications == 3 * len(calls)


def test_numpys_complaints_stay_inside():
    """Overflow on the way to a divergence is said once, by the error."""
    case = mlp_case()
    with torch.no_grad():
        case.network.projections["hidden3->output"].weight.mul_(1e200)
    problem = RelaxationProblem(case.network, case.network.feedforward(case.x), torch.full((3, 4), 1e200))
    with np.errstate(all="raise"), pytest.raises(DivergenceError):
        solve(problem, "euler", engine="scipy", dt=0.2)
