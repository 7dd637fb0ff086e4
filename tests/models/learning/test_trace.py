"""A traced rule equals the rule, bit for bit, for every batch."""

import copy
import gc
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
from networks import graph_case, mlp_case, recurrent_case
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, backprop_backward, relax_backward
from actrelax.models.learning.trace import Traced
from actrelax.models.network import Network

TAU = {"hidden1": torch.linspace(0.5, 1.5, 7)}
UNCHECKED = BackwardOptions(check_finite=False)
RULES = {
    "closed form": partial(relax_backward, steps=12, eta=0.2, options=UNCHECKED),
    "stepped": partial(relax_backward, steps=3, options=replace(UNCHECKED, evaluation="stepped")),
    "equilibrium": partial(relax_backward, integrator="equilibrium", options=UNCHECKED),
    "unfrozen": partial(relax_backward, assumptions="unfrozen", steps=3, options=UNCHECKED),
    "learned": partial(relax_backward, assumptions="learned-feedback", options=UNCHECKED),
    "neurons": partial(relax_backward, tau=TAU, dt=0.1, steps=3, options=UNCHECKED),
    "backprop": backprop_backward,
}


def gradients(rule, network, x, y):
    network.zero_grad()
    result = rule(network, x, y)
    return [p.grad for p in network.parameters()], result


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("name", RULES)
def test_it_is_the_rule(name, make, generator):
    """Holds for other images, changed weights, and another batch size."""
    case, rule = make(), RULES[name]
    network = case.network
    network.add_feedback("learned-feedback" if name == "learned" else "ar", generator)
    traced = Traced(rule)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for x, y in ((case.x, case.y), (case.x.flip(0), case.y), (case.x[:2], case.y[:2]), (case.x, case.y)):
        expected, plain = gradients(rule, network, x, y)
        found, result = gradients(traced, network, x, y)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)
        assert torch.equal(result.loss, plain.loss)
        assert torch.equal(result.output, plain.output)
        assert bool(result.finite) == bool(plain.finite)
        optimiser.step()


def test_weights_that_are_loaded_are_followed():
    case, other = mlp_case(), mlp_case(seed=5)
    traced = Traced(RULES["equilibrium"])
    traced(case.network, case.x, case.y)
    case.network.load_state_dict(other.network.state_dict())
    found, _ = gradients(traced, case.network, case.x, case.y)
    expected, _ = gradients(RULES["equilibrium"], other.network, case.x, case.y)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_gradients_that_are_there_are_added_to():
    case = mlp_case()
    traced = Traced(RULES["equilibrium"])
    for _ in range(3):
        traced(case.network, case.x, case.y)
    thrice = [p.grad.clone() for p in case.network.parameters()]
    once, _ = gradients(RULES["equilibrium"], case.network, case.x, case.y)
    assert all(torch.allclose(a, 3 * b, rtol=1e-13) for a, b in zip(thrice, once, strict=True))


def test_labels_are_looked_at_every_time():
    case = mlp_case()
    traced = Traced(RULES["closed form"])
    traced(case.network, case.x, case.y)
    with pytest.raises(ActrelaxError, match=r"^labels must lie between 0 and 3, got 7\.$"):
        traced(case.network, case.x, torch.full_like(case.y, 7))


def test_what_the_rule_refuses_is_refused():
    case = mlp_case()
    with pytest.raises(ActrelaxError, match="eta must lie between 0 and 2"):
        Traced(partial(relax_backward, eta=3.0))(case.network, case.x, case.y)
    assert all(p.grad is None for p in case.network.parameters())


def test_the_list_is_run_and_not_the_rule():
    case, calls = mlp_case(), []

    def counted(network, x, y):
        calls.append(len(x))
        return RULES["closed form"](network, x, y)

    traced = Traced(counted)
    for _ in range(3):
        traced(case.network, case.x, case.y)
    traced(case.network, case.x[:1], case.y[:1])
    assert calls == [3, 3, 1, 1]  # once eagerly, once for tracing


def test_the_list_can_be_finished():
    case, given = mlp_case(), []

    def doubled(kernels, x, target):
        given.append((x.shape, target.shape))
        return lambda x, target: tuple(2 * t for t in kernels(x, target))

    found, _ = gradients(Traced(RULES["equilibrium"], doubled), case.network, case.x, case.y)
    once, _ = gradients(RULES["equilibrium"], case.network, case.x, case.y)
    assert given == [((3, 8), (3, 4))]
    assert all(torch.equal(a, 2 * b) for a, b in zip(found, once, strict=True))


def test_networks_can_be_copied_and_forgotten():
    case = mlp_case()
    traced = Traced(RULES["equilibrium"])
    traced(case.network, case.x, case.y)
    copied = copy.deepcopy(case.network)
    with torch.no_grad():
        next(copied.parameters()).mul_(2)
    found, _ = gradients(traced, copied, case.x, case.y)
    expected, _ = gradients(RULES["equilibrium"], copied, case.x, case.y)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    gone = weakref.ref(copied)
    del copied, found, expected
    gc.collect()
    assert gone() is None


def test_weights_that_are_replaced_or_frozen_are_followed():
    case = mlp_case()
    traced = Traced(RULES["equilibrium"])
    traced(case.network, case.x, case.y)
    projection = case.network.projections["hidden1->hidden2"]
    projection.weight = torch.nn.Parameter(2 * projection.weight.detach())
    case.edges.clear()  # the layers keep the other weight
    found, _ = gradients(traced, case.network, case.x, case.y)
    expected, _ = gradients(RULES["equilibrium"], case.network, case.x, case.y)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    projection.weight.requires_grad_(False)
    gradients(traced, case.network, case.x, case.y)
    assert projection.weight.grad is None


@pytest.mark.parametrize(
    "options", [{"weight": torch.tensor([1, 1, 10, 1], dtype=torch.float64)}, {"ignore_index": 0}], ids=str
)
def test_losses_that_weight_samples_by_their_labels(options):
    case, y = mlp_case(), torch.tensor([0, 1, 2])
    rule = partial(backprop_backward, loss=nn.CrossEntropyLoss(**options, reduction="none"))
    found, result = gradients(Traced(rule), case.network, case.x, y)
    expected, untraced = gradients(rule, case.network, case.x, y)
    assert torch.equal(result.loss, untraced.loss)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_modules_that_have_changed_are_refused_after_tracing():
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    network, x, y = Network.from_sequential(module, (6,)), torch.rand(4, 6), torch.arange(4) % 3
    rule = Traced(backprop_backward)
    rule(network, x, y)
    module[1] = nn.ReLU()
    with pytest.raises(ActrelaxError, match="has changed"):
        rule(network, x, y)


def test_rules_that_a_list_would_repeat_are_refused():
    case = mlp_case()
    for rule, said in (
        (
            partial(RULES["stepped"], integrator="euler", noise=0.1),
            r"^a traced rule would draw the same random numbers for every batch \(aten::",
        ),
        (
            partial(RULES["stepped"], options=replace(UNCHECKED, keep=True)),
            r"^a traced rule can't return a trajectory: leave keep out\.$",
        ),
    ):
        with pytest.raises(ActrelaxError, match=said):
            Traced(rule)(case.network, case.x, case.y)


def test_hooks_on_parameters_are_called_for_every_batch():
    case, called = mlp_case(), []
    traced = Traced(RULES["equilibrium"])
    traced(case.network, case.x, case.y)
    next(case.network.parameters()).register_hook(lambda gradient: called.append(1))
    for _ in range(3):
        traced(case.network, case.x, case.y)
    assert len(called) == 3


def test_networks_with_cycles_run_untraced():
    """Their numbers of steps depend on values, and the report belongs to the batch."""
    case = recurrent_case()
    rule = partial(relax_backward, options=BackwardOptions(check_finite=False))
    expected = copy.deepcopy(case.network)
    report = rule(expected, case.x, case.y).report
    found = Traced(rule)(case.network, case.x, case.y).report
    assert str(found) == str(report)
    for p, q in zip(case.network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
