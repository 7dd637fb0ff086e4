"""The public learning calls: what they add to `.grad`, and what they leave alone."""

import copy

import pytest
import torch
from cases import graph_case, mlp_case

from actrelax.models.agreement import disagreement
from actrelax.models.backprop import backprop_backward, parameter_gradients
from actrelax.models.errors import ActrelaxError, DivergenceError
from actrelax.models.learning import relax_backward
from actrelax.models.updates import Updates

RULES = [relax_backward, backprop_backward]


def gradients(rule, case, **options):
    network = copy.deepcopy(case.network)
    rule(network, case.x, case.y, **options)
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.parametrize("rule", RULES)
def test_reduction(rule):
    case = graph_case()
    mean, total = (gradients(rule, case, updates=Updates(reduction=name)) for name in ("mean", "sum"))
    for name, gradient in total.items():
        assert disagreement(3 * mean[name], gradient) < 1e-14
    default = gradients(rule, case)
    assert all(torch.equal(default[name], gradient) for name, gradient in mean.items())
    losses = [rule(case.network, case.x, case.y, updates=Updates(reduction=name)).loss for name in ("mean", "sum")]
    assert float(losses[1] / losses[0]) == pytest.approx(3)


def test_the_clamp_is_not_divided_by_the_batch():
    """At any finite n that would give another update: the initial activities don't shrink with the batch."""
    case = graph_case()
    together = gradients(relax_backward, case, updates=Updates(reduction="sum"), steps=12, eta=0.2)
    alone = []
    for i in range(3):
        one = copy.copy(case)
        one.x, one.y = case.x[i : i + 1], case.y[i : i + 1]
        alone.append(gradients(relax_backward, one, updates=Updates(reduction="sum"), steps=12, eta=0.2))
    for name, gradient in together.items():
        assert disagreement(sum(one[name] for one in alone), gradient) < 1e-13


@pytest.mark.parametrize("rule", RULES)
def test_factors_then_clip(rule):
    case = graph_case()
    plain = gradients(rule, case, updates=Updates(reduction="sum"))
    changed = gradients(rule, case, updates=Updates(reduction="sum", factors={"conv": 2.0}, clip=0.1))
    clipped = 0
    for name, gradient in plain.items():
        factor = 2.0 if case.network.kind(case.network.projections[name.rsplit(".", 1)[0]]) == "conv" else 1.0
        expected = (factor * gradient).clamp(-0.1, 0.1)
        clipped += int((expected.abs() == 0.1).sum())
        assert disagreement(changed[name], expected) < 1e-14
    assert clipped > 10


@pytest.mark.parametrize("rule", RULES)
def test_adds_to_what_is_there(rule):
    case = graph_case()
    once = gradients(rule, case)
    for p in case.network.parameters():
        p.grad = torch.ones_like(p)
    rule(case.network, case.x, case.y)
    for name, p in case.network.named_parameters():
        assert disagreement(p.grad - 1, once[name]) < 1e-12


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("grad_mode", [True, False])
def test_changes_nothing_but_grad(rule, grad_mode):
    case = graph_case()
    before = copy.deepcopy(case)
    rng = torch.get_rng_state()
    with torch.set_grad_enabled(grad_mode):
        result = rule(case.network, case.x, case.y)
        assert torch.is_grad_enabled() is grad_mode
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(case.x, before.x)
    assert torch.equal(case.y, before.y)
    for name, value in before.network.state_dict().items():
        assert torch.equal(case.network.state_dict()[name], value)
    assert not result.loss.requires_grad
    assert not result.output.requires_grad
    assert all(p.grad is not None and not p.grad.requires_grad for p in case.network.parameters())
    assert all(p.grad.grad_fn is None for p in case.network.parameters())


def test_builds_no_autograd_graph(monkeypatch):
    """Outside of the loss function nothing runs with gradients enabled."""
    case = graph_case()
    modes = []
    original = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda *args: modes.append(torch.is_grad_enabled()) or original(*args)
    )
    result = relax_backward(case.network, case.x, case.y)
    assert modes
    assert not any(modes)
    assert all(not x.requires_grad for x in result.trajectory.final.values())


def test_the_second_call_gives_the_same():
    case = graph_case()
    first, second = gradients(relax_backward, case), gradients(relax_backward, case)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_fields_of_the_problem_and_of_solve_are_passed_on():
    case = graph_case()
    base = gradients(relax_backward, case, steps=12, eta=0.2)
    for options in (
        {"start": "zero", "steps": 12, "eta": 0.2},
        {"tau": {"hidden1": 3.0}, "steps": 12, "dt": 0.2},
        {"clip": 0.1, "steps": 12, "eta": 0.2},
        {"loss": "sum-of-squares", "steps": 12, "eta": 0.2},
        {"integrator": "euler", "steps": 12, "eta": 0.2},
        {"duration": 3.0, "eta": 0.2},
        {"steps": 12, "eta": 0.2, "stop_change": 0.5},
    ):
        other = gradients(relax_backward, case, **options)
        assert disagreement(other["input->conv1.weight"], base["input->conv1.weight"]) > 1e-3, options
    with pytest.raises(TypeError, match="unexpected keyword argument 'taus'"):
        relax_backward(case.network, case.x, case.y, taus=2.0)


def test_any_optimiser_and_scheduler_trains():
    case = mlp_case()
    optimiser = torch.optim.AdamW(case.network.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 60)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        losses.append(float(relax_backward(case.network, case.x, case.y).loss))
        optimiser.step()
        scheduler.step()
    assert losses[-1] < 0.1 * losses[0]


def test_under_autocast_gradients_keep_the_parameters_precision():
    case = mlp_case()
    network = case.network.float()
    with torch.autocast("cpu", torch.bfloat16):
        relax_backward(network, case.x.float(), case.y)
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())


def test_divergence_leaves_the_gradients_alone():
    case = mlp_case()
    case.x[0, 0] = float("inf")
    with pytest.raises(DivergenceError, match=r'^population "input" is non-finite at the start'):
        relax_backward(case.network, case.x, case.y)
    assert all(p.grad is None for p in case.network.parameters())
    relax_backward(case.network, case.x, case.y, check_finite=False)
    assert any(torch.isnan(p.grad).any() for p in case.network.parameters())


def test_parameter_gradients_are_autograds_summed_over_the_batch():
    case = graph_case()
    found = parameter_gradients(case.network, case.x, case.y)
    loss = torch.nn.functional.cross_entropy(case.network(case.x), case.y, reduction="sum")
    exact = torch.autograd.grad(loss, list(found))
    assert len(found) == len(list(case.network.parameters()))
    for gradient, expected in zip(found.values(), exact, strict=True):
        assert disagreement(gradient, expected) < 1e-13
    assert all(p.grad is None for p in case.network.parameters())


def test_what_is_refused(generator):
    case = mlp_case()
    case.network.add_feedback("kolen-pollack", generator)
    with pytest.raises(ActrelaxError, match=r'"kolen-pollack" feedback needs a rate of decay: pass updates=Updates'):
        relax_backward(case.network, case.x, case.y, assumptions="kolen-pollack")
    with pytest.raises(ActrelaxError, match=r'^decay belongs to "kolen-pollack" feedback'):
        relax_backward(case.network, case.x, case.y, updates=Updates(decay=0.1))
    with pytest.raises(ActrelaxError, match=r"^continuous plasticity changes weights .*: use relax_continuously\.$"):
        relax_backward(case.network, case.x, case.y, assumptions="continuous")
    with pytest.raises(ActrelaxError, match=r"^unknown reduction 'none'; known: mean, sum\.$"):
        Updates(reduction="none")
    with pytest.raises(ActrelaxError, match=r"^unknown kind of projection in factors 'convolution'; known: dense"):
        Updates(factors={"convolution": 2.0})
    with pytest.raises(ActrelaxError, match=r"^the updates' clip must be positive, got 0\.$"):
        Updates(clip=0)
    with pytest.raises(ActrelaxError, match=r"^decay must be 0 or positive, got -1\.$"):
        Updates(decay=-1)
