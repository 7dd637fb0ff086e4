"""Feedback weights have the requested kind, scale and generator, or are refused."""

import pytest
import torch
from networks import graph_case, mlp_case
from torch import nn

from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward


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


def test_scale_of_feedback_is_that_of_the_weights(generator):
    network = mlp_case(widths=(8, 60, 50, 40, 4)).network
    with torch.no_grad():
        network.projections["hidden2->hidden3"].weight.mul_(7)
    network.add_feedback("random-feedback", generator)
    for p in carrying(network):
        assert float(p.feedback.std() / p.weight.detach().std()) == pytest.approx(1, abs=0.15)
        pairs = torch.stack([p.feedback.flatten(), p.weight.detach().flatten()])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.2


@pytest.mark.parametrize("value", [0.0, 0.1])  # the float32 deviation of constant weights of 0.1 is 7e-9
@pytest.mark.parametrize("preset", ["learned-feedback", "random-feedback", "sign-feedback"])
def test_constant_weights_have_feedback_of_the_scale_of_their_fan_in(preset, value):
    """Otherwise nothing below a readout of zeros would ever learn."""
    case = mlp_case(widths=(8, 40, 30))
    network = case.network.float()
    readout = network.projections["hidden1->output"]
    nn.init.constant_(readout.weight, value)
    network.add_feedback(preset, torch.Generator().manual_seed(0))
    psi = readout.feedback.detach()
    assert float(psi if psi.dim() == 0 else psi.std(correction=0)) == pytest.approx(40**-0.5, rel=0.05)
    relax_backward(network, case.x.float(), case.y, assumptions=preset, integrator="equilibrium")
    assert bool(network.projections["input->hidden1"].weight.grad.any()) == (preset != "sign-feedback" or value != 0)


def test_the_generator_decides_on_feedback():
    drawn = []
    for seed in (1, 1, 2):
        network = mlp_case().network
        network.add_feedback("random-feedback", torch.Generator().manual_seed(seed))
        drawn.append(network.projections["hidden1->hidden2"].feedback)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_feedback_of_another_kind_is_an_error(generator):
    case = mlp_case()
    case.network.add_feedback("random-feedback", generator)
    with pytest.raises(ActrelaxError, match="has feedback weights of another kind: build a new network"):
        relax_backward(case.network, case.x, case.y, assumptions="learned-feedback")
    with pytest.raises(ActrelaxError, match="'hidden1->hidden2' already has feedback weights: build a new network"):
        case.network.add_feedback("learned-feedback", generator)


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
