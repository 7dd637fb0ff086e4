"""Step size and number of steps: dt or eta, steps or duration."""

import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem


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
