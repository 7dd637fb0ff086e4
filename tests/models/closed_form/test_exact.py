"""The integrator "exact". Oracle: the matrix exponential."""

import pytest
import torch
from networks import graph_case, mlp_case
from reference import exact_flow

from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error


@pytest.mark.parametrize("tau", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.6)])
def test_exact_is_the_flow_in_steps_of_any_size(tau):
    case = mlp_case()
    problem = RelaxationProblem.from_batch(
        case.network, case.x, case.y, tau=dict(zip(case.network.hidden, tau, strict=True))
    )
    for dt, steps in ((2.0, 1), (0.25, 8)):
        trajectory = solve(problem, "exact", dt=dt, steps=steps, record=True)
        assert relative_error(torch.cat(list(trajectory.final.values()), 1), exact_flow(case, 2.0, tau)) < 1e-12
        for time, *recorded in zip(trajectory.times, *trajectory.recorded.values(), strict=True):
            assert relative_error(torch.cat(recorded, 1), exact_flow(case, time, tau)) < 1e-12
    # from a given state, on a graph: two steps equal one of twice the size
    graph = graph_case()
    problem = RelaxationProblem.from_batch(graph.network, graph.x, graph.y)
    state = {name: torch.randn_like(x) for name, x in problem.initial_state().items()}
    step = INTEGRATORS["exact"].step
    once, twice = step(problem, state, 1.4), step(problem, step(problem, state, 0.7), 0.7)
    assert all(relative_error(once[name], x) < 1e-12 for name, x in twice.items())


def test_exact_is_refused_where_there_is_no_law():
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, clip=1.0)
    with pytest.raises(ActrelaxError) as refused:
        solve(problem, "exact", eta=0.1)
    assert str(refused.value) == (
        '"exact" can\'t be used here: '
        "the closed form needs a linear relaxation: leave clip out, or step the relaxation."
    )
