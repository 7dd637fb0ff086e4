"""Callbacks of a training: detection of divergence, angles to backprop, and progress."""

import io
import math

import pytest
import torch
from tqdm import tqdm

from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.results import DivergenceError
from actrelax.simulations.training import callbacks
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.callbacks import Alignment, DivergenceCheck, ProgressBar, TensorBoard
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation
from actrelax.simulations.training.loop import train
from actrelax.simulations.training.relaxation import Relaxation


def parts_of(rule="ar", activation="tanh", lr=0.1, momentum=0.0, weight_decay=0.0, **relaxation):
    return assemble(
        Experiment(
            rule=rule,
            epochs=2,
            model=Model(activation=activation),
            optimisation=Optimisation(lr=lr, momentum=momentum, weight_decay=weight_decay),
            relaxation=Relaxation(**({"steps": 5} | relaxation)),
        )
    )


def spoil_image(training, batch, position):
    """Make a pixel of one image in the data set infinite, which affects every epoch."""
    images = training.batches.data.train.images
    image = [x for x, _ in training.batches.epoch(1)][batch][position]
    images[int((images == image).flatten(1).all(1).nonzero()[0]), 0, 0, 0] = math.inf


@pytest.mark.parametrize(("every", "batches"), [(1, "batch 10"), (4, "batches 9 to 12"), (50, "batches 1 to 23")])
@pytest.mark.parametrize("rule", ["ar", "backprop"])
def test_the_batches_that_diverged_are_named(rule, every, batches):
    """An infinite pixel in the tenth batch is detected at the next check."""
    parts = parts_of(rule, activation="relu")
    spoil_image(parts.training, 9, 3)
    with pytest.raises(DivergenceError) as diverged:
        train(parts.training, [DivergenceCheck(every)])
    assert str(diverged.value) == (
        f"training diverged in {batches} of epoch 1, the weights 'input->conv1.weight' became non-finite: lower the "
        "learning rate, eta or the scale of the feedback weights."
    )


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 1e30},
        {"lr": 1e30, "activation": "relu"},
        {"lr": 1e30, "weight_decay": 1e30},
        {"lr": 1e30, "assumptions": "no-derivatives"},
    ],
    ids=["saturated", "overflow", "weights", "relaxation"],
)
def test_every_kind_of_divergence_is_found(options):
    named = "the loss of population 'output' became|the weights '.*weight' became"
    with pytest.raises(DivergenceError, match=rf"^training diverged in batch [12] of epoch 1, ({named})"):
        train(parts_of(**options).training, [DivergenceCheck(1)])


def test_initial_weights_that_are_not_finite():
    parts = parts_of()
    with torch.no_grad():
        parts.training.network.projections["conv1->conv2"].weight[0, 0, 0, 0] = math.nan
    with pytest.raises(DivergenceError, match=r"^the initial weights are not finite: check the network"):
        train(parts.training, [DivergenceCheck(50)])


def test_looking_changes_nothing():
    trainings = [parts_of().training, parts_of().training]
    train(trainings[0])
    train(trainings[1], [DivergenceCheck(3)])
    for p, q in zip(*(t.network.parameters() for t in trainings), strict=True):
        assert torch.equal(p, q)


def test_alignment_is_measured_as_often_as_asked():
    parts = parts_of(steps=30)
    train(parts.training, [Alignment(10, parts.loss, parts.options, PRESETS["ar"])])
    rows = parts.training.tables["alignment"]
    assert [(row["epoch"], row["batch"]) for row in rows] == [(1, 1), (1, 11), (1, 21), (2, 8), (2, 18)]
    names = list(parts.training.network.projections)
    assert list(rows[0]) == ["epoch", "batch", *names, "mean"]
    for row in rows:
        assert row["mean"] == pytest.approx(sum(row[name] for name in names) / 4)
        assert row["input->conv1"] > 1 > row["hidden1->output"]
    metrics = parts.training.tables["metrics"]
    for name in (*names, "mean"):
        assert math.isnan(metrics[0][f"angle {name}"])
        for epoch, measured in ((1, rows[:3]), (2, rows[3:])):
            expected = sum(row[name] for row in measured) / len(measured)
            assert metrics[epoch][f"angle {name}"] == pytest.approx(expected)
    plain = parts_of(steps=30).training
    train(plain)
    for p, q in zip(plain.network.parameters(), parts.training.network.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_network_whose_weights_are_fixed_has_no_angles():
    parts = parts_of()
    for p in parts.training.network.projections.values():
        p.weight.requires_grad_(False)
    train(parts.training, [Alignment(10, parts.loss, parts.options, PRESETS["ar"])])
    assert all(math.isnan(row["mean"]) for row in parts.training.tables["alignment"])


def test_progress(capfd):
    training = parts_of("backprop").training
    with ProgressBar("run7", every=5) as bar:
        train(training, [bar])
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    rows = zip(training.tables["metrics"][1:], training.tables["timing"][1:], strict=True)
    for line, (row, timing) in zip(lines, rows, strict=True):
        assert line == (
            f"run7  epoch {row['epoch']} of 2  loss {row['train_loss']:.4f}  accuracy: train "
            f"{row['train_accuracy']:.1%}, test {row['test_accuracy']:.1%}  {timing['images_per_second']:,.0f} images/s"
        )


class OnATerminal(tqdm):
    """Standard error that pretends to be a terminal, because tqdm draws no bar into a pipe."""

    def __init__(self, **options):
        super().__init__(**options | {"disable": False, "file": io.StringIO(), "mininterval": 0})
        self.shown = []

    def update(self, n=1):
        super().update(n)
        self.shown.append((self.n, self.postfix))


def test_the_bar_shows_where_a_continued_training_is(monkeypatch):
    monkeypatch.setattr(callbacks, "tqdm", OnATerminal)
    training, whole = parts_of("backprop").training, parts_of("backprop").training
    whole.epochs = 1
    train(whole)
    training.load_state_dict(whole.state_dict())
    with ProgressBar("run7", every=10) as bar:
        train(training, [bar])
    assert [n for n, _ in bar.bar.shown] == [1437 + 640, 1437 + 1280, 2 * 1437]
    assert bar.bar.total == 2 * 1437
    row = training.tables["metrics"][-1]
    assert bar.bar.postfix == f"loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.1%}"


def test_quiet_progress(capfd):
    with ProgressBar("run7", every=5, quiet=True) as bar:
        train(parts_of("backprop").training, [bar])
    assert capfd.readouterr() == ("", "")


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    training = assemble(Experiment(rule="backprop", epochs=2, images=Images(validation=50))).training
    train(training, [TensorBoard(tmp_path)])
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    for name in ("train_loss", "validation_accuracy", "test_accuracy"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        rows = [row for row in training.tables["metrics"] if not math.isnan(row[name])]
        assert found == [(row["epoch"], pytest.approx(row[name])) for row in rows]


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ActrelaxError, match=r"^--tensorboard needs the package tensorboard: pip install tensorboard\.$"
    ):
        TensorBoard(tmp_path)
