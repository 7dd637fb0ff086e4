"""Frozen parameters stay as they are, and the others learn as before."""

import copy
from dataclasses import replace

import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import build
from actrelax.simulations.data import digits
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.freezing import freeze
from actrelax.simulations.training.loop import learn
from actrelax.simulations.training.relaxation import Relaxation

FEW = replace(digits(), train=digits().keeping(64).train, test=digits().keeping(8).train)
ADAM = Optimisation("adam", lr=0.01)


def weights_after(experiment):
    """Return the parameters before and after one batch."""
    training = assemble(experiment, data=FEW).training
    before = copy.deepcopy(dict(training.network.named_parameters()))
    learn(training, *next(iter(training.batches.epoch(1))))
    return before, dict(training.network.named_parameters())


@pytest.mark.parametrize(
    ("network", "rule", "relaxation", "optimisation"),
    [
        ("digits-rec", "ar", Relaxation(), replace(ADAM, weight_decay=0.1)),
        ("digits-rec", "ar", Relaxation("kolen-pollack"), replace(ADAM, decay=0.1)),
        ("digits-rec", "backprop", Relaxation(), ADAM),
        ("digits-rec", "bptt", Relaxation(), ADAM),
        ("digits-mlp", "ar", Relaxation("continuous"), Optimisation()),
        ("digits-mlp", "ar", Relaxation("simplified"), Optimisation(momentum=0.9, weight_decay=0.1)),
    ],
    ids=lambda value: getattr(value, "condition", None),
)
def test_what_is_frozen_does_not_change(network, rule, relaxation, optimisation):
    last = "hidden1->hidden1" if network == "digits-rec" else "hidden1->output"
    frozen = replace(optimisation, freeze=(last, "input->hidden1.bias"))
    before, after = weights_after(Experiment(rule, model=Model(network), relaxation=relaxation, optimisation=frozen))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {n for n in before if not n.startswith(f"{last}.") and n != "input->hidden1.bias"}
    assert changed == expected
    assert expected


def test_the_others_learn_as_before():
    usual, frozen = (
        weights_after(Experiment(model=Model("digits-rec"), optimisation=replace(ADAM, freeze=names)))[1]
        for names in ((), ("hidden1->hidden1",))
    )
    for name in usual.keys() - {"hidden1->hidden1.weight"}:
        assert torch.equal(usual[name], frozen[name])


def test_names_are_checked():
    network = build("digits-rec", generator=0)
    sentence = r"^--freeze must name a projection, a module or a parameter, got 'hidden1': try .*hidden1->hidden1"
    with pytest.raises(ActrelaxError, match=sentence):
        freeze(network, ["hidden1->hidden1", "hidden1"])
    with pytest.raises(ActrelaxError, match=r"^--freeze leaves nothing to learn: name fewer projections\.$"):
        freeze(network, ["hidden1->hidden1", "input->hidden1", "hidden1->output"])
    assert all(w.requires_grad for w in network.parameters())
    bounded = Experiment(optimisation=Optimisation(recurrent_bound=1.0, freeze=("hidden1->hidden1",)))
    with pytest.raises(
        ActrelaxError, match=r"^--recurrent-bound scales all weights of a cycle, frozen or not: leave --freeze out\.$"
    ):
        bounded.check()


def test_a_module_is_frozen_with_its_parts():
    network = build("resnet-8", generator=0)
    parts = {name.split(".")[0] for name, _ in network.named_parameters()}
    first = sorted(parts)[0]
    freeze(network, [first])
    assert {n for n, w in network.named_parameters() if not w.requires_grad} == {
        n for n, _ in network.named_parameters() if n.split(".")[0] == first
    }
