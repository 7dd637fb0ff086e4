"""A trajectory's recorded values and its errors against the gradient."""

import numpy as np
import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.problem import RelaxationProblem


def problem_of(case):
    return RelaxationProblem.from_batch(case.network, case.x, case.y)


def test_errors_need_activities():
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    means = solve(problem_of(case), steps=2, record=lambda state: {"hidden1": state["hidden1"].mean(1)})
    with pytest.raises(
        ActrelaxError, match=r"^the values recorded as 'hidden1' are not the population's activity: leave"
    ):
        means.error(gradients)


def test_errors_over_time():
    """max |x - gradient| / max |gradient| of each population and each point in time, by hand."""
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    trajectory = solve(problem_of(case), "euler", eta=0.2, steps=12, record=["hidden1", "hidden3"], every=4)
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
