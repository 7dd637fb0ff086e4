"""Options of networks with cycles: what they mean, and what trainings on such networks do with them."""

import json
import math

import numpy as np
import pytest
import torch
from outcomes import differing, outcome

from actrelax.analysis.runs import RunFolder
from actrelax.models.engines import Settle, Steps, settle
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import SETTLE, BackwardOptions
from actrelax.models.network import build
from actrelax.models.problem.feedback_transforms import Scaled
from actrelax.simulations import cli
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.configuration import as_config, from_config, hash_of
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model
from actrelax.simulations.training.forward_phase import ForwardPhase
from actrelax.simulations.training.recorder import Recorder
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.saved import load_run


def run(*arguments):
    return cli.main(["train", *map(str, arguments)])


@pytest.fixture
def tiny(npz):
    """Return options of a short run on a network with cycles: 100 images, 4 batches per epoch."""
    options = ["--network", "digits-rec", "--threads", "1", "--batch-size", "25", "--epochs", "2", "--quiet"]
    return ["--dataset", str(npz), *options]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, SETTLE),
        ({"settle_steps": 12}, Steps(12, eta=0.5)),
        ({"settle_steps": 12, "settle_eta": 0.2}, Steps(12, eta=0.2)),
        ({"settle_tolerance": 1e-3}, Steps.until(1e-3, eta=0.5, most=100)),
        ({"settle_tolerance": 1e-3, "settle_steps": 7, "settle_eta": 1.0}, Steps.until(1e-3, eta=1.0, most=7)),
    ],
)
def test_options_are_steps(options, steps):
    assert ForwardPhase(**options).settle == Settle(steps)


def test_defaults_are_those_of_the_models():
    assert ForwardPhase().settle == BackwardOptions().settle
    network = build("digits-rec", generator=0)
    assert Relaxation().steps_of(network) == SETTLE
    assert Relaxation(eta=0.3).steps_of(network) == Steps.until(1e-2, eta=0.3, most=100)
    assert Relaxation(dt=0.3).steps_of(network) == Steps.until(1e-2, dt=0.3, most=100)
    assert Relaxation(steps=9).steps_of(network) == Steps(9)
    assert Relaxation(duration=2.0).steps_of(network) == Steps(duration=2.0)
    assert Relaxation(integrator="equilibrium").steps_of(network) == Steps.until(1e-5)
    assert Relaxation().problem_fields(network, 0)["start"] == "zero"
    assert Relaxation(start="feedforward").problem_fields(network, 0)["start"] == "feedforward"
    acyclic = build("digits-mlp", generator=0)
    assert Relaxation().steps_of(acyclic) == Steps(100, eta=0.1)
    assert Relaxation().problem_fields(acyclic, 0)["start"] == "feedforward"


def test_only_given_options_enter_configurations_and_hashes():
    options = {"settle_steps": 9, "settle_eta": 0.25, "settle_tolerance": 0.1}
    forward = ForwardPhase(**options, unsettled="drop", unsettled_above=0.5, sample_clip=2.0)
    plain, given = Experiment(), Experiment(forward=forward)
    names = {"settle_steps", "settle_eta", "settle_tolerance", "unsettled", "unsettled_above", "sample_clip"}
    assert not names & as_config(plain, Execution())["experiment"].keys()
    config = json.loads(json.dumps(as_config(given, Execution())))
    assert names <= config["experiment"].keys()
    assert from_config(config)[0] == given
    assert hash_of(plain) != hash_of(given)


@pytest.mark.parametrize("rule", ["ar", "backprop", "bptt"])
def test_each_rule_trains_and_counts(tmp_path, tiny, rule):
    out = tmp_path / rule
    assert run(*tiny, "--rule", rule, "--out", out, "--settle-tolerance", 0.001) == 0
    assert run(*tiny, "--rule", rule, "--out", tmp_path / "few", "--settle-steps", 2) == 0
    metrics, few = RunFolder(out).table("metrics"), RunFolder(tmp_path / "few").table("metrics")
    assert [row["unsettled"] for row in metrics] == [0, 0, 0]
    assert [row["unsettled"] for row in few] == [0, 100, 100]
    assert RunFolder(out).summary().unsettled == 0
    assert RunFolder(tmp_path / "few").summary().unsettled == 200
    assert RunFolder(out).summary().rule == rule
    assert metrics[-1]["train_loss"] < metrics[1]["train_loss"]
    assert differing(outcome(out), outcome(tmp_path / "few"))


def test_rules_agree_on_gradients_and_begin_alike(tmp_path, tiny):
    """With tight tolerances a batch changes the weights alike; with the defaults nearly so."""
    tight = ["--settle-tolerance", 1e-5, "--settle-steps", 1000, "--epochs", 1, "--precision", "fp64"]
    relaxed = ["--steps", "auto", "--tolerance", 1e-7, "--eta", 0.5]
    weights = {}
    for name, options in {
        "ar": relaxed,
        "equilibrium": ["--integrator", "equilibrium"],
        "backprop": ["--rule", "backprop"],
        "bptt": ["--rule", "bptt"],
    }.items():
        assert run(*tiny, *tight, *options, "--out", tmp_path / name) == 0
        weights[name] = RunFolder(tmp_path / name).checkpoint()["network"]
    for name, state in weights.items():
        for key, weight in state.items():
            assert torch.allclose(weight, weights["backprop"][key], rtol=0, atol=1e-4), name


def test_an_unsettled_image_teaches_nothing_if_it_is_dropped(tmp_path, tiny, capsys):
    before = build("digits-rec", generator=0)
    options = ["--settle-steps", 2, "--unsettled", "drop", "--unsettled-above", 1e-9, "--no-quiet"]
    said = (
        r"^no image of epoch 1 had settled, so that --unsettled drop left none to learn from: raise --settle-steps or"
    )
    with pytest.warns(UserWarning, match=said) as warned:
        assert run(*tiny, *options, "--out", tmp_path / "none") == 0
    assert len(warned) == 1
    shown = capsys.readouterr().err
    assert "epoch 2 of 2  no loss  accuracy: train " in shown
    assert "nan" not in shown
    none = RunFolder(tmp_path / "none")
    assert none.summary().unsettled == 200
    assert run(*tiny, "--settle-steps", 2, "--unsettled-above", 1e-9, "--out", tmp_path / "all") == 0
    rows = [folder.table("metrics") for folder in (none, RunFolder(tmp_path / "all"))]
    assert all(math.isnan(row["train_loss"]) for row in rows[0])  # the mean over no image
    assert rows[1][-1]["train_loss"] < rows[1][1]["train_loss"]
    trained = load_run(tmp_path / "none").network.state_dict()
    assert {key: w.shape for key, w in trained.items()} == {key: w.shape for key, w in before.state_dict().items()}


@pytest.mark.filterwarnings("ignore:not settled after 100 steps")
@pytest.mark.parametrize("rule", ["ar", "backprop", "bptt"])
def test_training_goes_on_without_an_image_that_overflows(tmp_path, npz, rule, capsys):
    """The means of the metrics are those of the other images, whose rates it does not touch."""
    data = dict(np.load(npz))
    x = {part: (data[f"x_{part}"] / np.float32(255)).astype(np.float32) for part in ("train", "test")}
    for part, index in (("train", 3), ("test", 0)):  # the fourth training image is one of those that are watched
        x[part][index] = 3e38
    labels = {f"y_{part}": data[f"y_{part}"] for part in x}
    labels["y_test"][0] = 0  # the position of the first nan
    np.savez(tmp_path / "spoiled.npz", x_train=x["train"], x_test=x["test"], **labels)
    options = ["--dataset", tmp_path / "spoiled.npz", "--network", "digits-rec", "--activation", "relu", "--rule", rule]
    options += ["--batch-size", 50, "--epochs", 1, "--threads", 1, "--quiet", "--lr", 1e-9, "--settle-steps", 40]
    if rule == "ar":
        assert run(*options, "--out", tmp_path / "keep") == 1
    out = tmp_path / "drop"
    assert run(*options, "--unsettled", "drop", "--watch", "--out", out) == 0
    row = RunFolder(out).table("metrics")[-1]
    assert row["unsettled"] == 1
    assert all(math.isfinite(value) for value in row.values())
    network = load_run(out).network
    others = torch.arange(len(x["train"])) != 3

    def respond(images):
        return settle(network, torch.tensor(images)[:, None], Settle(Steps(40, eta=0.5))).activities["output"]

    answers, y = respond(x["train"][others.numpy()]), torch.tensor(data["y_train"])[others]
    assert row["train_loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(answers, y)), rel=1e-3)
    assert row["train_accuracy"] == pytest.approx(float((answers.argmax(1) == y).sum()) / len(others))
    right = int((respond(x["test"][1:]).argmax(1) == torch.tensor(labels["y_test"][1:])).sum())
    assert row["test_accuracy"] == pytest.approx(right / len(x["test"]))
    capsys.readouterr()
    assert cli.main(["evaluate", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == pytest.approx(row["test_accuracy"])


class Killed(BaseException):
    """Exception that no code catches, like SIGKILL."""


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--unsettled", "drop", "--unsettled-above", 0.02, "--sample-clip", 1.0],
        ["--rule", "backprop", "--momentum", 0.9],
        ["--rule", "bptt", "--settle-eta", 0.3],
        ["--assumptions", "learned-feedback", "--integrator", "euler", "--noise", 0.01, "--steps", 7],
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, tiny, monkeypatch, options):
    options = [*tiny, *options, "--checkpoint-every", 1]
    assert run(*options, "--out", tmp_path / "whole") == 0
    batches, original = iter(range(3)), Recorder.on_batch

    def dying(self, training):
        original(self, training)
        if next(batches) == 2:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "on_batch", dying)
        with pytest.raises(Killed):
            run(*options, "--out", tmp_path / "run")
    assert run("--resume", tmp_path / "run", "--quiet") == 0
    assert differing(outcome(tmp_path / "run"), outcome(tmp_path / "whole")) == []
    mine, theirs = (RunFolder(tmp_path / name).summary() for name in ("run", "whole"))
    assert mine.unsettled == theirs.unsettled


def test_evaluation_lets_rates_settle_as_in_training(tmp_path, tiny, npz, capsys):
    assert run(*tiny, "--out", tmp_path / "run", "--settle-steps", 3) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["test_accuracy"]
    assert found == RunFolder(tmp_path / "run").summary().test_accuracy
    trained = load_run(tmp_path / "run")
    data = assemble(trained.experiment).training.batches.data.test
    output = settle(trained.network, trained.preprocess(data.images), Settle(Steps(3, eta=0.5))).activities["output"]
    assert float((output.argmax(1) == data.labels).float().mean()) == pytest.approx(found)


def test_angles_to_backprop_are_small_where_both_have_settled(tmp_path, tiny):
    assert run(*tiny, "--out", tmp_path / "run", "--measure-alignment", 2) == 0
    rows = RunFolder(tmp_path / "run").table("alignment")
    assert rows
    assert all(0 < row["mean"] < 5 for row in rows)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--settle-steps", "3"], "--settle-steps needs a network with cycles, but digits-mlp has none: leave it out."),
        (["--unsettled", "drop"], "--unsettled needs a network with cycles, but digits-mlp has none: leave it out."),
        (["--rule", "bptt"], "--rule bptt needs a network with cycles: use --rule backprop."),
        (["--settle-eta", "0"], "--settle-eta must be positive and at most 2, got 0."),
        (["--network", "digits-rec", "--compile", "trace"], "--compile trace needs a network without cycles: leave it"),
        (
            ["--network", "digits-rec", "--evaluation", "closed-form"],
            "--evaluation closed-form can't be used here: the closed form needs a network without cycles",
        ),
        (
            ["--network", "digits-rec", "--rule", "bptt", "--settle-eta", "5"],
            "--settle-eta must be positive and at most",
        ),
    ],
)
def test_what_is_refused(tmp_path, capsys, options, sentence):
    assert run("--network", "digits-mlp", *options, "--out", tmp_path / "run", "--epochs", 1) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_options_reach_the_rule():
    forward = ForwardPhase(settle_steps=4, unsettled="drop", unsettled_above=0.5, sample_clip=3.0)
    parts = assemble(Experiment(model=Model("digits-rec"), forward=forward))
    found = parts.options
    assert found.settle == Settle(Steps(4, eta=0.5))
    assert (found.unsettled, found.unsettled_above, found.sample_clip) == ("drop", 0.5, 3.0)
    with pytest.raises(ActrelaxError, match=r"^--sample-clip must be positive"):
        ForwardPhase(sample_clip=-1.0).check()


def test_a_bound_on_recurrent_weights_holds_after_each_update(tmp_path, tiny):
    assert run(*tiny, "--out", tmp_path / "bound", "--recurrent-bound", 0.7, "--lr", 1.0) == 0
    assert run(*tiny, "--out", tmp_path / "free", "--lr", 1.0) == 0
    norms = {}
    for name in ("bound", "free"):
        weight = load_run(tmp_path / name).network.projections["hidden1->hidden1"].weight.detach()
        norms[name] = float(torch.linalg.matrix_norm(weight.double(), 2))
    assert 0.6 < norms["bound"] < 0.75 < 1.2 < norms["free"]


def test_feedback_strength_scales_the_feedback(tmp_path, tiny):
    network = build("digits-rec", generator=0)
    assert Relaxation(feedback_strength=0.25).problem_fields(network, 0)["feedback_transform"] == Scaled(0.25)
    assert run(*tiny, "--out", tmp_path / "weak", "--feedback-strength", 0.25) == 0
    assert run(*tiny, "--out", tmp_path / "whole") == 0
    weak, whole = (RunFolder(tmp_path / name).checkpoint()["network"] for name in ("weak", "whole"))
    assert not torch.equal(weak["hidden1->hidden1.weight"], whole["hidden1->hidden1.weight"])
    names = {"feedback_strength", "recurrent_bound"}
    assert not names & as_config(Experiment(), Execution())["experiment"].keys()
    config = RunFolder(tmp_path / "weak").config()
    assert config["experiment"]["feedback_strength"] == 0.25
    assert as_config(*from_config(config)) == config


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--recurrent-bound", "1"], "--recurrent-bound needs a network with cycles, but digits-mlp has none: leave"),
        (["--recurrent-bound", "0"], "--recurrent-bound must be positive, got 0."),
        (["--feedback-strength", "0"], "--feedback-strength must be positive, got 0."),
        (
            ["--feedback-strength", "0.5", "--feedback-transform", "quantised-4"],
            "--feedback-transform and --feedback-strength exclude each other: give one of them.",
        ),
        (["--watch"], "--watch needs a network with cycles, but digits-mlp has none."),
    ],
)
def test_what_else_is_refused(tmp_path, capsys, options, sentence):
    assert run("--network", "digits-mlp", *options, "--out", tmp_path / "run", "--epochs", 1) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
