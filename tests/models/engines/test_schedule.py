"""Schedules: dt or eta, a number of steps or a duration, or a tolerance."""

import warnings

import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import INTEGRATORS, PAPERS, Steps, schedule, solve
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


@pytest.mark.parametrize("steps", [Steps(), Steps(100, eta=0.2), Steps.until(), 100])
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
        assert (grid.dt, grid.steps) == (dt, number)
        assert grid.settles is grid.tolerance is grid.stop_change is None
    with pytest.raises(ActrelaxError, match=r"^duration must be a whole number of dt, got 1 with dt 0\.3\.$"):
        schedule(problem, EULER, Steps(dt=0.3, duration=1.0))


def test_only_a_tolerance_of_the_gradient_is_measured():
    problem = problem_of(mlp_case())
    for steps in (Steps(7), Steps.until(1e-3), Steps.until(1e-3, of="change")):
        grid = schedule(problem, EULER, steps)
        assert grid.measured(problem, EULER) is grid
    asked = schedule(problem, EULER, Steps.until(1e-3, of="gradient", most=500))
    assert (asked.steps, asked.tolerance, asked.settles, asked.stop_change) == (500, 1e-3, None, None)
    grid = asked.measured(problem, EULER)
    assert (grid.dt, grid.settles, grid.tolerance) == (asked.dt, True, None)
    assert grid.steps < 500
    short = schedule(problem, EULER, Steps.until(1e-3, of="gradient", most=grid.steps - 1)).measured(problem, EULER)
    assert (short.settles, short.steps) == (False, grid.steps - 1)


@pytest.mark.parametrize("integrator", ["euler", "sequential", "rk4"])
def test_a_change_is_of_a_step(integrator):
    """The change per step is relative to the population's largest activity; it was larger one step before."""
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
    with pytest.warns(UserWarning, match=r"^not settled after 7 steps: pass Steps\.until with a larger most or"):
        trajectory = solve(problem, "euler", Steps.until(1e-6, of=of, eta=0.2, most=7))
    assert (trajectory.status, trajectory.steps, trajectory.success) == (Status.NOT_SETTLED, 7, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solve(problem, "euler", Steps.until(1e-6, of=of, eta=0.2)).status is Status.SETTLED
