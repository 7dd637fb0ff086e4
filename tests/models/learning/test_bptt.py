"""Backprop through time. Oracles: PyTorch's modules in a loop, and the relaxation that equals its last steps."""

import copy

import pytest
import torch
from networks import RECURRENT, mlp_case, recurrent_case, responses_of

from actrelax.models.engines import Settle, Steps, settle
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, backprop_backward, bptt_backward, relax_backward
from actrelax.models.network import Projection
from actrelax.models.results import DivergenceError, relative_error

TIGHT = Settle(Steps.until(1e-14, eta=0.3), "euler")


@pytest.fixture(params=list(RECURRENT))
def case(request):
    return RECURRENT[request.param]()


def gradients(rule, case, **arguments):
    network = copy.deepcopy(case.network)
    result = rule(network, case.x, case.y, **arguments)
    return {name: p.grad for name, p in network.named_parameters()}, result


def by_hand(case, steps, eta, *, sweeps=False, start=None):
    """Return loss and gradients by a loop over PyTorch's modules."""
    populations, hidden = case.network.populations, case.network.hidden
    rates = {v: torch.zeros(len(case.x), *populations[v].shape) for v in hidden}
    rates = {"input": case.x, **rates, **(start or {})}
    for _ in range(steps):
        new = dict(rates)
        for v in hidden:
            new[v] = rates[v] + eta * (responses_of(case, new if sweeps else rates)[v] - rates[v])
        rates = new
    loss = torch.nn.functional.cross_entropy(responses_of(case, rates)["output"], case.y)
    parameters = dict(case.network.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return loss, {
        k: g if g is not None else torch.zeros_like(parameters[k]) for k, g in zip(parameters, found, strict=True)
    }


@pytest.mark.parametrize(("integrator", "sweeps"), [("euler", False), ("sequential", True)])
def test_equals_a_loop_over_modules(case, integrator, sweeps):
    loss, expected = by_hand(case, 7, 0.4, sweeps=sweeps)
    options = BackwardOptions(settle=Settle(Steps(7, eta=0.4), integrator))
    found, result = gradients(bptt_backward, case, options=options)
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-12
    assert float(result.loss) == pytest.approx(float(loss.detach()), rel=1e-12)
    assert result.report.steps == {"forward": 7}
    other, _ = gradients(
        bptt_backward,
        case,
        options=BackwardOptions(settle=Settle(Steps(7, eta=0.4), "euler" if sweeps else "sequential")),
    )
    if len(case.network.hidden) > 1:
        assert max(relative_error(other[name], expected[name]) for name in found) > 1e-3


@pytest.mark.parametrize("last", [1, 5, 20])
def test_the_last_steps_are_steps_of_a_relaxation_from_zero(case, last):
    settled = BackwardOptions(settle=TIGHT)
    expected, _ = gradients(bptt_backward, case, last=last, options=settled)
    found, _ = gradients(relax_backward, case, steps=Steps(last, eta=0.3), integrator="euler", options=settled)
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-12 or not expected[name].any()
    start = settle(case.network, case.x, TIGHT).activities
    _, plain = by_hand(case, last, 0.3, start={name: start[name] for name in case.network.hidden})
    for name, gradient in expected.items():
        assert relative_error(gradient, plain[name]) < 1e-11 or not plain[name].any()


def test_through_all_steps_it_is_the_implicit_gradient(case):
    options = BackwardOptions(settle=TIGHT)
    found, result = gradients(bptt_backward, case, options=options)
    expected, _ = gradients(backprop_backward, case, options=options)
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-9
    assert float(result.residual["forward"].max()) < 1e-13
    assert 30 < result.report.steps["forward"] < 1000


def test_until_a_tolerance_it_ends_where_the_change_is_small(case):
    options = BackwardOptions(settle=Settle(Steps.until(1e-2, eta=0.5), "euler"))
    found, result = gradients(bptt_backward, case, options=options)
    steps = result.report.steps["forward"]
    _, expected = by_hand(case, steps, 0.5)
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-12
    assert 3 < steps < 60


def test_starts_where_it_is_told():
    case = recurrent_case()
    start = {"a": torch.randn(3, 7, generator=torch.Generator().manual_seed(5))}
    options = BackwardOptions(settle=Settle(Steps(2, eta=0.4), "euler", start))
    found, _ = gradients(bptt_backward, case, options=options)
    _, expected = by_hand(case, 2, 0.4, start=start)
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-12


def test_dropped_samples_learn_nothing():
    case = recurrent_case(gain=0.9)
    few = Settle(Steps(5, eta=0.4))
    residual = gradients(bptt_backward, case, options=BackwardOptions(settle=few))[1].residual["forward"]
    bound = float(residual.sort().values[:2].mean())
    kept = residual <= bound
    options = BackwardOptions(Updates(clip=1e9), "sum", settle=few, unsettled="drop", unsettled_above=bound)
    found, result = gradients(bptt_backward, case, options=options)
    assert int(result.report.count) == 2
    case.x, case.y = case.x[kept], case.y[kept]
    expected, _ = gradients(bptt_backward, case, options=BackwardOptions(reduction="sum", settle=few))
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-12


@pytest.mark.parametrize(
    ("where", "begin"),
    [
        ("loop", 'population "a" became non-finite at step 5 of 12: lower eta'),
        ("stimuli", 'population "input" is non-finite at the start: look for inf and nan'),
    ],
)
def test_rates_that_are_not_finite_stop_it_like_the_other_rules(where, begin):
    case, how = recurrent_case(activation="identity"), Settle(Steps(12, eta=0.5))
    if where == "loop":
        with torch.no_grad():
            case.network.projections["a->a"].weight.mul_(1e100)
    else:
        case.x[1, 2] = torch.nan
    said = []
    for rule in (bptt_backward, backprop_backward, relax_backward):
        with pytest.raises(DivergenceError) as caught:
            rule(case.network, case.x, case.y, options=BackwardOptions(settle=how))
        said.append(str(caught.value))
    assert said[0] == said[1] == said[2]
    assert said[0].startswith(begin)
    assert all(p.grad is None for p in case.network.parameters())
    result = bptt_backward(case.network, case.x, case.y, options=BackwardOptions(settle=how, check_finite=False))
    assert not bool(result.finite)


def test_it_calls_no_adjoint_of_the_rule(case, monkeypatch):
    for name in ("feedback_signal", "feedback_from_weights", "postsynaptic", "plasticity"):
        monkeypatch.setattr(Projection, name, None)
    bptt_backward(case.network, case.x, case.y)
    assert all(p.grad is not None for p in case.network.parameters())


def test_what_is_refused():
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"^bptt_backward needs a network with cycles: call backprop_backward\.$"):
        bptt_backward(case.network, case.x, case.y)
    case = recurrent_case()
    for how, message in (
        (Settle(integrator="rk4"), r'^bptt_backward differentiates steps of "euler" or "sequential", got "rk4"\.$'),
        (Settle(Steps(3, eta=2.5)), r'^eta must lie between 0 and 2 for "sequential", got 2\.5: take a sm'),
        (Settle(Steps(eta=0.5, duration=3.0)), r"^bptt_backward takes a number of steps, got Steps\(eta=0\.5, dur"),
        (Settle(start={"b": torch.zeros(3, 7)}), r"^start names an unknown population 'b'; known: a\."),
        (Settle(start={"a": torch.zeros(1, 7)}), r"^start must give population 'a' a state of shape \(3, 7\)"),
    ):
        with pytest.raises(ActrelaxError, match=message):
            bptt_backward(case.network, case.x, case.y, options=BackwardOptions(settle=how))
    with pytest.raises(ActrelaxError, match=r"^last must be a whole number, 1 or more, got 0"):
        bptt_backward(case.network, case.x, case.y, last=0)
    assert all(p.grad is None for p in case.network.parameters())
