"""Backprop by autograd, and the equilibrium, which equals it (docs/theory.md). Oracle: autograd."""

import copy

import pytest
import torch
from hypothesis import given
from networks import Case, convolutional_chains, dense_graphs, graph_case, mlp_case

from actrelax.models.engines import INTEGRATORS
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import (
    BackwardOptions,
    Updates,
    activity_gradients,
    backprop_backward,
    parameter_gradients,
    relax_backward,
)
from actrelax.models.network import ARCHITECTURES, build
from actrelax.models.problem import LOSSES
from actrelax.models.results import relative_error

BOUND = 1e-10


def assert_equals_autograd(network, x, y, loss="cross-entropy", reduction="mean"):
    baseline = copy.deepcopy(network)
    options = BackwardOptions(reduction=reduction, keep=True)
    relaxed = relax_backward(network, x, y, loss=loss, integrator="equilibrium", options=options)
    exact = backprop_backward(baseline, x, y, loss=loss, reduction=reduction)
    for name, gradient in activity_gradients(network, x, y, loss=loss).items():
        assert relative_error(relaxed.trajectory.final[name], gradient) < BOUND, name
    for (name, ours), theirs in zip(network.named_parameters(), baseline.parameters(), strict=True):
        assert relative_error(ours.grad, theirs.grad) < BOUND, name
    assert relative_error(relaxed.loss, exact.loss) < BOUND
    assert torch.equal(relaxed.output, exact.output)


@pytest.mark.parametrize("name", [name for name, found in ARCHITECTURES.items() if not found.is_recurrent])
def test_every_architecture(name, generator):
    network = build(name, generator=generator)
    x = torch.rand(2, *network.populations["input"].shape, generator=generator)
    assert_equals_autograd(network, x, torch.tensor([1, 7]))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("output", ["identity", "sigmoid"])
def test_every_loss_and_reduction(loss, reduction, output):
    case = graph_case(output=output)
    assert_equals_autograd(case.network, case.x, case.y, loss, reduction)


@given(dense_graphs())
def test_random_graphs(case: Case):
    assert_equals_autograd(case.network, case.x, case.y)


@given(convolutional_chains())
def test_random_convolutions(case: Case):
    assert_equals_autograd(case.network, case.x, case.y)


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_every_integrator_relaxes_there(integrator):
    """After enough steps all schemes end at the same fixed point."""
    case = graph_case()
    exact = copy.deepcopy(case.network)
    backprop_backward(exact, case.x, case.y)
    timing = {} if integrator == "equilibrium" else {"steps": 800, "eta": 0.1}
    relax_backward(case.network, case.x, case.y, integrator=integrator, **timing)
    for (name, ours), theirs in zip(case.network.named_parameters(), exact.parameters(), strict=True):
        assert relative_error(ours.grad, theirs.grad) < BOUND, name


def test_parameters_shared_by_two_projections_add_up():
    case = mlp_case(widths=(6, 6, 6, 6, 4))
    second, third = case.network.incoming["hidden2"][0], case.network.incoming["hidden3"][0]
    third.weight, third.bias = second.weight, second.bias
    case.edges.clear()  # the layers have other weights below
    assert_equals_autograd(case.network, case.x, case.y)


def test_frozen_parameters_get_no_gradient():
    case = mlp_case()
    frozen = case.network.incoming["hidden2"][0]
    frozen.weight.requires_grad_(False)
    for rule in (relax_backward, backprop_backward):
        case.network.zero_grad()
        rule(case.network, case.x, case.y)
        assert frozen.weight.grad is None
        assert frozen.bias.grad is not None


def gradients(rule, case, **options):
    network = copy.deepcopy(case.network)
    rule(network, case.x, case.y, **options)
    return {name: p.grad for name, p in network.named_parameters()}


def test_parameter_gradients_are_autograds_summed_over_the_batch():
    case = graph_case()
    found = parameter_gradients(case.network, case.x, case.y)
    loss = torch.nn.functional.cross_entropy(case.network(case.x), case.y, reduction="sum")
    exact = torch.autograd.grad(loss, list(found))
    assert len(found) == len(list(case.network.parameters()))
    for gradient, expected in zip(found.values(), exact, strict=True):
        assert relative_error(gradient, expected) < 1e-13
    assert all(p.grad is None for p in case.network.parameters())


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_at_equilibrium_updates_are_autograds_to_the_last_bits(activation):
    """One sweep calls the same kernels in the same order; a sum over the batch involves no division."""
    case = mlp_case(activation, widths=(20, 30, 10, 15, 5))
    ours = gradients(relax_backward, case, integrator="equilibrium", options=BackwardOptions(reduction="sum"))
    loss = torch.nn.functional.cross_entropy(case.network(case.x), case.y, reduction="sum")
    parameters = dict(case.network.named_parameters())
    for (name, gradient), exact in zip(ours.items(), torch.autograd.grad(loss, parameters.values()), strict=True):
        assert relative_error(gradient, exact) < 3e-16, name  # another order of products changes the last bit


@pytest.mark.parametrize("loss", ["cross-entropy", "sum-of-squares"])
def test_backprop_is_loss_dot_backward(loss):
    """The reference is a plain training loop with the mean over the batch."""
    case = graph_case()
    exact, target = copy.deepcopy(case.network), torch.nn.functional.one_hot(case.y, 5).to(case.x)
    output = exact(case.x)
    functions = {
        "cross-entropy": torch.nn.functional.cross_entropy(output, case.y),
        "sum-of-squares": (output - target).square().sum(1).mean(),
    }
    functions[loss].backward()
    result = backprop_backward(case.network, case.x, case.y, loss=loss)
    assert relative_error(result.loss, functions[loss].detach()) < 1e-14
    for (name, ours), theirs in zip(case.network.named_parameters(), exact.parameters(), strict=True):
        assert relative_error(ours.grad, theirs.grad) < 1e-13, name


def test_options_are_heeded_or_refused():
    case = graph_case()
    halved = Updates(factors={"dense": 0.5, "conv": 0.5})
    expected = parameter_gradients(case.network, case.x, case.y)
    found = parameter_gradients(case.network, case.x, case.y, options=BackwardOptions(halved))
    assert all(relative_error(2 * found[w], gradient) < BOUND for w, gradient in expected.items())
    replaced = parameter_gradients(case.network, case.x, case.y, updates=Updates(), options=BackwardOptions(halved))
    assert all(torch.equal(replaced[w], gradient) for w, gradient in expected.items())
    with pytest.raises(ActrelaxError, match=r"^reduction is 'mean', but 'sum' in options: leave reduction out of op"):
        backprop_backward(case.network, case.x, case.y, options=BackwardOptions(reduction="sum"))
    assert all(p.grad is None for p in case.network.parameters())
