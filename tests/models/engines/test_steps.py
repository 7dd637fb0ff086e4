"""Step size and number of steps: dt or eta, steps or duration, or a tolerance. Each refusal is one sentence."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import INTEGRATORS, PAPERS, Steps, schedule, solve
from actrelax.models.engines.steps import as_steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Status, relative_error

EULER = INTEGRATORS["euler"]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_duration_and_steps_mean_the_same():
    problem = problem_of(mlp_case(), tau=20.0)
    by_time = solve(problem, "rk4", dt=0.5, duration=15.0)
    assert by_time.steps == 30
    assert torch.equal(by_time.final["hidden1"], solve(problem, "rk4", dt=0.5, steps=30).final["hidden1"])


def test_several_taus_need_dt():
    problem = problem_of(mlp_case(), tau={"hidden1": 2.0})
    for options in ({}, {"eta": 0.1}):
        with pytest.raises(
            ActrelaxError, match=r"^eta is dt/tau and needs one tau, but the problem has several: give dt"
        ):
            solve(problem, "euler", **options)
    with pytest.raises(ActrelaxError, match=r'^eta must lie between 0 and 2 for "euler", got 2\.5'):
        solve(problem, "euler", dt=2.5)


def test_eta_above_one_warns():
    problem = problem_of(mlp_case())
    with pytest.warns(UserWarning, match=r"^eta is 1\.5, above 1: errors may grow"):
        solve(problem, "euler", eta=1.5, steps=3)
    solve(problem, "exponential", eta=1.5, steps=3)
    solve(problem, "euler", eta=1.0, steps=3)


@pytest.mark.parametrize(
    "text",
    [
        "Steps()",
        "Steps(0)",
        "Steps(100, eta=0.1)",
        "Steps(7, dt=2.5)",
        "Steps(dt=1.0, duration=200.0)",
        "Steps(eta=0.5)",
        "Steps.until(1e-06, of='activity', most=10000)",
        "Steps.until(0.001, of='gradient', eta=0.1, most=10000)",
        "Steps.until(0.001, of='change', dt=2.0, most=1)",
    ],
)
def test_the_repr_is_the_call(text):
    steps = eval(text, {"Steps": Steps})
    assert repr(steps) == text
    for same in (pickle.loads(pickle.dumps(steps)), copy.deepcopy(steps), eval(text, {"Steps": Steps})):
        assert same == steps
        assert hash(same) == hash(steps)


def test_a_number_of_numpys_is_a_number():
    steps = Steps(np.int64(7), eta=np.float32(0.5))
    assert (steps, type(steps.number)) == (Steps(7, eta=0.5), int)
    assert Steps.until(most=np.int8(7)) == Steps.until(1e-6, of="activity", most=7)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Steps(-1), r"^steps must be a whole number, 0 or more, got -1\.$"),
        (lambda: Steps(2.5), r"^steps must be a whole number, 0 or more, got 2\.5\.$"),
        (lambda: Steps("auto"), r"^steps must be a whole number, 0 or more, got 'auto'\.$"),
        (lambda: Steps(3, duration=1.0), r"^a number of steps and duration exclude each other: give one of them\.$"),
        (lambda: Steps(dt=0.1, eta=0.1), r"^dt and eta exclude each other: give one of them\.$"),
        *[
            (
                lambda name=name, value=value: Steps(3, **{name: value}),
                rf"^{name} must be a positive number, got {said}\.$",
            )
            for name in ("dt", "eta")
            for value, said in ((0.0, r"0\.0"), (-1, "-1"), (math.inf, "inf"), (math.nan, "nan"), ("1", "'1'"))
        ],
        (lambda: Steps(duration=-1.0), r"^duration must be a number, 0 or more, got -1\.0\.$"),
        (lambda: Steps(duration=math.inf), r"^duration must be a number, 0 or more, got inf\.$"),
        (lambda: Steps(duration="1"), r"^duration must be a number, 0 or more, got '1'\.$"),
        (lambda: Steps(tolerance=0.1), r"^a tolerance needs a largest number of steps: use Steps\.until\.$"),
        *[
            (lambda value=value: Steps.until(value), rf"^tolerance must lie between 0 and 1, got {said}\.$")
            for value, said in ((0.0, r"0\.0"), (1, "1"), (math.nan, "nan"), ("a", "'a'"))
        ],
        (lambda: Steps.until(of="w"), r"^unknown of 'w'; known: activity, gradient, change\.$"),
        (lambda: Steps.until(most=0), r"^most must be a whole number, 1 or more, got 0\.$"),
        (lambda: Steps.until(most=2.5), r"^most must be a whole number, 1 or more, got 2\.5\.$"),
        (lambda: Steps.until(dt=0.1, eta=0.1), r"^dt and eta exclude each other: give one of them\.$"),
    ],
)
def test_what_is_refused(make, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        make()


def test_as_steps():
    assert as_steps(PAPERS, {}) is PAPERS
    assert as_steps(PAPERS, {"eta": None, "dt": None}) is PAPERS
    assert as_steps(PAPERS, {"eta": 0.3}) == Steps(100, eta=0.3)
    assert as_steps(PAPERS, {"dt": 0.3}) == Steps(100, dt=0.3)
    assert as_steps(PAPERS, {"dt": 0.3, "duration": 3.0}) == Steps(dt=0.3, duration=3.0)
    assert as_steps(PAPERS, {"duration": 3.0}) == Steps(duration=3.0)
    assert as_steps(7, {"eta": 0.3}) == Steps(7, eta=0.3)
    assert as_steps(Steps(7), {"eta": None}) == Steps(7)


@pytest.mark.parametrize(
    ("steps", "shorthand", "sentence"),
    [
        (
            Steps(3),
            {"eta": 0.2},
            r"^eta must be a part of steps, got Steps\(3\) beside: pass Steps\(..., eta=0\.2\)\.$",
        ),
        (
            Steps(3, eta=0.1),
            {"dt": 0.2, "duration": 4.0},
            r"^dt and duration must be a part of steps, got Steps\(3, eta=0\.1\) beside: "
            r"pass Steps\(..., dt=0\.2, duration=4\.0\)\.$",
        ),
        (Steps.until(), {"eta": 0.2}, r"^eta must be a part of steps, got Steps\.until\(1e-06, of='activity', most=10"),
        (3, {"duration": 4.0}, r"^a number of steps and duration exclude each other: give one of them\.$"),
        ("auto", {}, r"^steps must be a whole number, 0 or more, got 'auto'\.$"),
        (3, {"tolerance": 0.1}, r"^unknown keyword 'tolerance'; known: eta, dt, duration\.$"),
    ],
)
def test_what_is_refused_of_a_call(steps, shorthand, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        as_steps(steps, shorthand)
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), "euler", steps, **shorthand)


@pytest.mark.parametrize("steps", [Steps(), Steps(100, eta=0.1), Steps.until(), 100])
def test_the_equilibrium_takes_no_steps(steps):
    problem = problem_of(mlp_case())
    said = repr(steps) if isinstance(steps, Steps) else f"Steps({steps})"
    with pytest.raises(ActrelaxError) as refused:
        solve(problem, "equilibrium", steps)
    assert str(refused.value) == f'"equilibrium" is a single sweep without time: leave steps out, got {said}.'
    assert solve(problem, "equilibrium", PAPERS).steps == 1


def test_what_steps_mean_for_a_problem():
    problem = problem_of(mlp_case(), tau=2.0)
    for steps, dt, number in (
        (PAPERS, 0.2, 100),
        (Steps(), 0.2, 100),
        (Steps(0), 0.2, 0),
        (Steps(7, eta=0.5), 1.0, 7),
        (Steps(7, dt=0.5), 0.5, 7),
        (Steps(duration=6.0), 0.2, 30),
        (Steps(dt=0.3, duration=3.0), 0.3, 10),
    ):
        grid = schedule(problem, EULER, steps)
        assert (grid.dt, grid.steps, grid.to_settle) == (dt, number, False)
    with pytest.raises(ActrelaxError, match=r"^duration must be a whole number of dt, got 1 with dt 0\.3\.$"):
        schedule(problem, EULER, Steps(dt=0.3, duration=1.0))


def test_only_a_tolerance_of_the_gradient_is_measured():
    problem = problem_of(mlp_case())
    for steps in (Steps(7), Steps.until(1e-3), Steps.until(1e-3, of="change")):
        grid = schedule(problem, EULER, steps)
        assert grid.measured(problem, EULER) is grid
    asked = schedule(problem, EULER, Steps.until(1e-3, of="gradient", most=500))
    assert (asked.steps, asked.tolerance, asked.to_settle) == (500, 1e-3, True)
    grid = asked.measured(problem, EULER)
    assert (grid.dt, grid.settles, grid.tolerance) == (asked.dt, True, None)
    assert grid.steps < 500
    short = schedule(problem, EULER, Steps.until(1e-3, of="gradient", most=grid.steps - 1)).measured(problem, EULER)
    assert (short.settles, short.steps) == (False, grid.steps - 1)


@pytest.mark.parametrize("integrator", ["euler", "sequential", "rk4"])
def test_a_change_is_of_a_step(integrator):
    """Relative to the largest activity of the population; the step before it changed by more."""
    problem = problem_of(mlp_case())
    trajectory = solve(problem, integrator, Steps.until(1e-5, of="change", eta=0.2))
    assert (trajectory.status, trajectory.evaluation, trajectory.success) == (Status.SETTLED, "stepped", True)
    x = solve(problem, integrator, trajectory.steps, eta=0.2, record=True).recorded

    def change(n):
        return max(relative_error(x[name][n - 1], x[name][n]) for name in problem.network.hidden)

    assert change(trajectory.steps) <= 1e-5 < change(trajectory.steps - 1)


@pytest.mark.parametrize("of", ["activity", "gradient", "change"])
def test_most_ends_it_with_a_warning(of):
    problem = problem_of(mlp_case())
    with pytest.warns(UserWarning, match=r"^not settled after most = 7 steps: pass Steps\.until with a larger most or"):
        trajectory = solve(problem, "euler", Steps.until(1e-6, of=of, eta=0.2, most=7))
    assert (trajectory.status, trajectory.steps, trajectory.success) == (Status.NOT_SETTLED, 7, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solve(problem, "euler", Steps.until(1e-6, of=of, eta=0.2)).status is Status.SETTLED
