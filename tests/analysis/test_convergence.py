"""What is measured over time is the project's norm of what `solve` passes through."""

import torch
from cases import graph_case

from actrelax.analysis.convergence import errors_over_time
from actrelax.models.agreement import disagreement
from actrelax.models.backprop import activity_gradients
from actrelax.models.engines import solve
from actrelax.models.problem import RelaxationProblem


def test_errors_over_time():
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    gradients = activity_gradients(case.network, case.x, case.y)
    measured = errors_over_time(problem, gradients, integrator="euler", steps=400, eta=0.1, every=100)
    states = solve(problem, "euler", steps=400, eta=0.1, every=100, record=True).recorded
    for name in case.network.hidden:
        expected = [disagreement(x, gradients[name]) for x in states[name]]
        assert torch.equal(measured.recorded[name], torch.tensor(expected))
        assert expected[0] > 0.1
        assert expected[-1] < 1e-9
