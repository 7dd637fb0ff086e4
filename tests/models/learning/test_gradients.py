"""From summed updates to `.grad`: reduction, clip, decay, learned feedback. Oracles: arithmetic by hand, autograd."""

import copy
import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from networks import graph_case, mlp_case
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import (
    BackwardOptions,
    Updates,
    activity_gradients,
    backprop_backward,
    parameter_gradients,
    relax_backward,
    relax_continuously,
)
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem, from_function
from actrelax.models.results import relative_error

RULES = [relax_backward, backprop_backward]


def options_of(rule, updates=None, reduction="mean"):
    if rule is backprop_backward:
        return {"updates": updates, "reduction": reduction}
    return {"options": BackwardOptions(updates or Updates(), reduction)}


def gradients(rule, case, **options):
    network = copy.deepcopy(case.network)
    rule(network, case.x, case.y, **options)
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.catches("sum for mean")
@pytest.mark.parametrize("rule", RULES)
def test_reduction(rule):
    case = graph_case()
    mean, total = (gradients(rule, case, **options_of(rule, reduction=name)) for name in ("mean", "sum"))
    for name, gradient in total.items():
        assert relative_error(3 * mean[name], gradient) < 1e-14
    default = gradients(rule, case)
    assert all(torch.equal(default[name], gradient) for name, gradient in mean.items())
    losses = [rule(case.network, case.x, case.y, **options_of(rule, reduction=name)).loss for name in ("mean", "sum")]
    assert float(losses[1] / losses[0]) == pytest.approx(3)


@pytest.mark.catches("clamp divided by the batch")
def test_the_clamp_is_not_divided_by_the_batch():
    """Dividing it would change the update at any finite n, because initial activities are not divided."""
    case = graph_case()
    together = gradients(relax_backward, case, options=BackwardOptions(reduction="sum"), steps=12, eta=0.2)
    alone = []
    for i in range(3):
        one = copy.copy(case)
        one.x, one.y = case.x[i : i + 1], case.y[i : i + 1]
        alone.append(gradients(relax_backward, one, options=BackwardOptions(reduction="sum"), steps=12, eta=0.2))
    for name, gradient in together.items():
        assert relative_error(sum(one[name] for one in alone), gradient) < 1e-13


@pytest.mark.parametrize("rule", RULES)
def test_factors_then_clip(rule):
    case = graph_case()
    plain = gradients(rule, case, **options_of(rule, reduction="sum"))
    changed = gradients(rule, case, **options_of(rule, Updates({"conv": 2.0}, clip=0.1), "sum"))
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


def carrying(network):
    return [p for p in network.projections.values() if p.weight is not None and p.source != "input"]


def trained(case, preset, steps, optimiser=torch.optim.SGD, lr=0.05, decay=None, **options):
    optimiser = optimiser(case.network.parameters(), lr=lr, **options)
    for _ in range(steps):
        optimiser.zero_grad()
        relax_backward(case.network, case.x, case.y, assumptions=preset, options=BackwardOptions(Updates(decay=decay)))
        optimiser.step()


@pytest.mark.catches("psi not updated")
@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
def test_feedback_that_starts_at_the_weights_follows_ar(optimiser, generator):
    ar, learned = graph_case(), graph_case()
    learned.network.add_feedback("learned-feedback", generator)
    with torch.no_grad():
        for p in carrying(learned.network):
            p.feedback.copy_(p.weight)
    trained(ar, "ar", 20, optimiser)
    trained(learned, "learned-feedback", 20, optimiser)
    for name, value in ar.network.state_dict().items():
        assert relative_error(learned.network.state_dict()[name], value) < 1e-12, name
    start = graph_case().network.state_dict()
    moved = relative_error(ar.network.state_dict()["conv1->conv2.weight"], start["conv1->conv2.weight"])
    assert moved > 1e-3


def offsets(network):
    return {p.name: (p.weight - p.feedback).detach().clone() for p in carrying(network)}


def test_learned_feedback_keeps_its_offset_under_plain_sgd(generator):
    case = graph_case()
    case.network.add_feedback("learned-feedback", generator)
    before = offsets(case.network)
    trained(case, "learned-feedback", 20)
    for name, offset in offsets(case.network).items():
        assert relative_error(offset, before[name]) < 1e-13


@pytest.mark.catches("decay of W only")
def test_kolen_pollack_shrinks_its_offset_at_the_rate_of_the_decay(generator):
    case = graph_case()
    case.network.add_feedback("kolen-pollack", generator)
    before = offsets(case.network)
    trained(case, "kolen-pollack", 20, lr=0.05, decay=0.4)
    for name, offset in offsets(case.network).items():
        assert relative_error(offset, (1 - 0.05 * 0.4) ** 20 * before[name]) < 1e-12


def test_random_feedback_is_never_touched(generator):
    case = graph_case()
    case.network.add_feedback("random-feedback", generator)
    before = {p.name: p.feedback.clone() for p in carrying(case.network)}
    trained(case, "random-feedback", 5, weight_decay=0.1)
    assert all(torch.equal(p.feedback, before[p.name]) for p in carrying(case.network))


def test_an_empty_batch_is_refused():
    case, module = graph_case(), nn.Linear(4, 3)
    captured = Network.from_module(module, torch.zeros(2, 4))
    for network, x in ((case.network, case.x), (captured, torch.zeros(2, 4))):
        for rule in (*RULES, parameter_gradients, activity_gradients, RelaxationProblem.from_batch):
            with pytest.raises(ActrelaxError, match=r"^a batch needs at least one sample, got stimuli of shape \(0, "):
                rule(network, x[:0], case.y[:0])
    with pytest.raises(ActrelaxError, match=r"^the network's weights are torch.float64 on cpu, got stimuli of torch"):
        backprop_backward(captured, torch.zeros(2, 4).float(), case.y[:2])


def tied_case():
    """Return a network in which two projections share a weight, and its weights."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    module[2].weight = module[0].weight
    return module, torch.rand(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])


def doubled(parameter):
    parameter.grad.mul_(2)


@pytest.mark.parametrize("rule", RULES)
def test_hooks_on_parameters_are_called_as_by_autograd(rule):
    """Hooks are called once per parameter, with its complete gradient, in order of registration."""
    module, x, y = tied_case()
    options = {"integrator": "equilibrium"} if rule is relax_backward else {}
    called = []
    module[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    module[0].weight.register_hook(lambda gradient: called.append(gradient.abs().max()) or 3 * gradient)
    module[4].bias.register_post_accumulate_grad_hook(doubled)
    nn.functional.cross_entropy(module(x), y).backward()
    expected = [p.grad for p in module.parameters()]
    module.zero_grad()
    rule(Network.from_sequential(module, (6,)), x, y, **options)
    for p, gradient in zip(module.parameters(), expected, strict=True):
        assert relative_error(p.grad, gradient) < 1e-12
    assert called == [0.01, 0.01]


@pytest.mark.parametrize("rule", RULES)
def test_hooks_get_what_the_optimiser_would(rule):
    """Hooks receive gradients after factors and clip, so that both rules differ only in the gradient."""
    case, seen = graph_case(), []
    weight = case.network.projections["input->conv1"].weight
    expected = gradients(rule, case, **options_of(rule, Updates({"conv": 2.0}, clip=0.01)))["input->conv1.weight"]
    weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    rule(case.network, case.x, case.y, **options_of(rule, Updates({"conv": 2.0}, clip=0.01)))
    assert torch.equal(weight.grad, expected)
    assert torch.equal(seen[0], expected)


def test_continuous_plasticity_refuses_hooks():
    module, x, y = tied_case()
    module[4].bias.register_hook(lambda gradient: gradient)
    with pytest.raises(ActrelaxError, match=r"^parameter 'hidden2->output\.bias' has a hook, but continuous plast"):
        relax_continuously(Network.from_sequential(module, (6,)), x, y, rate=0.1)


WEIGHTS = torch.tensor([5.0, 1.0, 0.2, 2.0], dtype=torch.float64)
WEIGHTED = {
    "weights": (F.cross_entropy, {"weight": WEIGHTS}),
    "weights and smoothing": (F.cross_entropy, {"weight": WEIGHTS, "label_smoothing": 0.2}),
    "ignored labels": (F.cross_entropy, {"ignore_index": 1}),
    "negative log-likelihood": (F.nll_loss, {"weight": WEIGHTS, "ignore_index": -7}),
}
MODULES = {F.cross_entropy: nn.CrossEntropyLoss, F.nll_loss: nn.NLLLoss}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("as_module", [True, False])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_losses_have_pytorchs_mean(name, as_module, reduction):
    function, options = WEIGHTED[name]
    case = mlp_case()
    y = torch.tensor([0, 1, 0 if "ignored" in name else 2])
    given = {**options, "reduction": "none"}
    kind = MODULES[function](**given) if as_module else partial(function, **given)
    value = function(case.network(case.x), y, **options, reduction=reduction)
    value.backward()
    expected = {name: p.grad for name, p in case.network.named_parameters()}
    exact = {"integrator": "equilibrium"}
    for rule, extra in ((relax_backward, exact), (backprop_backward, {})):
        found = gradients(rule, dataclasses.replace(case, y=y), loss=kind, **extra, **options_of(rule, None, reduction))
        for key, gradient in found.items():
            assert relative_error(gradient, expected[key]) < 1e-12
    result = backprop_backward(case.network, case.x, y, loss=kind, reduction=reduction)
    assert float(result.loss) == pytest.approx(value.item())


class Named(nn.CrossEntropyLoss):
    """A subclass that changes nothing."""


class Doubled(nn.CrossEntropyLoss):
    """A subclass with another forward pass."""

    def forward(self, output, target):
        return 2 * super().forward(output, target)


def by_label(output, target):
    return WEIGHTS[target]


@pytest.mark.parametrize(
    "loss",
    [
        Named(WEIGHTS, reduction="none"),
        from_function(lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS, reduction="none"), weights=by_label),
        from_function(Doubled(WEIGHTS / 2, reduction="none"), weights=by_label),
    ],
    ids=["subclass", "lambda", "separate forward"],
)
@pytest.mark.parametrize("rule", RULES)
def test_weights_that_are_named_count_in_the_mean(rule, loss):
    case, y = mlp_case(), torch.tensor([0, 1, 2])
    extra = {} if rule is backprop_backward else {"integrator": "equilibrium"}
    expected = gradients(
        rule, dataclasses.replace(case, y=y), loss=nn.CrossEntropyLoss(WEIGHTS, reduction="none"), **extra
    )
    found = gradients(rule, dataclasses.replace(case, y=y), loss=loss, **extra)
    for key, gradient in found.items():
        assert relative_error(gradient, expected[key]) < 1e-12


def test_weights_inside_a_lambda_do_not_count():
    case, y = mlp_case(), torch.tensor([0, 1, 2])
    loss = lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS, reduction="none")  # noqa: E731
    found = gradients(backprop_backward, dataclasses.replace(case, y=y), loss=loss)
    loss(case.network(case.x), y).mean().backward()
    for key, p in case.network.named_parameters():
        assert relative_error(found[key], p.grad) < 1e-12


def test_class_weights_and_a_separate_forward_pass_are_refused():
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"^Doubled has class weights or an ignore_index and overrides forward"):
        relax_backward(mlp_case().network, mlp_case().x, mlp_case().y, loss=Doubled(ignore_index=0, reduction="none"))
    with pytest.raises(ActrelaxError, match=r"^Doubled has class weights or an ignore_index and overrides forward"):
        relax_backward(case.network, case.x, case.y, loss=Doubled(WEIGHTS, reduction="none"))
    relax_backward(case.network, case.x, case.y, loss=Doubled(reduction="none"))


def test_continuous_plasticity_has_pytorchs_mean():
    """If the relaxation starts at equilibrium, one step at the full rate is a step of gradient descent."""
    case, y = mlp_case(), torch.tensor([0, 1, 2])
    loss, copied = nn.CrossEntropyLoss(WEIGHTS, reduction="none"), copy.deepcopy(case.network)
    relax_backward(case.network, case.x, y, 3, loss=loss, start="zero", integrator="euler")
    relax_continuously(copied, case.x, y, 3, loss=loss, rate=1.0, assumptions="ar", integrator="euler")
    for moved, p in zip(copied.parameters(), case.network.parameters(), strict=True):
        assert relative_error(p - moved, p.grad) < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_of_ignored_labels_changes_nothing(rule):
    case = mlp_case()
    loss = nn.CrossEntropyLoss(ignore_index=0, reduction="none")
    found = gradients(rule, dataclasses.replace(case, y=torch.zeros(3, dtype=torch.int64)), loss=loss)
    assert not any(gradient.any() for gradient in found.values())
