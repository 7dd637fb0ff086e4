"""The closed form with delays equals the stepped relaxation, and Euler's closed form without delays."""

import numpy as np
import pytest
from networks import graph_case, make_case, mlp_case
from torch import nn

from actrelax import solve
from actrelax.analysis.delays import delayed_coefficients, delayed_state
from actrelax.models.closed_form import hop_matrix
from actrelax.models.engines import INTEGRATORS
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import coefficients
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

UNEQUAL = {"hidden1->hidden2": 0.6, "hidden2->hidden3": 1.0, "hidden3->output": 0.4}


@pytest.mark.parametrize("steps", [2, 4, 12])
@pytest.mark.parametrize("delays", [0.4, UNEQUAL], ids=["equal", "unequal"])
def test_delayed_states_are_those_of_steps(delays, steps):
    """States agree before, while and after the first feedback arrives, with one tau per population."""
    case = mlp_case()
    tau = {"hidden1": 0.7, "hidden2": 1.3}
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, tau=tau, delays=delays)
    stepped, prompt = (
        solve(p, "euler", dt=0.2, steps=steps).final
        for p in (problem, RelaxationProblem.from_batch(case.network, case.x, case.y, tau=tau))
    )
    predicted = delayed_state(problem, dt=0.2, steps=steps)
    for name in case.network.hidden:
        assert relative_error(predicted[name], stepped[name]) < 1e-12
    assert relative_error(prompt["hidden1"], stepped["hidden1"]) > 1e-3


def test_without_delays_it_is_eulers_law():
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, tau={"hidden2": 2.0})
    law = coefficients(INTEGRATORS["euler"].transition, hop_matrix(problem), 0.2, 12)
    np.testing.assert_allclose(delayed_coefficients(problem, dt=0.2, steps=12), law, rtol=1e-12, atol=0)


def test_parallel_projections_share_a_delay():
    case = make_case(
        (3,),
        {"a": "tanh", "b": "tanh", "output": "identity"},
        [
            ("input", "a", [nn.Linear(3, 4)]),
            ("a", "b", [nn.Linear(4, 4)]),
            ("a", "b", []),
            ("b", "output", [nn.Linear(4, 2)]),
        ],
    )
    first, second = (p.name for p in case.network.outgoing["a"])
    for late, accepted in ((0.4, True), (0.2, False)):
        problem = RelaxationProblem.from_batch(case.network, case.x, case.y, delays={first: 0.4, second: late})
        if accepted:
            stepped = solve(problem, "euler", dt=0.2, steps=6).final
            assert relative_error(delayed_state(problem, dt=0.2, steps=6)["a"], stepped["a"]) < 1e-12
        else:
            with pytest.raises(ActrelaxError, match="needs one delay for all projections between two populations"):
                delayed_state(problem, dt=0.2, steps=6)


def test_what_has_no_law_is_refused():
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, delays=0.2)
    with pytest.raises(ActrelaxError, match="the closed form of delayed feedback needs a chain"):
        delayed_coefficients(problem, dt=0.2, steps=3)
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, delays=0.2, clip=1.0)
    with pytest.raises(ActrelaxError, match="needs a linear relaxation: leave clip out"):
        delayed_state(problem, dt=0.2, steps=3)
