"""`relax_backward` and related functions: arguments, side effects and refused calls."""

import copy
from dataclasses import replace

import pytest
import torch
from networks import RECURRENT, exploding_case, graph_case, mlp_case, responses_of

from actrelax.models.engines import Settle, Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, backprop_backward, relax_backward
from actrelax.models.learning import relax as learning
from actrelax.models.results import DivergenceError, relative_error

RULES = [relax_backward, backprop_backward]


def gradients(rule, case, **options):
    network = copy.deepcopy(case.network)
    rule(network, case.x, case.y, **options)
    return {name: p.grad for name, p in network.named_parameters()}


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
    """Only the loss function runs with gradients enabled."""
    case = graph_case()
    modes = []
    original = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda *args: modes.append(torch.is_grad_enabled()) or original(*args)
    )
    result = relax_backward(case.network, case.x, case.y, options=BackwardOptions(keep=True))
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
        {"steps": Steps.until(0.5, of="change", eta=0.2, most=12)},
    ):
        other = gradients(relax_backward, case, **options)
        assert relative_error(other["input->conv1.weight"], base["input->conv1.weight"]) > 1e-3, options
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
    case.x[0, 0] = float("inf")  # tanh hides it from all populations above
    with pytest.raises(DivergenceError, match=r'^population "input" is non-finite at the start'):
        relax_backward(case.network, case.x, case.y)
    assert all(p.grad is None for p in case.network.parameters())
    relax_backward(case.network, case.x, case.y, options=BackwardOptions(check_finite=False))
    assert any(torch.isnan(p.grad).any() for p in case.network.parameters())


def test_what_is_refused(generator):
    case = mlp_case()
    case.network.add_feedback("kolen-pollack", generator)
    with pytest.raises(ActrelaxError, match=r'"kolen-pollack" feedback needs a decay rate: pass updates=Updates'):
        relax_backward(case.network, case.x, case.y, assumptions="kolen-pollack")
    with pytest.raises(ActrelaxError, match=r'^decay needs "kolen-pollack" feedback'):
        relax_backward(case.network, case.x, case.y, options=BackwardOptions(Updates(decay=0.1)))
    with pytest.raises(ActrelaxError, match=r"^continuous plasticity changes weights .*: use relax_continuously\.$"):
        relax_backward(case.network, case.x, case.y, assumptions="continuous")
    with pytest.raises(ActrelaxError, match=r"^unknown reduction 'none'; known: mean, sum\.$"):
        BackwardOptions(reduction="none")
    with pytest.raises(ActrelaxError, match=r"^updates must be an Updates, got 'sum': pass Updates\(clip=\.\.\.\)\.$"):
        BackwardOptions("sum")
    with pytest.raises(ActrelaxError, match=r"^factors names an unknown kind of projection 'convolution'"):
        Updates(factors={"convolution": 2.0})
    with pytest.raises(ActrelaxError, match=r"^the updates' clip must be positive, got 0\.$"):
        Updates(clip=0)
    with pytest.raises(ActrelaxError, match=r"^decay must be 0 or positive, got -1\.$"):
        Updates(decay=-1)


def test_keeping_gives_the_trajectory_and_the_same_gradients():
    case = graph_case()
    result = relax_backward(case.network, case.x, case.y, 9, options=BackwardOptions(keep=True))
    kept = {name: p.grad.clone() for name, p in case.network.named_parameters()}
    assert result.trajectory.evaluation == "closed-form"
    problem = result.trajectory.problem
    for name, x in learning.run(learning.resolve(problem, "sequential", Steps(9))).final.items():
        assert torch.equal(result.trajectory.final[name], x)
    case.network.zero_grad()
    without = relax_backward(case.network, case.x, case.y, steps=9)
    assert without.trajectory is None
    for name, p in case.network.named_parameters():
        assert relative_error(p.grad, kept[name]) < 1e-14
    assert torch.equal(without.loss, result.loss)
    assert torch.equal(without.output, result.output)
    assert bool(without.finite)


@pytest.mark.parametrize("evaluation", ["auto", "closed-form", "stepped"])
def test_a_relaxation_that_diverges_is_not_learned_from(evaluation, generator):
    """The error names the population and the step."""
    case = exploding_case(generator)
    for p in case.network.parameters():
        p.grad = torch.ones_like(p)
    fields = {"assumptions": "random-feedback", "integrator": "euler", "start": "zero", "steps": 50, "eta": 0.5}
    options = BackwardOptions(evaluation=evaluation)
    with pytest.raises(DivergenceError, match=r'^population "hidden1" became non-finite at step 3 of 50: lower eta'):
        relax_backward(case.network, case.x, case.y, options=options, **fields)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in case.network.parameters())
    options = replace(options, check_finite=False)
    result = relax_backward(case.network, case.x, case.y, options=options, **fields)
    assert result.finite.shape == ()
    assert not bool(result.finite)
    assert bool(relax_backward(mlp_case().network, case.x, case.y, options=options).finite)


def test_a_closed_form_that_another_engine_would_ignore():
    case, at_once = mlp_case(), BackwardOptions(evaluation="closed-form")
    with pytest.raises(
        ActrelaxError, match=r'^the closed form needs engine="torch", got "scipy": leave evaluation out\.$'
    ):
        relax_backward(case.network, case.x, case.y, integrator="RK45", options=at_once)
    with pytest.raises(ActrelaxError, match=r"^unknown evaluation 'fast'; known: auto, stepped, closed-form\.$"):
        BackwardOptions(evaluation="fast")
    with pytest.raises(
        ActrelaxError, match=r'^evaluation="closed-form" can\'t be used here: the closed form needs a linear'
    ):
        relax_backward(case.network, case.x, case.y, clip=0.1, options=at_once)
    relax_backward(case.network, case.x, case.y, 3, integrator="RK45", options=BackwardOptions(evaluation="stepped"))


@pytest.mark.parametrize("preset", ["learned-feedback", "random-feedback", "sign-feedback"])
def test_missing_feedback_weights_are_an_error(preset):
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"'hidden1->hidden2' has no \w+ feedback weights: call network"):
        relax_backward(case.network, case.x, case.y, assumptions=preset)


@pytest.mark.parametrize("preset", ["learned-feedback", "kolen-pollack", "random-feedback", "sign-feedback"])
def test_a_saved_network_brings_its_feedback_weights(preset, generator, tmp_path):
    case = graph_case()
    fresh = copy.deepcopy(case.network)
    case.network.add_feedback(preset, generator)
    torch.save(case.network.state_dict(), tmp_path / "network.pt")
    fresh.load_state_dict(torch.load(tmp_path / "network.pt"))
    options = BackwardOptions(Updates(decay=0.1 if preset == "kolen-pollack" else None))
    for network in (case.network, fresh):
        relax_backward(network, case.x, case.y, assumptions=preset, options=options)
    assert {name for name, _ in fresh.named_parameters()} == {name for name, _ in case.network.named_parameters()}
    for p, q in zip(case.network.projections.values(), fresh.projections.values(), strict=True):
        if p.weight is not None:
            assert torch.equal(p.weight.grad, q.weight.grad)


@pytest.mark.parametrize("name", list(RECURRENT))
def test_on_networks_with_cycles_gradients_are_autograds_through_many_forward_steps(name):
    case = RECURRENT[name]()
    populations = case.network.populations
    rates = {v: torch.zeros(len(case.x), *populations[v].shape) for v in [*case.network.hidden, "output"]}
    for _ in range(500):
        towards = responses_of(case, {"input": case.x, **rates})
        rates = {v: r + 0.4 * (towards[v] - r) for v, r in rates.items()}
    loss = torch.nn.functional.cross_entropy(responses_of(case, {"input": case.x, **rates})["output"], case.y)
    parameters = dict(case.network.named_parameters())
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    tight = BackwardOptions(settle=Settle(Steps.until(1e-13, eta=0.4)))
    for integrator, steps in (("equilibrium", Steps.until(1e-12)), ("sequential", Steps.until(1e-12, eta=0.4))):
        network = copy.deepcopy(case.network)
        result = relax_backward(network, case.x, case.y, steps, integrator=integrator, options=tight)
        assert float(result.loss) == pytest.approx(float(loss.detach()), rel=1e-11)
        for key, parameter in network.named_parameters():
            assert relative_error(parameter.grad, expected[key]) < 1e-9
    with pytest.warns(UserWarning, match=r"samples have not settled after 2 steps"):
        relax_backward(case.network, case.x, case.y, options=BackwardOptions(settle=Settle(Steps.until(most=2))))


def test_settle_must_be_a_settle():
    with pytest.raises(
        ActrelaxError, match=r"^settle must be a Settle, got 0\.5: pass Settle\(Steps\.until\(1e-6, eta="
    ):
        BackwardOptions(settle=0.5)


def test_agree_must_be_a_function():
    with pytest.raises(ActrelaxError, match=r"^agree must be a function of a tensor, got 3: pass one"):
        BackwardOptions(agree=3)
