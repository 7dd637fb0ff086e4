"""A relaxation without noise, delays and clip keeps its equilibrium, and the time constants of its units."""

import pytest
from networks import mlp_case

from actrelax.analysis.deterministic import deterministic
from actrelax.models.engines import solve
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error


@pytest.mark.parametrize("tau", [2.0, {"hidden2": 0.5, "input": 3.0}])
def test_its_equilibrium_is_that_of_the_problem(tau):
    case = mlp_case()
    fields = {"noise": 0.1, "input_noise": 0.2, "delays": 0.4, "tau": tau}
    problem = deterministic(RelaxationProblem.from_batch(case.network, case.x, case.y, **fields))
    assert not problem.is_noisy
    assert not problem.delay.times
    assert deterministic(RelaxationProblem.from_batch(case.network, case.x, case.y, clip=1.0)).clip is None
    plain = RelaxationProblem.from_batch(case.network, case.x, case.y)
    rest, expected = (solve(each, "equilibrium").final["hidden1"] for each in (problem, plain))
    assert relative_error(rest, expected) < 1e-12
    slow = problem.units["hidden2"].tau
    assert float(slow) == (0.5 if isinstance(tau, dict) else 2.0)
