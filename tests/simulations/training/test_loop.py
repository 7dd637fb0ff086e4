"""The training loop: AR and backprop share it, a seed fixes everything, callbacks see every event."""

import copy
import math
import traceback
from functools import partial
from pathlib import Path

import pytest
import torch

from actrelax.models.learning import BackwardOptions, backprop_backward, relax_backward
from actrelax.models.results import DivergenceError
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.experiment import Experiment, Images, Optimisation
from actrelax.simulations.training.loop import Callback, learn, train
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.state import EXPLODED

FAST = Optimisation(lr=0.1, momentum=0.9)


def training_of(rule="ar", epochs=1, seed=0, optimisation=FAST, images=None, **relaxation):
    relaxation = Relaxation(**({"steps": 5} | relaxation))
    experiment = Experiment(
        rule=rule,
        epochs=epochs,
        seed=seed,
        images=images or Images(),
        optimisation=optimisation,
        relaxation=relaxation,
    )
    return assemble(experiment).training


def trained(*args, **options):
    training = training_of(*args, **options)
    train(training)
    return training


def test_ar_learns_as_backprop_does_and_simplified_comes_near():
    final = {}
    for name, rule, assumptions in (
        ("backprop", "backprop", "ar"),
        ("ar", "ar", "ar"),
        ("simplified", "ar", "simplified"),
    ):
        rows = trained(rule, epochs=4, assumptions=assumptions, steps=100).tables["metrics"]
        assert rows[0]["test_accuracy"] < 0.3
        final[name] = rows[-1]["test_accuracy"]
    assert final["backprop"] > 0.95
    assert abs(final["ar"] - final["backprop"]) < 0.015
    assert final["simplified"] > 0.8


def test_at_equilibrium_ar_trains_exactly_as_backprop():
    ours = trained(integrator="equilibrium", steps=None).tables["metrics"]
    theirs = trained("backprop").tables["metrics"]
    for a, b in zip(ours, theirs, strict=True):
        assert a["test_accuracy"] == b["test_accuracy"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4, nan_ok=True)


def test_a_seed_fixes_everything():
    first, second, other = trained(), trained(), trained(seed=1)
    assert first.tables["metrics"][1] == second.tables["metrics"][1] != other.tables["metrics"][1]
    for p, q, r in zip(*(t.network.parameters() for t in (first, second, other)), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, r)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loop_written_out(reduction):
    """Plain PyTorch around `relax_backward`, with the metrics from their definitions."""
    optimisation = Optimisation(lr=0.1 if reduction == "mean" else 0.002, reduction=reduction)
    training = training_of(epochs=2, optimisation=optimisation, images=Images(validation=100))
    network, batches = copy.deepcopy(training.network), training.batches
    optimiser = torch.optim.SGD(network.parameters(), lr=optimisation.lr)
    data, rows = batches.data, []
    for epoch in (1, 2):
        losses, hits, count = 0.0, 0, 0
        for x, y in batches.epoch(epoch):
            optimiser.zero_grad()
            result = relax_backward(network, x, y, steps=5, options=BackwardOptions(reduction=reduction))
            optimiser.step()
            losses += torch.nn.functional.cross_entropy(result.output.double(), y, reduction="sum").item()
            hits += int((result.output.argmax(1) == y).sum())
            count += len(y)
        tests = [
            int((network(part.images).argmax(1) == part.labels).sum()) / len(part.labels)
            for part in (data.validation, data.test)
        ]
        rows.append([epoch, optimisation.lr, losses / count, hits / count, *tests])
    train(training)
    names = ["epoch", "learning_rate", "train_loss", "train_accuracy", "validation_accuracy", "test_accuracy"]
    assert list(training.tables["metrics"][0]) == names
    assert math.isnan(training.tables["metrics"][0]["train_loss"])
    for row, expected in zip(training.tables["metrics"][1:], rows, strict=True):
        assert list(row.values()) == pytest.approx(expected, rel=1e-6)
    for p, q in zip(training.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(p, q)


class Watcher(Callback):
    def __init__(self):
        self.seen = []
        self.gradients = []

    def on_start(self, training):
        self.seen.append(("start", training.epoch, training.batch))

    def on_gradient(self, training, x, y, result):
        before = next(training.network.parameters())
        self.gradients.append((before.detach().clone(), before.grad.clone()))

    def on_batch(self, training):
        self.seen.append(("batch", training.epoch, training.batch))
        before, gradient = self.gradients[-1]
        after = next(training.network.parameters())
        assert torch.allclose(after, before - 0.1 * gradient)
        assert not torch.equal(after, before)

    def on_epoch(self, training):
        self.seen.append(("epoch", training.epoch, training.batch))
        assert training.tables["metrics"][-1]["epoch"] == training.epoch

    def on_end(self, training):
        self.seen.append(("end", training.epoch, training.batch))


def test_callbacks_are_called_in_order():
    watcher = Watcher()
    train(training_of(epochs=2, optimisation=Optimisation()), [watcher])
    expected = [("start", 0, 0)]
    for epoch in (0, 1):
        expected += [("batch", epoch, batch) for batch in range(1, 24)] + [("epoch", epoch + 1, 0)]
    assert watcher.seen == [*expected, ("end", 2, 0)]


class Stopping(Callback):
    """Callback that raises an exception after a total number of batches."""

    def __init__(self, after):
        self.left = after

    def on_batch(self, training):
        self.left -= 1
        if self.left == 0:
            raise InterruptedError


@pytest.mark.parametrize("assumptions", ["ar", "kolen-pollack"])
def test_a_training_continued_equals_one_that_was_never_stopped(assumptions, tmp_path):
    optimisation = Optimisation(
        lr=0.05,
        momentum=0.9,
        schedule="cosine",
        warmup=0.5,
        decay=0.01 if assumptions == "kolen-pollack" else None,
    )
    options = {
        "epochs": 3,
        "optimisation": optimisation,
        "assumptions": assumptions,
        "images": Images(augment="flip,crop", validation=30),
    }
    whole = trained(**options)
    for after in (1, 23, 46):
        first = training_of(**options)
        with pytest.raises(InterruptedError):
            train(first, [Stopping(after)])
        assert first.seconds > 0
        torch.save(first.state_dict(), tmp_path / "state")
        second = training_of(**options)
        second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        assert second.seconds == first.seconds
        train(second)
        for a, b in zip(whole.tables["metrics"], second.tables["metrics"], strict=True):
            assert a == pytest.approx(b, rel=0, abs=0, nan_ok=True)
        theirs = second.network.state_dict()
        for name, weight in whole.network.state_dict().items():
            assert torch.equal(weight, theirs[name])
        momenta = [t.optimiser.state_dict()["state"] for t in (whole, second)]
        assert all(torch.equal(momenta[0][i]["momentum_buffer"], momenta[1][i]["momentum_buffer"]) for i in momenta[0])


def test_random_numbers_of_torch_continue_too():
    training = training_of()
    state = copy.deepcopy(training.state_dict())
    drawn = torch.rand(3)
    training.load_state_dict(state)
    assert torch.equal(torch.rand(3), drawn)


def test_a_rules_divergence_names_batch_and_epoch():
    training = training_of(epochs=2)
    calls = []

    def failing(network, x, y):
        calls.append(1)
        if len(calls) == 30:
            raise DivergenceError("it blew up.")
        return backprop_backward(network, x, y)

    training.rule = failing
    with pytest.raises(DivergenceError, match=r"^batch 7 of epoch 2: it blew up\.$"):
        train(training)


@pytest.mark.parametrize("damage", ["weight", "state", "loss", "nothing"])
def test_soundness(damage):
    training = training_of()
    x, y = next(iter(training.batches.epoch(1)))
    learn(training, x, y)
    assert training.is_sound()
    result = training.rule(training.network, x, y)
    if damage == "weight":
        with torch.no_grad():
            training.network.projections["conv1->conv2"].weight[0, 0, 0, 0] = math.inf
    elif damage == "state":
        result.finite.fill_(False)
    elif damage == "loss":
        result.loss.copy_(training.first_loss * EXPLODED * 1.5)
    training.count(result, y)
    assert training.is_sound() == (damage == "nothing")


@pytest.mark.parametrize(
    "options",
    [{}, {"tau_spread": 0.2, "dt": 0.1}, {"assumptions": "continuous", "optimisation": Optimisation()}],
    ids=["ar", "tau-spread", "continuous"],
)
def test_learning_looks_at_no_value_of_the_device_on_the_way(monkeypatch, options):
    """On a GPU reading a value waits for the queue, so losses and flags are read only every few batches."""
    training = training_of(**options)
    x, y = next(iter(training.batches.epoch(1)))
    places = set()
    for name in ("item", "__bool__", "__float__", "__int__", "tolist"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, original=original):
            places.add(Path(traceback.extract_stack()[-2].filename).parts[-2:])
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    learn(training, x, y)
    # labels are read only on the CPU; one tau per neuron is the caller's, on the CPU
    losses = ("problem", "losses.py")
    assert {losses} <= places <= {losses, ("problem", "per_neuron.py"), ("engines", "steps.py")}
    places.clear()
    training.is_sound()
    training.averages()
    assert places == {("training", "state.py")}
    training.rule = partial(relax_backward, steps=5)
    learn(training, x, y)
    assert ("learning", "relax.py") in places
