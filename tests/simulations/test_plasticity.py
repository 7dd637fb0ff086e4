"""Learning the digits inside Brian2, with small settings."""

import json
import shutil
import signal
from contextlib import nullcontext

import pytest
import torch
from outcomes import is_drawn

from actrelax.analysis.files import claimed
from actrelax.analysis.runs import RunFolder
from actrelax.models.learning import relax_backward
from actrelax.models.learning.brian2 import Learner
from actrelax.models.network import build
from actrelax.simulations import cli
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.plasticity import Config, make_network

TINY = ["--images", "40", "--every", "25", "--steps", "4", "--eta", "0.5", "--epochs", "2", "--lr", "0.1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a tiny uninterrupted run: two passes of 40 stimuli, in batches of 25 and 15."""
    out = tmp_path_factory.mktemp("plasticity") / "run"
    assert cli.main(["plasticity", "--out", str(out), *TINY]) == 0
    return out


def same(a, b):
    first, second = (RunFolder(path).checkpoint() for path in (a, b))
    for name in ("network", "rule"):
        assert list(first[name]) == list(second[name])
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name])
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()


def test_writes_what_it_says(finished, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["plasticity", "--out", str(out), *TINY]) == 0
    said = capsys.readouterr()
    folder = RunFolder(out)
    summary, rows = folder.summary(), folder.table("metrics")
    assert said.out == f"test accuracy {summary.test_accuracy:.2%} after 2 passes: {out}\n"
    assert [line.split("  loss")[0] for line in said.err.splitlines()] == ["run  epoch 1 of 2", "run  epoch 2 of 2"]
    assert [(row["stimuli"], row["epoch"]) for row in rows] == [(0, 0), (25, 0.625), (40, 1), (65, 1.625), (80, 2)]
    assert list(rows[0]) == ["epoch", "learning_rate", "train_loss", "train_accuracy", "test_accuracy", "stimuli"]
    assert is_drawn(folder.figures / "plasticity.png")
    # accuracy inside Brian2 and by PyTorch with these weights
    assert summary.test_accuracy == rows[-1]["test_accuracy"] > 0.3
    assert summary.train_accuracy == rows[-1]["train_accuracy"]
    assert (summary.rule, summary.network, summary.epochs, summary.device) == ("ar", "digits-mlp", 2, "Brian2 (numpy)")
    assert "brian2" in summary.versions
    same(finished, out)


def test_it_is_the_rule_of_pytorch_with_batches_of_one(finished):
    """Weights, loss and accuracy since the last test agree with the rule in PyTorch, written out."""
    network, rows = make_network(Config()), RunFolder(finished).table("metrics")
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    images, labels = digits().train
    losses, correct = [], []
    for number in (1, 2):
        for k in torch.randperm(40, generator=random_stream(0, "epoch", number)).tolist():
            optimiser.zero_grad()
            x, y = images[k : k + 1].double().flatten(1), labels[k : k + 1]
            result = relax_backward(network, x, y, integrator="euler", steps=4, eta=0.5)
            optimiser.step()
            losses.append(float(result.loss))
            correct.append(int(result.output.argmax()) == int(y))
    for row, first, last in zip(rows[1:], (0, 25, 40, 65), (25, 40, 65, 80), strict=True):
        assert row["train_loss"] == pytest.approx(sum(losses[first:last]) / (last - first))
        assert row["train_accuracy"] == pytest.approx(sum(correct[first:last]) / (last - first))
    learned = build("digits-mlp").double()
    learned.load_state_dict(RunFolder(finished).checkpoint()["network"])
    for name, weight in learned.state_dict().items():
        assert float((weight - network.state_dict()[name]).abs().max()) < 1e-10


def test_a_run_goes_on_for_more_passes(finished, tmp_path, capsys):
    """Resuming with the same number of passes changes nothing."""
    out = tmp_path / "run"
    assert cli.main(["plasticity", "--out", str(out), *TINY, "--epochs", "1"]) == 0
    for _ in range(2):
        assert cli.main(["plasticity", f"--resume={out}", "--epochs", "2"]) == 0
        assert RunFolder(out).config()["epochs"] == 2
        same(finished, out)
    assert "after 2 passes" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("batches", [1, 2])
def test_a_signal_leaves_a_checkpoint_and_the_resumed_run_is_the_same(batches, finished, tmp_path, monkeypatch, capsys):
    """Holds in the middle of a pass, and at its end."""
    learn, calls = Learner.learn, []

    def signalled(*arguments):
        calls.append(1)
        if len(calls) == batches:
            signal.raise_signal(signal.SIGTERM)
        return learn(*arguments)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", signalled)
        assert cli.main(["plasticity", "--out", str(out), *TINY]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"actrelax plasticity: stopped after {batches} of 2 batches of epoch 1: "
        f"continue with actrelax plasticity --resume {out}"
    )
    assert not RunFolder(out).is_finished()
    assert cli.main(["plasticity", "--resume", str(out)]) == 0
    same(finished, out)


def test_an_interrupted_run_continues_from_its_checkpoint(finished, tmp_path, monkeypatch):
    learn, calls = Learner.learn, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*arguments)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", interrupted)
        assert cli.main(["plasticity", "--out", str(out), *TINY]) == 130
    assert RunFolder(out).checkpoint()["position"]["epoch"] == 1
    assert cli.main(["plasticity", "--resume", str(out)]) == 0
    same(finished, out)


def test_options_reach_the_learner(tmp_path):
    options = ["--assumptions", "kolen-pollack", "--decay", "0.01", "--loss", "sum-of-squares", "--activation", "relu"]
    options += ["--lr", "0.01", "--seed", "3", "--feedforward-steps", "6", "--feedforward-eta", "0.5"]
    out = tmp_path / "run"
    assert cli.main(["plasticity", "--out", str(out), *TINY, *options]) == 0
    config = RunFolder(out).config()
    for option, value in zip(options[::2], options[1::2], strict=True):
        assert str(config[option[2:].replace("-", "_")]) == value
    state = RunFolder(out).checkpoint()["network"]
    w, psi = state["hidden1->output.weight"], state["hidden1->output.feedback"]
    assert float((w - psi).abs().max()) > 1e-3
    first = make_network(Config(assumptions="kolen-pollack", activation="relu", seed=3)).state_dict()
    # Kolen and Pollack: W - psi shrinks by 1 - lr decay per stimulus
    expected = (first["hidden1->output.weight"] - first["hidden1->output.feedback"]) * (1 - 0.01 * 0.01) ** 80
    assert float((w - psi - expected).abs().max()) < 1e-12


def test_json_is_alone_on_standard_output(tmp_path, capsys):
    assert cli.main(["plasticity", "--out", str(tmp_path / "run"), *TINY, "--epochs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 1


def test_bad_input_is_one_sentence_and_status_2(finished, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    (other / "config.json").write_text('{"rule": "ar"}')
    new = ["--out", str(tmp_path / "new"), *TINY]
    for arguments, sentence in (
        ([*new, "--epochs", "0"], "--epochs must be 1 or more, got 0."),
        ([*new, "--images", "2000"], "--images must be between 1 and 1437, got 2000."),
        ([*new, "--steps", "0"], "steps must be a whole number, 1 or more, got 0."),
        ([*new, "--assumptions", "continuous"], "in Brian2 weights change after the relaxation, not during it: "),
        ([*new, "--assumptions", "kolen-pollack"], '"kolen-pollack" feedback needs a decay rate and other'),
        ([*new, "--activation", "gelu"], "activation 'gelu' of population 'hidden1' has no formula for Brian2: "),
        ([*new, "--codegen", "fortran"], "unknown Brian2 target 'fortran'; known: "),
        (["--out", str(finished)], f"{finished} holds a run: --resume {finished} continues it, --overwrite "),
        (["--resume", str(finished), "--lr", "0.3"], f"{finished} is a run with --lr 0.1, not 0.3: leave the option"),
        (
            ["--resume", str(finished), "--epochs", "1"],
            f"--epochs must be at least 2, the passes of {finished}, got 1.",
        ),
        (["--resume", str(tmp_path / "no")], f"{tmp_path / 'no'} holds no run: config.json can't be read."),
        (["--resume", str(other)], f"{other} holds a run of another program: resume it with that program."),
    ):
        assert cli.main(["plasticity", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"actrelax plasticity: {sentence}")
        assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda run: (run / "checkpoint.pt").write_bytes(b"PK"), "checkpoint.pt is not a checkpoint, or is damaged"),
        (lambda run: torch.save({"network": {}}, run / "checkpoint.pt"), "checkpoint.pt belongs to another run"),
        (lambda run: [(run / "metrics.csv").unlink(), (run / "metrics.csv").mkdir()], "can't write to "),
        (lambda run: [(run / "summary.json").unlink(), (run / "summary.json").mkdir()], "can't write to "),
        (
            lambda run: change(run, {"lr": "0.1"}),
            "the configuration has the invalid value '0.1' for lr.",
        ),
    ],
)
def test_a_resumption_that_is_refused_changes_nothing(finished, tmp_path, capsys, damage, sentence):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert cli.main(["plasticity", "--resume", str(run), "--epochs", "5"]) == 2
    assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def change(run, options):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def test_divergence_is_status_1(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--lr", "1e200", "--loss", "sum-of-squares", "--activation", "identity"]
    assert cli.main(["plasticity", "--out", str(out), *TINY, *options]) == 1
    assert "became non-finite: lower the learning rate or eta." in capsys.readouterr().err


def test_a_run_continues_in_its_folder_alone(tmp_path, finished, capsys):
    assert cli.main(["plasticity", "--resume", str(finished), "--out", str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert said == "actrelax plasticity: --resume continues a run in its folder: leave --out out.\n"


def test_a_run_goes_on_with_its_own_weights_and_alone(finished, tmp_path, capsys):
    out, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(finished, out)
    assert cli.main(["plasticity", "--out", str(other), *TINY, "--epochs", "1", "--seed", "1"]) == 0
    for source, sentence in (
        (other, f"{out / 'checkpoint.pt'} belongs to another run: start the run again, or pass --accept-changes"),
        (finished, f"another process is writing into {out}: wait until it has ended, or choose another folder."),
    ):
        shutil.copy(source / "checkpoint.pt", out)
        capsys.readouterr()
        with claimed(out) if source is finished else nullcontext():
            assert cli.main(["plasticity", "--resume", str(out), "--epochs", "3"]) == 2
        assert capsys.readouterr().err.startswith(f"actrelax plasticity: {sentence}")
        assert RunFolder(out).config()["epochs"] == 2
