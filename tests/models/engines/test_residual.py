"""Residuals of both phases. Oracles: PyTorch's modules, and autograd's vector-Jacobian products."""

import pytest
import torch
from networks import RECURRENT, responses_of

from actrelax.models.engines import Settle, Steps, settle, solve
from actrelax.models.engines.residual import residual_of_pass, residual_of_state
from actrelax.models.problem import RelaxationProblem, UnitDynamics


@pytest.fixture(params=list(RECURRENT))
def case(request):
    return RECURRENT[request.param]()


def relative(change, x):
    """Return the largest change of each sample, over its largest activity, one population and sample at a time."""
    return torch.tensor(
        [float(c.abs().max() / one.abs().max()) for c, one in zip(change.detach(), x.detach(), strict=True)]
    )


@pytest.mark.catches("one residual for the whole batch")
def test_of_a_forward_phase_that_has_not_settled(case):
    passed = settle(case.network, case.x, Settle(Steps(3, eta=0.5), "euler"))
    towards = responses_of(case, passed.activities)
    inside = [name for cycle in case.network.graph.cycles for name in cycle]
    by_name = {name: relative(towards[name] - passed.activities[name], passed.activities[name]) for name in inside}
    found = residual_of_pass(passed)
    assert torch.allclose(found, torch.stack(list(by_name.values())).amax(0), rtol=1e-9)
    assert float(found.min()) > 1e-3
    assert len(found.unique()) == len(case.x)  # each sample has its own
    for name in inside:
        assert torch.allclose(residual_of_pass(passed, [name]), by_name[name], rtol=1e-9)


@pytest.mark.parametrize("dynamics", [False, True])
def test_of_a_relaxation_that_has_not_settled(case, dynamics):
    passed = settle(case.network, case.x, Settle(Steps.until(1e-10, eta=0.5)))
    some = {case.network.hidden[0]: UnitDynamics.second_order(1.0, 0.9)} if dynamics else {}
    problem = RelaxationProblem.from_batch(case.network, passed, case.y, start="zero", dynamics=some)
    state = solve(problem, "euler", 12, dt=0.2).state
    x = {name: problem.units[name].activity(state) for name in problem.relaxing}
    rates = {name: r.clone().requires_grad_() for name, r in passed.activities.items()}
    towards = responses_of(case, rates)
    names = [*case.network.hidden, case.network.output]
    sent = [problem.clamped if name == case.network.output else x[name] for name in names]
    feedback = torch.autograd.grad([towards[name] for name in names], [rates[name] for name in x], sent)
    expected = [relative(u - x[name], x[name]) for name, u in zip(x, feedback, strict=True)]
    found = residual_of_state(problem, state)
    assert torch.allclose(found, torch.stack(expected).amax(0), rtol=1e-9)
    assert float(found.min()) > 1e-3


def test_is_zero_for_a_silent_sample():
    case = RECURRENT["dense"]()
    with torch.no_grad():
        case.network.projections["input->a"].bias.zero_()
    case.x[1] = 0.0
    passed = settle(case.network, case.x, Settle(Steps(3, eta=0.5)))
    assert float(residual_of_pass(passed)[1]) == 0
    problem = RelaxationProblem(case.network, passed, torch.zeros(3, 4), start="zero")
    assert residual_of_state(problem, problem.initial_state()).tolist() == [0, 0, 0]
