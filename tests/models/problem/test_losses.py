"""Losses. Oracles: autograd, and PyTorch's losses."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import LOSSES, Loss, from_function, loss_named, smoothed
from actrelax.models.results import relative_error

OUTPUT = torch.linspace(-2, 3, 12, dtype=torch.float64).reshape(3, 4)
LABELS = torch.tensor([2, 0, 3])
TARGETS = {"labels": LABELS, "one-hot": F.one_hot(LABELS, 4), "dense": torch.rand(3, 4, dtype=torch.float64)}


@pytest.mark.catches("papers' factor 2 forgotten")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", TARGETS)
def test_gradient_is_autograds(name, target):
    output = OUTPUT.clone().requires_grad_()
    values = LOSSES[name].value(output, TARGETS[target])
    assert values.shape == (3,)
    (expected,) = torch.autograd.grad(values.sum(), output)
    assert relative_error(LOSSES[name].gradient(OUTPUT, TARGETS[target]), expected) < 1e-14


def test_values_are_the_usual_ones():
    hot = F.one_hot(LABELS, 4).double()
    expected = {
        "cross-entropy": F.cross_entropy(OUTPUT, LABELS, reduction="none"),
        "sum-of-squares": F.mse_loss(OUTPUT, hot, reduction="none").sum(1),
        "half-sum-of-squares": F.mse_loss(OUTPUT, hot, reduction="none").sum(1) / 2,
    }
    assert set(expected) == set(LOSSES)
    for name, value in expected.items():
        assert relative_error(LOSSES[name].value(OUTPUT, LABELS), value) < 1e-14


@pytest.mark.parametrize("target", TARGETS)
def test_smoothed_labels_are_pytorchs(target):
    target = TARGETS["one-hot"].double() if target == "one-hot" else TARGETS[target]
    output = OUTPUT.clone().requires_grad_()
    values = F.cross_entropy(output, target, reduction="none", label_smoothing=0.3)
    (expected,) = torch.autograd.grad(values.sum(), output)
    soft = smoothed(LOSSES["cross-entropy"], 0.3)
    assert relative_error(soft.value(OUTPUT, target), values) < 1e-14
    if target is not TARGETS["dense"]:
        assert relative_error(soft.gradient(OUTPUT, target), expected) < 1e-14


def test_any_differentiable_function():
    own = loss_named(partial(F.cross_entropy, reduction="none"))
    assert relative_error(own.gradient(OUTPUT, LABELS), LOSSES["cross-entropy"].gradient(OUTPUT, LABELS)) < 1e-14
    assert not own.gradient(OUTPUT, LABELS).requires_grad
    assert isinstance(own, Loss)
    assert loss_named(own) is own


def test_what_is_refused():
    with pytest.raises(
        ActrelaxError,
        match=r'^the loss must return one value per sample, shape \(3,\), got \(\): make it with reduction="none", and',
    ):
        from_function(F.cross_entropy).gradient(OUTPUT, LABELS)
    with pytest.raises(ActrelaxError, match=r"^unknown loss 'mse'; known: cross-entropy, sum-of-squares, half-sum"):
        loss_named("mse")
    gradient = LOSSES["cross-entropy"].gradient
    with pytest.raises(ActrelaxError, match=r"^labels must lie between 0 and 3, got 4\.$"):
        gradient(OUTPUT, torch.tensor([0, 4, 1]))
    with pytest.raises(ActrelaxError, match=r"^targets must be a torch.Tensor, got list: use torch.as_tensor\.$"):
        gradient(OUTPUT, [0, 1, 2])
    with pytest.raises(ActrelaxError, match=r"^labels must lie between 0 and 3, got -1\.$"):
        gradient(OUTPUT, torch.tensor([0, -1, 1]))
    with pytest.raises(
        ActrelaxError, match=r"integer labels \(3,\) or of the output's shape \(3, 4\), got torch.int64"
    ):
        gradient(OUTPUT, torch.tensor([0, 1]))
    with pytest.raises(ActrelaxError, match=r"got torch.float64 \(3,\)\.$"):
        gradient(OUTPUT, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["sum-of-squares", "half-sum-of-squares"])
@pytest.mark.parametrize("target", [torch.tensor([0, 1, 1]), torch.tensor([0.5, -1.0, 2.0]), torch.tensor([7, -3, 0])])
def test_a_single_output_has_values(name, target):
    output = torch.tensor([[0.1], [0.7], [0.9]])
    expected = F.mse_loss(output[:, 0], target.to(output), reduction="none") * (0.5 if "half" in name else 1)
    assert torch.equal(LOSSES[name].value(output, target), expected)
    assert torch.equal(LOSSES[name].gradient(output, target), LOSSES[name].gradient(output, target[:, None]))


def test_a_single_output_has_no_cross_entropy():
    with pytest.raises(ActrelaxError, match=r"^cross-entropy of one output is always 0: use loss=.sum-of-squares"):
        LOSSES["cross-entropy"].value(torch.zeros(3, 1), torch.tensor([0, 0, 0]))


def test_cross_entropy_over_space_is_one_loss_per_sample():
    output, target = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    expected = F.cross_entropy(output, target, reduction="none").flatten(1).sum(1)
    assert relative_error(LOSSES["cross-entropy"].value(output, target), expected) < 1e-14


def test_a_loss_without_a_gradient_is_refused():
    loss = from_function(lambda output, target: (output.argmax(1) != target).double())
    with pytest.raises(
        ActrelaxError, match=r"^the loss has no gradient, as after argmax\(\) or detach\(\): compute it"
    ):
        loss.gradient(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_true_and_false_are_labels_of_two_classes_alone():
    labels = torch.tensor([True, False])
    loss = LOSSES["cross-entropy"]
    two = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
    assert torch.equal(loss.gradient(two, labels), loss.gradient(two, labels.long()))
    with pytest.raises(ActrelaxError, match=r"^targets must be integer labels \(2,\) or .*got torch\.bool \(2,\)"):
        loss.gradient(torch.zeros(2, 3), labels)
