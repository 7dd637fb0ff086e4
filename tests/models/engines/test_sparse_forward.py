"""The forward phase on SciPy. Oracles: the problem's own vector field, autograd, Runge-Kutta with small steps."""

import numpy as np
import pytest
import torch
from networks import RECURRENT, conv_recurrent_case, responses_of
from torch import nn

from actrelax.models.engines import SciPyOptions, SparseForward, solve, vector
from actrelax.models.problem import ForwardProblem, UnitDynamics

CASES = RECURRENT | {"conv": lambda: conv_recurrent_case(pool=nn.AvgPool2d)}


@pytest.fixture(params=list(CASES))
def problem(request, generator):
    case = CASES[request.param]()
    names = [*case.network.hidden, case.network.output]
    tau = {v: 0.5 + torch.rand(case.network.populations[v].shape, generator=generator) for v in names}
    start = {v: torch.randn(len(case.x), *case.network.populations[v].shape, generator=generator) for v in names}
    return case, ForwardProblem(case.network, case.x, tau=tau, start=start)


def test_field_and_jacobian(problem):
    case, problem = problem
    system, state = SparseForward(problem), problem.initial_state()
    rates = problem.vector_field(state)
    expected = system.join({v: vector(x) for v, x in rates.items()})
    assert np.allclose(system.vector_field(system.initial_state), expected, rtol=0, atol=1e-13)

    def field(y):
        parts = torch.split(y, [x.numel() for x in state.values()])
        r = {v: part.view_as(state[v]) for v, part in zip(state, parts, strict=True)}
        towards = responses_of(case, {"input": case.x, **r})
        return torch.cat([((towards[v] - r[v]) / problem.tau[v]).flatten() for v in r])

    J = torch.autograd.functional.jacobian(field, torch.from_numpy(system.initial_state))
    assert np.allclose(system.jacobian(system.initial_state).toarray(), J.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", ["DOP853", "BDF", "Radau", "LSODA"])
def test_solutions_are_those_of_small_steps(problem, method):
    _, problem = problem
    expected = solve(problem, "rk4", 200, dt=0.01).final
    found = solve(problem, method, 20, dt=0.1, options=SciPyOptions(rtol=1e-10, atol=1e-12)).final
    for name, x in expected.items():
        assert float((found[name] - x).abs().max()) < 1e-7 * float(x.abs().max())


def test_unit_dynamics():
    case = CASES["dense"]()
    swinging = {"a": UnitDynamics.second_order(tau=1.0, damping=0.4)}
    problem = ForwardProblem(case.network, case.x, dynamics=swinging)
    expected = solve(problem, "rk4", 300, dt=0.01).final
    found = solve(problem, "DOP853", 3, dt=1.0, options=SciPyOptions(rtol=1e-10, atol=1e-12)).final
    for name, x in expected.items():
        assert float((found[name] - x).abs().max()) < 1e-8
    assert (
        float((solve(ForwardProblem(case.network, case.x), "rk4", 300, dt=0.01).final["a"] - expected["a"]).abs().max())
        > 0.01
    )
