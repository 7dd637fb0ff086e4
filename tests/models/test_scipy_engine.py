"""The SciPy engine. Oracles: the torch engine for our own steps, the exact law for `solve_ivp`'s methods."""

import warnings

import numpy as np
import pytest
import torch
from cases import graph_case, mlp_case

from actrelax.models.agreement import disagreement
from actrelax.models.assumptions import PRESETS
from actrelax.models.backprop import activity_gradients
from actrelax.models.closed_form import predict
from actrelax.models.engines import engine_named, solve, unsupported
from actrelax.models.errors import ActrelaxError, DivergenceError
from actrelax.models.foreign import SCIPY, integrator_named
from actrelax.models.integrators import INTEGRATORS
from actrelax.models.learning import relax_backward
from actrelax.models.problem import RelaxationProblem
from actrelax.models.trajectory import Status
from actrelax.models.units import UnitDynamics

OURS = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]
METHODS = [f"scipy:{method}" for method in SCIPY]
ADAPTING = UnitDynamics.adapting(0.8, 2.0, 1.5)


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def closest(final, expected):
    return max(disagreement(final[name], x) for name, x in expected.items())


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
    ours, theirs = solve(problem, name, **options), solve(problem, name, engine="scipy", **options)
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
    from actrelax.models.flat import FlatProblem

    problem = problem_of(mlp_case(), assumptions="unfrozen", tau={"hidden2": 0.05})
    right = solve(problem, method, dt=0.5, duration=2.0, rtol=1e-5).feedback_applications
    original = FlatProblem.jacobian
    monkeypatch.setattr(FlatProblem, "jacobian", lambda flat, state: -original(flat, state))
    assert solve(problem, method, dt=0.5, duration=2.0, rtol=1e-5).feedback_applications > 1.5 * right


def test_recording_and_dense_output():
    """What is recorded every dt is where the exact law is then; `at` is what is recorded, and more."""
    problem = problem_of(mlp_case())
    trajectory = solve(problem, "scipy:DOP853", dt=0.3, steps=7, record=True, every=2, rtol=1e-11, atol=1e-14)
    assert trajectory.times == pytest.approx((0, 0.6, 1.2, 1.8))
    for i, time in enumerate(trajectory.times):
        exact = predict(problem, INTEGRATORS["exact"], dt=time or 1.0, steps=int(time > 0))
        for name, x in exact.items():
            assert disagreement(trajectory[name][i], x) < 1e-7  # DOP853 interpolates with order 7
            assert torch.equal(trajectory.at(time)[name], trajectory[name][i])
    between = predict(problem, INTEGRATORS["exact"], dt=0.77, steps=1)
    assert closest(trajectory.at(0.77), between) < 1e-7
    assert list(trajectory.at(0.77)) == list(trajectory.final)
    assert closest(trajectory.at(2.1), trajectory.final) < 1e-13
    for time in (-0.1, 2.2):
        with pytest.raises(ActrelaxError, match=r"^this relaxation is known from 0 to 2\.1, not at "):
            trajectory.at(time)
    assert solve(problem, "euler", engine="scipy", steps=2).at is None


def test_recording_activities_of_units_with_dynamics():
    trajectory = solve(
        problem_of(mlp_case(), dynamics={"hidden1": ADAPTING}), "scipy:RK45", dt=0.2, steps=4, record=True
    )
    assert list(trajectory.recorded) == list(trajectory.at(0.3)) == ["hidden1", "hidden2", "hidden3", "output"]
    assert list(trajectory.state) == ["hidden3", "hidden2", "hidden1.0", "hidden1.1"]


@pytest.mark.parametrize("method", METHODS)
def test_stops_at_equilibrium(method):
    """When the change over dt is small; there, within dt of where that is so, activities are the gradients."""
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    trajectory = solve(problem_of(case), method, dt=0.2, duration=200.0, stop_change=1e-6, record="hidden1")
    assert trajectory.status is Status.SETTLED
    assert trajectory.steps < 500
    assert trajectory.time == trajectory.times[-1] <= trajectory.steps * 0.2 < trajectory.time + 0.2
    assert len(trajectory.times) == trajectory.steps + 1
    change = problem_of(case).vector_field(trajectory.state)
    largest = max(0.2 * float(change[v].abs().max() / trajectory.state[v].abs().max()) for v in change)
    assert largest == pytest.approx(1e-6, rel=0.05)
    assert max(disagreement(trajectory.final[name], gradients[name]) for name in case.network.hidden) < 1e-4
    assert torch.equal(trajectory["hidden1"][-1], trajectory.at(trajectory.time)["hidden1"])
    short = solve(problem_of(case), method, dt=0.2, duration=1.0, stop_change=1e-6)
    assert (short.status, short.steps) == (Status.NOT_SETTLED, 5)


@pytest.mark.parametrize("method", METHODS)
def test_a_start_at_equilibrium_is_seen(method):
    case = mlp_case()
    exact = solve(problem_of(case), "equilibrium").state
    trajectory = solve(problem_of(case, start=exact), method, dt=0.2, steps=50, stop_change=1e-6, record=True)
    assert (trajectory.status, trajectory.steps, trajectory.time) == (Status.SETTLED, 0, 0.0)
    assert trajectory.times == (0.0,)
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
    with pytest.raises(
        ActrelaxError,
        match=r"^no end in sight at t = [\d.]+ after 300 evaluations: with relu and current gains take fixed steps, el",
    ):
        solve(problem, method, dt=1.0, duration=50.0, max_evaluations=300)
    solve(problem, "sequential", dt=0.1, duration=5.0, engine="scipy")
    # the limit is what it says: as many evaluations as it takes are allowed, one fewer is not
    smooth = problem_of(mlp_case())
    needed = solve(smooth, method, dt=0.5, duration=1.0).feedback_applications // 3
    solve(smooth, method, dt=0.5, duration=1.0, max_evaluations=needed)
    with pytest.raises(ActrelaxError, match=rf"after {needed - 1:,} evaluations"):
        solve(smooth, method, dt=0.5, duration=1.0, max_evaluations=needed - 1)


@pytest.mark.parametrize("by_warning", [False, True], ids=["success", "warning"])
def test_a_method_that_gives_up_says_why(by_warning, monkeypatch):
    """By `success`, which is read, and as LSODA does, by a warning; what it says is in the sentence."""
    real = engine_named("scipy").solve_ivp

    def gives_up(*args, **options):
        solution = real(*args, **options)
        solution.success, solution.message = False, "Repeated convergence failures."
        if by_warning:
            warnings.warn("lsoda: Repeated convergence failures.", stacklevel=2)
        return solution

    monkeypatch.setattr(engine_named("scipy"), "solve_ivp", gives_up)
    with pytest.raises(
        ActrelaxError, match=r"^SciPy's LSODA gave up at t = 1: (lsoda: )?Repeated convergence failures\.$"
    ):
        solve(problem_of(mlp_case()), "scipy:LSODA", dt=0.5, steps=2)


@pytest.mark.parametrize("integrator", ["euler", *METHODS])
def test_divergence_names_population_and_step(integrator, generator):
    case = mlp_case()
    case.network.add_feedback("random-feedback", generator)
    for p in case.network.projections.values():
        if p.feedback is not None:
            p.feedback.mul_(1e110)
    problem = problem_of(case, assumptions="random-feedback", start="zero")
    options = {} if integrator == "euler" else {"rtol": 1e-3}
    if integrator[6:] in engine_named("scipy").SPARSE_JACOBIAN:  # their linear algebra fails before
        with pytest.raises(
            ActrelaxError, match=r"^(SciPy's \w+ gave up at t = 0|population \"hidden[123]\" became non-f)"
        ):
            solve(problem, integrator, steps=50, dt=0.5, engine="scipy", **options)
        return
    with pytest.raises(
        DivergenceError, match=r'^population "hidden[12]" became non-finite at step \d+ of 50: l'
    ) as caught:
        solve(problem, integrator, steps=50, dt=0.5, record=True, engine="scipy", **options)
    reached = caught.value.trajectory
    assert reached.status is Status.DIVERGED
    assert all(torch.isfinite(x).all() for x in reached.final.values())
    if integrator == "euler":
        assert str(caught.value).startswith('population "hidden1" became non-finite at step 3 of 50')
        assert (reached.steps, reached.times) == (2, (0.0, 0.5, 1.0))
        assert reached.final["hidden2"].any()


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
        ours = relax_backward(case.network, case.x, case.y, integrator=integrator, dt=0.2, steps=20)
        assert ours.trajectory.engine == "scipy"
        gradients = {name: p.grad.clone() for name, p in case.network.named_parameters()}
        case.network.zero_grad()
        relax_backward(case.network, case.x, case.y, integrator="exact", dt=0.2, steps=20)
        for name, p in case.network.named_parameters():
            assert gradients[name].dtype == torch.float32
            assert disagreement(gradients[name], p.grad) < 1e-4


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
        ("scipy:RK45", {"atol": -1.0}, r"^atol must be 0 or positive, got -1\.$"),
        ("scipy:RK45", {"max_evaluations": 0}, r"^max_evaluations must be a whole number, 1 or more, got 0\.$"),
        (
            "scipy:RK45",
            {"max_step": 0.1},
            r"^unknown option of the engine scipy 'max_step'; known: rtol, atol, max_eval",
        ),
        ("euler", {"rtol": 1e-6}, r'^"euler" takes fixed steps: leave out rtol\.$'),
        (
            "scipy:RK45",
            {"engine": "torch"},
            r"^\"scipy:RK45\" can't be used on torch here: \"scipy:RK45\" is a method of",
        ),
        ("euler", {"engine": "torch", "rtol": 1e-6}, r"^unknown option of the engine torch 'rtol'; known: none\.$"),
    ],
)
def test_options_that_are_refused(integrator, options, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), integrator, **{"engine": "scipy", **options})


def test_evaluations_are_counted(monkeypatch):
    """Looking for the equilibrium is work as well."""
    from actrelax.models.flat import FlatProblem

    calls = []
    original = FlatProblem.vector_field
    monkeypatch.setattr(FlatProblem, "vector_field", lambda *args: calls.append(1) or original(*args))
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
