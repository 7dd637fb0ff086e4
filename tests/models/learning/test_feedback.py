"""Feedback weights are parameters of the network: made on request, saved, learned, or refused in a sentence."""

import copy

import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Updates, relax_backward
from actrelax.models.network import build
from actrelax.models.results import relative_error


def carrying(network):
    return [p for p in network.projections.values() if p.weight is not None and p.source != "input"]


def test_registers_what_the_assumptions_ask_for(generator):
    network = graph_case().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.add_feedback("learned-feedback-conv", generator)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    new = set(network.state_dict()) - set(before)
    assert new == {"conv1->conv2.feedback", "conv2->conv3.feedback", "conv1->hidden1.feedback"}


def test_kinds_of_registration(generator):
    parameter = {"learned-feedback": True, "kolen-pollack": True, "random-feedback": False, "sign-feedback": False}
    for preset, learned in parameter.items():
        network = mlp_case().network
        network.add_feedback(preset, generator)
        for p in carrying(network):
            assert isinstance(p.feedback, torch.nn.Parameter) is learned
            assert p.feedback.shape == (() if preset == "sign-feedback" else p.weight.shape)
        assert network.projections["input->hidden1"].feedback is None
        assert ("hidden1->hidden2.feedback" in dict(network.named_parameters())) is learned


def test_scale_is_that_of_the_weights(generator):
    network = mlp_case(widths=(8, 60, 50, 40, 4)).network
    with torch.no_grad():
        network.projections["hidden2->hidden3"].weight.mul_(7)
    network.add_feedback("random-feedback", generator)
    for p in carrying(network):
        assert float(p.feedback.std() / p.weight.detach().std()) == pytest.approx(1, abs=0.15)
        pairs = torch.stack([p.feedback.flatten(), p.weight.detach().flatten()])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.2


def test_the_generator_decides():
    drawn = []
    for seed in (1, 1, 2):
        network = mlp_case().network
        network.add_feedback("random-feedback", torch.Generator().manual_seed(seed))
        drawn.append(network.projections["hidden1->hidden2"].feedback)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("preset", ["learned-feedback", "random-feedback", "sign-feedback"])
def test_missing_feedback_weights_are_an_error(preset):
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"'hidden1->hidden2' has no \w+ feedback weights: call network"):
        relax_backward(case.network, case.x, case.y, assumptions=preset)


def test_feedback_of_another_kind_is_an_error(generator):
    case = mlp_case()
    case.network.add_feedback("random-feedback", generator)
    with pytest.raises(ActrelaxError, match="has no learned feedback weights"):
        relax_backward(case.network, case.x, case.y, assumptions="learned-feedback")
    with pytest.raises(ActrelaxError, match="'hidden1->hidden2' already has feedback weights: build a new network"):
        case.network.add_feedback("learned-feedback", generator)


@pytest.mark.parametrize("preset", ["learned-feedback", "kolen-pollack", "random-feedback", "sign-feedback"])
def test_a_saved_network_brings_its_feedback_weights(preset, generator, tmp_path):
    case = graph_case()
    fresh = copy.deepcopy(case.network)
    case.network.add_feedback(preset, generator)
    torch.save(case.network.state_dict(), tmp_path / "network.pt")
    fresh.load_state_dict(torch.load(tmp_path / "network.pt"))
    updates = Updates(decay=0.1 if preset == "kolen-pollack" else None)
    for network in (case.network, fresh):
        relax_backward(network, case.x, case.y, assumptions=preset, updates=updates)
    assert {name for name, _ in fresh.named_parameters()} == {name for name, _ in case.network.named_parameters()}
    for p, q in zip(case.network.projections.values(), fresh.projections.values(), strict=True):
        if p.weight is not None:
            assert torch.equal(p.weight.grad, q.weight.grad)


def test_saved_feedback_weights_of_another_shape_are_refused(generator):
    case, fresh = mlp_case(), mlp_case()
    case.network.add_feedback("random-feedback", generator)
    saved = case.network.state_dict()
    saved["hidden1->hidden2.feedback"] = saved["hidden1->hidden2.feedback"][:, :1]
    with pytest.raises(RuntimeError, match=r"size mismatch for hidden1->hidden2.feedback"):
        fresh.network.load_state_dict(saved)


def trained(case, preset, steps, optimiser=torch.optim.SGD, lr=0.05, decay=None, **options):
    optimiser = optimiser(case.network.parameters(), lr=lr, **options)
    for _ in range(steps):
        optimiser.zero_grad()
        relax_backward(case.network, case.x, case.y, assumptions=preset, updates=Updates(decay=decay))
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


def test_weights_are_the_same_with_and_without_feedback():
    plain = build("digits-cnn", generator=torch.Generator().manual_seed(3))
    own = build("digits-cnn", generator=torch.Generator().manual_seed(3))
    own.add_feedback("learned-feedback", torch.Generator().manual_seed(4))
    for name, value in plain.state_dict().items():
        assert torch.equal(own.state_dict()[name], value)


def test_random_feedback_is_never_touched(generator):
    case = graph_case()
    case.network.add_feedback("random-feedback", generator)
    before = {p.name: p.feedback.clone() for p in carrying(case.network)}
    trained(case, "random-feedback", 5, weight_decay=0.1)
    assert all(torch.equal(p.feedback, before[p.name]) for p in carrying(case.network))


def test_sign_feedback_follows_the_weights(generator):
    case = graph_case()
    case.network.add_feedback("sign-feedback", generator)
    p = case.network.projections["hidden1->hidden2"]
    initial = float(p.weight.detach().std(correction=0))
    with torch.no_grad():
        p.weight.mul_(-3)
    psi = case.network.feedback_weight(p, PRESETS["sign-feedback"])
    assert torch.equal(psi, p.weight.sign() * p.feedback)
    assert float(p.feedback) == pytest.approx(initial)
