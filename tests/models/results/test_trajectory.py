"""Recorded values of a trajectory, and its errors against the gradient."""

import numpy as np
import pytest
import torch
from networks import exploding_case, mlp_case

from actrelax.models.engines import Steps, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import DivergenceError, Record, Status


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_errors_need_activities():
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    means = solve(problem_of(case), steps=2, record=lambda state: {"hidden1": state["hidden1"].mean(1)})
    with pytest.raises(
        ActrelaxError, match=r"^the values recorded as 'hidden1' are not the population's activity: leave"
    ):
        means.error(gradients)


@pytest.mark.parametrize("record", [False, True, Record({"hidden1": [0, 2]})])
def test_a_gradient_of_another_shape_is_named(record):
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    trajectory = solve(problem_of(case), steps=2, record=record)
    with pytest.raises(ActrelaxError, match=r"^the gradient of 'hidden1' must have shape \(3, 7\), got \(2, 7\)\.$"):
        trajectory.error(gradients | {"hidden1": gradients["hidden1"][:2]})


def test_errors_over_time():
    """max |x - gradient| / max |gradient| of each population and each point in time, by hand."""
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    trajectory = solve(problem_of(case), "euler", 12, eta=0.2, record=Record(["hidden1", "hidden3"], every=4))
    errors = trajectory.error(gradients)
    assert list(errors) == ["hidden1", "hidden3"]
    for name, error in errors.items():
        g = gradients[name].numpy()
        expected = [np.abs(x.numpy() - g).max() / np.abs(g).max() for x in trajectory[name]]
        np.testing.assert_allclose(error, expected, rtol=1e-13)
        assert error.shape == (4,)
        assert error[-1] < error[0]
    unrecorded = solve(problem_of(case), "euler", eta=0.2, steps=12).error(gradients)
    assert list(unrecorded) == [name for name in gradients if name != "input"]
    assert torch.equal(unrecorded["hidden1"], errors["hidden1"][-1:])


def test_unknown_names():
    problem = problem_of(mlp_case())
    some = solve(problem, steps=2, record=["hidden1", "output"])
    with pytest.raises(ActrelaxError, match=r"^'hidden2' was not recorded; recorded: hidden1, output\.$"):
        some["hidden2"]
    with pytest.raises(
        ActrelaxError, match=r"^'hidden2' was not recorded; recorded: nothing: pass record=True to solve\.$"
    ):
        solve(problem, steps=2)["hidden2"]
    assert some["hidden1"] is some.recorded["hidden1"]


def test_times_are_an_array_too():
    recorded = solve(problem_of(mlp_case()), "euler", 6, dt=0.1, record=Record(every=2))
    assert isinstance(recorded.t, np.ndarray)
    assert recorded.t.dtype == np.float64
    assert recorded.t.tolist() == list(recorded.times) == [0.0, 0.2, 0.4, 0.6]
    assert solve(problem_of(mlp_case()), "euler", 6).t.shape == (0,)
    assert solve(problem_of(mlp_case()), "equilibrium", record=True).t.tolist() == [0.0, np.inf]


def test_success_is_all_steps_or_settled(generator):
    problem = problem_of(mlp_case())
    ended = {integrator: solve(problem, integrator) for integrator in ("euler", "RK45", "equilibrium")}
    assert all(each.success and each.status is Status.COMPLETED for each in ended.values())
    settled = solve(problem, "euler", Steps.until())
    assert settled.success
    assert settled.status is Status.SETTLED
    with pytest.warns(UserWarning, match="^not settled after 3 steps"):
        assert not solve(problem, "euler", Steps.until(most=3)).success
    exploding = problem_of(exploding_case(generator), assumptions="random-feedback", start="zero")
    with pytest.raises(DivergenceError) as caught:
        solve(exploding, "euler", 50, eta=0.5)
    assert not caught.value.trajectory.success


def test_times_have_a_unit():
    """For axes and files; times are units of tau only where it is 1."""
    for fields, engine, unit in (
        ({}, "torch", "units of tau"),
        ({"tau": dict.fromkeys(["hidden1", "hidden2", "hidden3"], 1.0)}, "torch", "units of tau"),
        ({"tau": 10.0}, "torch", "the unit of tau"),
        (
            {"tau": torch.tensor(1.0), "dynamics": {"hidden1": UnitDynamics.second_order(1.0, 0.5)}},
            "torch",
            "the unit of tau",
        ),
        ({"tau": 10.0}, "brian2", "ms"),
    ):
        trajectory = solve(problem_of(mlp_case(), **fields), "euler", dt=0.1, steps=1, engine=engine)
        assert trajectory.time_unit == trajectory.to_xarray()["time"].attrs["units"] == unit
