"""The rates of networks with cycles. Oracles: forward steps with PyTorch's modules, fixed points by root finding."""

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from networks import RECURRENT, drives_of, graph_case, hierarchy_case, recurrent_case, responses_of
from scipy.optimize import brentq
from torch import nn

from actrelax.models.engines import Settle, Steps, settle
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, Projection

TIGHT = Settle(Steps.until(1e-13, eta=0.5))


@pytest.fixture(params=list(RECURRENT))
def case(request):
    return RECURRENT[request.param]()


def one_unit(weight, stimuli):
    """Return the network r = tanh(weight r + x) with an output that copies r, and its stimuli."""
    projections = [
        Projection("input", "a", nn.Linear(1, 1, bias=False)),
        Projection("a", "a", nn.Linear(1, 1, bias=False)),
        Projection("a", "output"),
    ]
    with torch.no_grad():
        projections[0].weight.fill_(1.0)
        projections[1].weight.fill_(weight)
    return Network((1,), {"a": "tanh", "output": "identity"}, projections), torch.tensor(stimuli)[:, None]


@pytest.mark.parametrize("integrator", ["sequential", "euler", "heun", "rk4", "exponential"])
def test_rates_are_those_of_many_forward_steps(case, integrator):
    moving = [*case.network.hidden, case.network.output]
    rates = {name: torch.zeros(len(case.x), *case.network.populations[name].shape) for name in moving}
    with torch.no_grad():
        for _ in range(600):
            towards = responses_of(case, {"input": case.x, **rates})
            rates = {name: r + 0.4 * (towards[name] - r) for name, r in rates.items()}
    passed = settle(case.network, case.x, Settle(Steps.until(1e-13, eta=0.5), integrator))
    assert list(passed.activities) == list(case.network.populations)
    for name in moving:
        assert float((passed.activities[name] - rates[name]).abs().max()) < 1e-11 * float(rates[name].abs().max())
    drives = drives_of(case, passed.activities)
    for name in moving:
        assert torch.allclose(passed.drives[name], drives[name], rtol=0, atol=1e-14)
    assert passed.responses.keys() == {name for cycle in case.network.graph.cycles for name in cycle}


def test_without_cycles_it_is_the_feedforward_pass():
    case = graph_case()
    passed, expected = settle(case.network, case.x), case.network.feedforward(case.x)
    for one, other in zip(passed.tensors(), expected.tensors(), strict=True):
        assert torch.equal(one, other)


def test_populations_outside_cycles_are_evaluated_once(monkeypatch):
    case, calls, find = hierarchy_case(), Counter(), Projection.find
    monkeypatch.setattr(Projection, "find", lambda p, x: calls.update([p.name]) or find(p, x))
    settle(case.network, case.x)
    inside = {"a->b", "b->c", "a->c", "a->a", "b->b", "c->b", "b->a"}
    assert {name: calls[name] for name in calls if name not in inside} == dict.fromkeys(calls.keys() - inside, 1)
    assert min(calls[name] for name in inside) > 5


def test_the_tolerance_bounds_the_residual(case):
    for tolerance in (1e-2, 1e-4):
        passed = settle(case.network, case.x, Settle(Steps.until(tolerance, eta=0.5), "euler"))
        for name in passed.responses:
            residual = float((passed.responses[name] - passed.activities[name]).abs().max())
            assert residual <= 1.01 * tolerance * float(passed.activities[name].abs().max())
        largest = max(
            float((passed.responses[name] - passed.activities[name]).abs().max() / passed.activities[name].abs().max())
            for name in passed.responses
        )
        assert largest > tolerance / 10  # it ends as soon as it may


def test_samples_that_have_not_settled_are_counted():
    """Strong inhibition: at eta = 1 all samples but a silent one oscillate; at eta = 0.3 they settle."""
    network, x = one_unit(-3.0, [0.0, 0.3, -0.5])
    with pytest.warns(UserWarning, match=r"^2 of 3 samples have not settled after 50 steps in the cycle of a: a "):
        settle(network, x, Settle(Steps.until(1e-6, eta=1.0, most=50)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = settle(network, x, Settle(Steps.until(1e-12, eta=0.3))).activities["output"]
        settle(network, x, Settle(Steps(3, eta=1.0)))  # no tolerance was asked for
    expected = [brentq(lambda r, b=float(b): np.tanh(-3 * r + b) - r, -1, 1, xtol=1e-15) for b in x]
    assert np.allclose(found[:, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_the_start_chooses_among_fixed_points():
    network, x = one_unit(2.0, [0.0, 0.0])
    start = {"a": torch.tensor([[0.1], [-0.1]])}
    found = settle(network, x, Settle(Steps.until(1e-13, eta=0.5), start=start)).activities["a"]
    expected = brentq(lambda r: np.tanh(2 * r) - r, 0.1, 1, xtol=1e-15)
    assert np.allclose(found[:, 0].numpy(), [expected, -expected], rtol=0, atol=1e-12)
    assert not settle(network, x).activities["a"].any()  # which is a fixed point too, an unstable one


def test_what_is_refused():
    case = recurrent_case()
    with pytest.raises(ActrelaxError, match=r"got a cycle of a: call settle\(network, x\)\.$"):
        case.network(case.x)
    with pytest.raises(ActrelaxError, match=r"^steps must be Steps, got 30: pass Steps\(30, eta=0\.5\)"):
        Settle(30)
    for how in (Steps.until(1e-3), 0):
        with pytest.raises(ActrelaxError, match=r"^how must be a Settle, got .*: pass Settle\("):
            settle(case.network, case.x, how)
    with pytest.raises(ActrelaxError, match=r"^start names an unknown population 'output'; known: a\."):
        settle(case.network, case.x, Settle(start={"output": torch.zeros(3, 4)}))
    with pytest.raises(ActrelaxError, match=r"^start must give population 'a' a state of shape \(3, 7\)"):
        settle(case.network, case.x, Settle(start={"a": torch.zeros(2, 7)}))
    with pytest.raises(ActrelaxError, match=r'^"equilibrium" can\'t be used here: the forward phase is nonlinear'):
        settle(case.network, case.x, Settle(integrator="equilibrium"))
    with pytest.raises(ActrelaxError, match=r"^the network takes \(batch, 8\), got \(3, 7\)\.$"):
        settle(case.network, case.x[:, 1:])
    with pytest.raises(ActrelaxError, match=r"^network must be a Network, got Linear"):
        settle(nn.Linear(2, 2), case.x)
