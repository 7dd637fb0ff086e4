"""Gradients of the settled loss equal finite differences, and backprop through the settling steps."""

import pytest
import torch
from hypothesis import given, settings
from networks import RECURRENT, hierarchy_case, recurrent_graphs, responses_of

from actrelax.analysis.implicit_gradients import implicit_gradients
from actrelax.models.engines import Settle, Steps, settle, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import LOSSES, RelaxationProblem
from actrelax.models.results import relative_error


def rates_of(case):
    return settle(case.network, case.x, Settle(Steps.until(1e-14, eta=0.5)))


def settled_loss(case, injected, steps=400):
    """Return the loss of each sample at the fixed point of r = f(a(r)) + injected, with autograd's graph."""
    network = case.network
    rates = {name: torch.zeros_like(x) for name, x in injected.items()} | {network.input: case.x}
    for _ in range(steps):
        responses = responses_of(case, rates)
        rates = rates | {v: rates[v] + 0.5 * (responses[v] + injected[v] - rates[v]) for v in network.hidden}
    return LOSSES[case.loss].value(responses_of(case, rates)[network.output], case.y)


def silent(case, rates):
    return {name: torch.zeros_like(rates.activities[name]) for name in case.network.hidden}


@pytest.mark.parametrize("name", RECURRENT)
def test_they_are_backprop_through_the_settling_steps(name):
    case = RECURRENT[name]()
    rates = rates_of(case)
    injected = {name: x.requires_grad_() for name, x in silent(case, rates).items()}
    expected = torch.autograd.grad(settled_loss(case, injected).sum(), [*injected.values()])
    found = implicit_gradients(case.network, rates, case.y, loss=case.loss)
    assert [*found] == [*case.network.hidden, case.network.output]
    for name, gradient in zip(injected, expected, strict=True):
        assert relative_error(found[name], gradient) < 1e-10


def test_they_are_differences_of_the_settled_loss():
    case = hierarchy_case()
    rates = rates_of(case)
    found = implicit_gradients(case.network, rates, case.y)["a"]
    for unit in (0, 4):
        step, losses = 1e-4, []
        for sign in (1, -1):
            injected = silent(case, rates)
            injected["a"][:, unit] = sign * step
            losses.append(settled_loss(case, injected))
        assert relative_error((losses[0] - losses[1]) / (2 * step), found[:, unit]) < 1e-7


@settings(max_examples=30)
@given(recurrent_graphs())
def test_a_relaxation_rests_there(case):
    rates = rates_of(case)
    found = implicit_gradients(case.network, rates, case.y, loss=case.loss)
    problem = RelaxationProblem.from_batch(case.network, rates, case.y, loss=case.loss)
    rest = solve(problem, "sequential", Steps.until(1e-14, of="change", eta=0.5, most=2_000)).final
    for name in case.network.hidden:
        assert relative_error(rest[name], found[name]) < 1e-9


def test_a_singular_system_is_refused():
    case = RECURRENT["dense"]()
    with torch.no_grad():
        case.network.projections["a->a"].weight.copy_(torch.eye(7))
        case.network.projections["input->a"].weight.zero_()
        case.network.projections["input->a"].bias.zero_()
    rates = settle(case.network, case.x)  # silent, where every gain is 1: I - M = 0
    with pytest.raises(ActrelaxError, match=r"^GMRES left a relative residual of .*: give a network farther from"):
        implicit_gradients(case.network, rates, case.y)
