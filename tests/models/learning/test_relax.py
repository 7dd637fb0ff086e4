"""The public learning calls: what they add to `.grad`, and what they leave alone."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from networks import exploding_case, graph_case, make_case, mlp_case
from torch import nn

from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Updates, backprop_backward, parameter_gradients, relax_backward
from actrelax.models.learning import relax as learning
from actrelax.models.network import Network
from actrelax.models.results import DivergenceError, relative_error

RULES = [relax_backward, backprop_backward]


def gradients(rule, case, **options):
    network = copy.deepcopy(case.network)
    rule(network, case.x, case.y, **options)
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.catches("sum for mean")
@pytest.mark.parametrize("rule", RULES)
def test_reduction(rule):
    case = graph_case()
    mean, total = (gradients(rule, case, updates=Updates(reduction=name)) for name in ("mean", "sum"))
    for name, gradient in total.items():
        assert relative_error(3 * mean[name], gradient) < 1e-14
    default = gradients(rule, case)
    assert all(torch.equal(default[name], gradient) for name, gradient in mean.items())
    losses = [rule(case.network, case.x, case.y, updates=Updates(reduction=name)).loss for name in ("mean", "sum")]
    assert float(losses[1] / losses[0]) == pytest.approx(3)


@pytest.mark.catches("clamp divided by the batch")
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
        assert relative_error(sum(one[name] for one in alone), gradient) < 1e-13


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
        assert relative_error(changed[name], expected) < 1e-14
    assert clipped > 10


@pytest.mark.parametrize("rule", RULES)
def test_adds_to_what_is_there(rule):
    case = graph_case()
    once = gradients(rule, case)
    for p in case.network.parameters():
        p.grad = torch.ones_like(p)
    rule(case.network, case.x, case.y)
    for name, p in case.network.named_parameters():
        assert relative_error(p.grad - 1, once[name]) < 1e-12


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
    result = relax_backward(case.network, case.x, case.y, keep=True)
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
    case.x[0, 0] = float("inf")  # which tanh hides from everything above
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
        assert relative_error(gradient, expected) < 1e-13
    assert all(p.grad is None for p in case.network.parameters())


def test_what_is_refused(generator):
    case = mlp_case()
    case.network.add_feedback("kolen-pollack", generator)
    with pytest.raises(ActrelaxError, match=r'"kolen-pollack" feedback needs a decay rate: pass updates=Updates'):
        relax_backward(case.network, case.x, case.y, assumptions="kolen-pollack")
    with pytest.raises(ActrelaxError, match=r'^decay needs "kolen-pollack" feedback'):
        relax_backward(case.network, case.x, case.y, updates=Updates(decay=0.1))
    with pytest.raises(ActrelaxError, match=r"^continuous plasticity changes weights .*: use relax_continuously\.$"):
        relax_backward(case.network, case.x, case.y, assumptions="continuous")
    with pytest.raises(ActrelaxError, match=r"^unknown reduction 'none'; known: mean, sum\.$"):
        Updates(reduction="none")
    with pytest.raises(ActrelaxError, match=r"^factors names an unknown kind of projection 'convolution'"):
        Updates(factors={"convolution": 2.0})
    with pytest.raises(ActrelaxError, match=r"^the updates' clip must be positive, got 0\.$"):
        Updates(clip=0)
    with pytest.raises(ActrelaxError, match=r"^decay must be 0 or positive, got -1\.$"):
        Updates(decay=-1)


FROZEN = {
    name: p for name, p in PRESETS.items() if not p.is_continuous and all(k.activity_gain != "current" for k in p.both)
}
BELOW = Assumptions(*[Knobs(feedback="learned", weight_gain="current", presynaptic="current")] * 2)
"""The rule reads what arrives later: the drive of the moment and the presynaptic activity."""


def image_case():
    edges = [
        ("input", "conv1", [nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2)]),
        ("conv1", "conv2", [nn.Conv2d(4, 3, 3, padding=1), nn.AvgPool2d(2)]),
        ("conv2", "hidden1", [nn.Flatten(), nn.Linear(12, 7)]),
        ("hidden1", "hidden2", [nn.Linear(7, 6)]),
        ("hidden2", "output", [nn.Linear(6, 5)]),
    ]
    activations = {"conv1": "tanh", "conv2": "relu", "hidden1": "softplus", "hidden2": "sigmoid", "output": "identity"}
    return make_case((2, 8, 8), activations, edges, gain=2.0)


@pytest.mark.parametrize("make", [image_case, graph_case], ids=["chain", "graph"])
@pytest.mark.parametrize("name", [*FROZEN, "below"])
@pytest.mark.parametrize("integrator", ["euler", "sequential", "equilibrium"])
def test_streamed_updates_are_those_of_the_steps(name, make, integrator, generator):
    """Weights, biases and psi: the same rule at the same state, whenever populations arrive and go."""
    case, assumptions = make(), BELOW if name == "below" else name
    case.network.add_feedback(assumptions, generator)
    decay = {"decay": 0.01} if name == "kolen-pollack" else {}
    options = {"assumptions": assumptions, "integrator": integrator}
    if integrator != "equilibrium":
        options |= {"steps": 9, "eta": 0.2}
    for updates in (Updates(reduction="sum", **decay), Updates(factors={"conv": 2.0}, clip=0.02, **decay)):
        stepped = gradients(relax_backward, case, method="stepped", updates=updates, **options)
        assert any(parameter.endswith(".feedback") for parameter in stepped) == ("learned" in str(case.network))
        for more in ({}, {"method": "closed-form"}, {"keep": True}, {"check_finite": False}):
            streamed = gradients(relax_backward, case, updates=updates, **options, **more)
            for parameter, gradient in stepped.items():
                assert relative_error(streamed[parameter], gradient) < 1e-12, parameter
    # the clip is reached, decay comes after it
    assert name == "kolen-pollack" or any(gradient.abs().max() == 0.02 for gradient in stepped.values())


def test_the_rule_reads_what_arrives_later(generator):
    """Otherwise the test above could not see it: the current gain and activity are not those of the feedforward."""
    case = graph_case()
    case.network.add_feedback(BELOW, generator)
    options = {"steps": 9, "eta": 0.2}
    current = gradients(relax_backward, case, assumptions=BELOW, **options)
    frozen = gradients(relax_backward, case, assumptions="learned-feedback", **options)
    assert relative_error(current["conv2->conv3.weight"], frozen["conv2->conv3.weight"]) > 1e-2


def test_keeping_gives_the_trajectory_and_the_same_gradients():
    case = graph_case()
    result = relax_backward(case.network, case.x, case.y, keep=True, steps=9)
    kept = {name: p.grad.clone() for name, p in case.network.named_parameters()}
    assert result.trajectory.method == "closed-form"
    problem = result.trajectory.problem
    for name, x in learning.run(learning.resolve(problem, "sequential", steps=9)).final.items():
        assert torch.equal(result.trajectory.final[name], x)
    case.network.zero_grad()
    without = relax_backward(case.network, case.x, case.y, steps=9)
    assert without.trajectory is None
    for name, p in case.network.named_parameters():
        assert relative_error(p.grad, kept[name]) < 1e-14
    assert torch.equal(without.loss, result.loss)
    assert torch.equal(without.output, result.output)
    assert bool(without.finite)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_at_equilibrium_updates_are_autograds_to_the_last_bits(activation):
    """One sweep by the same kernels in the same order; summed over the batch nothing is divided."""
    case = mlp_case(activation, widths=(20, 30, 10, 15, 5))
    ours = gradients(relax_backward, case, integrator="equilibrium", updates=Updates(reduction="sum"))
    loss = torch.nn.functional.cross_entropy(case.network(case.x), case.y, reduction="sum")
    parameters = dict(case.network.named_parameters())
    for (name, gradient), exact in zip(ours.items(), torch.autograd.grad(loss, parameters.values()), strict=True):
        assert relative_error(gradient, exact) < 3e-16, name  # products in another order differ by an ulp


@pytest.mark.parametrize("how", [{}, {"keep": True}, {"method": "stepped", "steps": 3}])
def test_frozen_projections_hide_no_divergence(generator, how):
    case = exploding_case(generator)
    for p in list(case.network.projections.values())[:2]:
        p.requires_grad_(False)
    options = {"assumptions": "random-feedback", "integrator": "euler", "eta": 0.5, "steps": 50} | how
    with pytest.raises(DivergenceError, match=r'^population "hidden\d" became non-finite at step \d of '):
        relax_backward(case.network, case.x, case.y, **options)


def test_an_activity_behind_a_closed_gain_shows_as_presynaptic_factor():
    """relu's kernel makes 0 of an infinite signal, but the update above multiplies the activity itself."""
    case = mlp_case("relu")
    below, above = list(case.network.projections.values())[:2]
    with torch.no_grad():
        below.bias[0] = -1e3  # its first unit is silent
        above.weight[:, 0] = 1e308
    options = {"assumptions": "current-presynaptic", "integrator": "equilibrium"}
    with pytest.raises(DivergenceError, match=r'^population "hidden1" became non-finite at step 1 of 1'):
        relax_backward(case.network, case.x, case.y, loss=lambda *batch: 1e3 * half_squares(*batch), **options)
    assert all(w.grad is None for w in case.network.parameters())


def half_squares(output, y):
    return (output - F.one_hot(y, output.shape[1])).square().sum(1) / 2


def test_an_update_that_overflows_is_named():
    """Activities of 1e160 are finite, their products with presynaptic rates of 1e160 are not."""
    module = nn.Sequential(nn.Linear(3, 2, bias=False), nn.LeakyReLU(), nn.Linear(2, 2, bias=False))
    network = Network.from_sequential(module, (3,))
    options = {"loss": lambda output, y: 1e160 * output.sum(1), "integrator": "equilibrium"}
    with pytest.raises(
        DivergenceError, match=r"^the update of projection 'input->hidden1' is not finite, although all "
    ):
        relax_backward(network, torch.full((4, 3), 1e160), torch.zeros(4), **options)
    assert all(w.grad is None for w in network.parameters())


@pytest.mark.parametrize(
    ("assumptions", "most"), [("ar", 2), ("unfrozen-weights", 3), ("current-presynaptic", 3)], ids=lambda x: str(x)
)
@pytest.mark.parametrize("integrator", ["equilibrium", "sequential"])
def test_populations_are_freed_as_they_are_used(monkeypatch, assumptions, most, integrator):
    """One that is being made and one that was read last, one more where the rule reads both ends of a projection."""
    alive: list[weakref.ref] = []
    counts = []

    def watched(problem, plan):
        for relaxed in original(problem, plan):
            alive.extend(weakref.ref(x) for name, x in relaxed.state.items() if name != problem.network.output)
            counts.append(sum(reference() is not None for reference in alive))
            yield relaxed

    original = learning.stream
    monkeypatch.setattr(learning, "stream", watched)
    case = mlp_case(widths=(6,) * 12)
    options = {} if integrator == "equilibrium" else {"steps": 30}
    relax_backward(case.network, case.x, case.y, assumptions=assumptions, integrator=integrator, **options)
    assert len(counts) == 11
    assert 1 <= max(counts) <= most
    assert sum(reference() is not None for reference in alive) == 0


@pytest.mark.parametrize("method", ["auto", "closed-form", "stepped"])
def test_a_relaxation_that_diverges_is_not_learned_from(method, generator):
    """The population and the step are named, as the steps find them."""
    case = exploding_case(generator)
    for p in case.network.parameters():
        p.grad = torch.ones_like(p)
    options = {"assumptions": "random-feedback", "integrator": "euler", "start": "zero", "steps": 50, "eta": 0.5}
    with pytest.raises(DivergenceError, match=r'^population "hidden1" became non-finite at step 3 of 50: lower eta'):
        relax_backward(case.network, case.x, case.y, method=method, **options)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in case.network.parameters())
    result = relax_backward(case.network, case.x, case.y, method=method, check_finite=False, **options)
    assert result.finite.shape == ()
    assert not bool(result.finite)
    assert bool(relax_backward(mlp_case().network, case.x, case.y, check_finite=False, method=method).finite)


def test_what_arrives_at_the_output_alone_counts_as_well():
    """Targets that are no numbers make the clamp non-finite."""
    case = mlp_case(widths=(5, 4))
    y = torch.zeros(3, 4)
    y[1, 2] = float("nan")
    result = relax_backward(case.network, case.x, y, loss="sum-of-squares", check_finite=False)
    assert not bool(result.finite)


def test_a_closed_form_that_another_engine_would_ignore():
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"^the closed form needs the engine torch, got scipy: leave out method\.$"):
        relax_backward(case.network, case.x, case.y, integrator="scipy:RK45", method="closed-form")
    with pytest.raises(ActrelaxError, match=r"^unknown method 'fast'; known: auto, stepped, closed-form\.$"):
        relax_backward(case.network, case.x, case.y, integrator="scipy:RK45", method="fast")
    with pytest.raises(
        ActrelaxError, match=r'^method="closed-form" can\'t be used here: the closed form needs a linear'
    ):
        relax_backward(case.network, case.x, case.y, clip=0.1, method="closed-form")
    relax_backward(case.network, case.x, case.y, integrator="scipy:RK45", method="stepped", steps=3)
