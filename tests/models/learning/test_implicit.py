"""Implicit differentiation of settled rates. Oracles: autograd through 500 forward steps, dense linear solves."""

import copy

import numpy as np
import pytest
import torch
from networks import RECURRENT, hierarchy_case, recurrent_case, responses_of

from actrelax.models.engines import Settle, Steps
from actrelax.models.learning import (
    BackwardOptions,
    activity_gradients,
    backprop_backward,
    parameter_gradients,
    relax_backward,
)
from actrelax.models.learning.implicit import ImplicitPass
from actrelax.models.network import Projection
from actrelax.models.results import relative_error

TIGHT = BackwardOptions(settle=Settle(Steps.until(1e-13, eta=0.4)))


@pytest.fixture(params=list(RECURRENT))
def case(request):
    return RECURRENT[request.param]()


def through_many_steps(case, reduction="mean"):
    """Return loss, gradients of the parameters, and of the activities of each sample's loss, by 500 steps."""
    populations = case.network.populations
    rates = {v: torch.zeros(len(case.x), *populations[v].shape) for v in [*case.network.hidden, "output"]}
    for _ in range(500):
        towards = responses_of(case, {"input": case.x, **rates})
        rates = {v: r + 0.4 * (towards[v] - r) for v, r in rates.items()}
    output = responses_of(case, {"input": case.x, **rates})["output"]
    loss = torch.nn.functional.cross_entropy(output, case.y, reduction=reduction)
    parameters = dict(case.network.named_parameters())
    return loss, dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_parameters_get_the_gradient_through_many_steps(case, reduction):
    loss, expected = through_many_steps(case, reduction)
    network = copy.deepcopy(case.network)
    result = backprop_backward(network, case.x, case.y, reduction=reduction, options=TIGHT)
    for name, parameter in network.named_parameters():
        assert relative_error(parameter.grad, expected[name]) < 1e-9
    assert float(result.loss) == pytest.approx(float(loss.detach()), rel=1e-11)
    assert float(max(r.max() for r in result.residual.values())) < 1e-11
    found = parameter_gradients(case.network, case.x, case.y, reduction=reduction, options=TIGHT)
    for name, parameter in case.network.named_parameters():
        assert relative_error(found[parameter], expected[name]) < 1e-9


def test_activities_get_the_solution_of_the_linear_system(case):
    """x = (I - J^T)^-1 e over all hidden populations, with the Jacobian of all of them at the rates."""
    tight = Settle(Steps.until(1e-13, eta=0.4))
    found = activity_gradients(case.network, case.x, case.y, settle=tight)
    assert list(found) == [*case.network.hidden, "output"]
    passed = ImplicitPass(case.network, case.x, TIGHT).passed
    names, shapes = case.network.hidden, [case.network.populations[v].shape for v in case.network.hidden]
    for i in range(len(case.x)):

        def responses(r, i=i):
            parts = torch.split(r, [s.numel() for s in map(torch.Size, shapes)])
            rates = {v: part.view(1, *s) for v, part, s in zip(names, parts, shapes, strict=True)}
            towards = responses_of(case, {"input": case.x[i : i + 1], **rates})
            return torch.cat([towards[v].flatten() for v in [*names, "output"]])

        r = torch.cat([passed.activities[v][i].flatten() for v in names]).detach()
        jacobian = torch.autograd.functional.jacobian(responses, r).numpy()
        top = found["output"][i].flatten().numpy()
        expected = np.linalg.solve(np.eye(len(r)) - jacobian[: len(r)].T, jacobian[len(r) :].T @ top)
        ours = torch.cat([found[v][i].flatten() for v in names])
        assert relative_error(ours, torch.tensor(expected)) < 1e-9


def test_it_calls_no_adjoint_of_the_rule(case, monkeypatch):
    def refuse(*_):
        raise AssertionError("an adjoint of the local rule")

    for name in ("feedback_signal", "feedback_from_weights", "postsynaptic", "plasticity"):
        monkeypatch.setattr(Projection, name, refuse)
    backprop_backward(case.network, case.x, case.y)
    assert all(p.grad is not None for p in case.network.parameters())
    with pytest.raises(AssertionError, match="an adjoint"):
        relax_backward(case.network, case.x, case.y)


def test_the_default_is_close_to_the_exact_gradient(case):
    """The rates settle to 1e-2, the linear system to 1e-6."""
    _, expected = through_many_steps(case)
    result = backprop_backward(case.network, case.x, case.y)
    for name, parameter in case.network.named_parameters():
        assert relative_error(parameter.grad, expected[name]) < 0.1
    assert result.report.above == {"forward": pytest.approx(0.1), "backward": pytest.approx(1e-5)}
    assert float(result.residual["backward"].max()) < 1e-5


def test_dropped_samples_learn_nothing():
    case = hierarchy_case(gain=0.9)
    few = Settle(Steps(6, eta=0.4))
    residual = backprop_backward(case.network, case.x, case.y, options=BackwardOptions(settle=few)).residual["forward"]
    bound = float(residual.sort().values[:2].mean())
    kept = residual <= bound
    options = BackwardOptions(settle=few, unsettled="drop", unsettled_above=bound)
    found = parameter_gradients(case.network, case.x, case.y, options=options)
    alone = BackwardOptions(settle=few)
    expected = parameter_gradients(case.network, case.x[kept], case.y[kept], options=alone)
    everything = parameter_gradients(case.network, case.x, case.y, options=alone)
    for w, gradient in found.items():
        assert relative_error(gradient, expected[w]) < 1e-6
    assert max(relative_error(gradient, everything[w]) for w, gradient in found.items()) > 1e-2


def test_hooks_see_the_whole_gradient():
    case, seen = recurrent_case(), []
    weight = case.network.projections["a->a"].weight
    expected = parameter_gradients(case.network, case.x, case.y, reduction="mean")[weight]
    weight.register_hook(lambda g: seen.append(g.clone()))
    backprop_backward(case.network, case.x, case.y)
    assert len(seen) == 1
    assert relative_error(seen[0], expected) < 1e-9


def test_in_half_precision_the_system_is_solved_in_single():
    """Products are rounded to 8 bits, and the tolerance is no finer."""
    case = hierarchy_case()
    half = copy.deepcopy(case.network).bfloat16()
    result = backprop_backward(half, case.x.bfloat16(), case.y)
    assert result.residual["backward"].dtype == torch.float32
    assert result.report.above["backward"] == pytest.approx(40 * 2**-7)
    assert bool(result.report.in_both.all())
    expected = parameter_gradients(case.network, case.x, case.y, reduction="mean")
    for p, q in zip(half.parameters(), case.network.parameters(), strict=True):
        assert p.grad.dtype == torch.bfloat16
        cosine = torch.nn.functional.cosine_similarity(p.grad.double().flatten(), expected[q].flatten(), dim=0)
        assert cosine > 0.99
