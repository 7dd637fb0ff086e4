"""Learning the digits inside Brian2, in small."""

import csv
import json
import shutil

import pytest
import torch
from outcomes import is_drawn

from actrelax.analysis.runs import RunFolder
from actrelax.models.learning import relax_backward
from actrelax.models.network import build
from actrelax.simulations import cli
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.plasticity import Config, make_network
from actrelax.simulations.training import brian2_training

TINY = ["--images", "40", "--every", "25", "--steps", "4", "--eta", "0.5", "--epochs", "2", "--lr", "0.1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run that nothing interrupted: three looks in two passes of 40, the second across their border."""
    out = tmp_path_factory.mktemp("plasticity") / "run"
    assert cli.main(["plasticity", "--out", str(out), *TINY]) == 0
    return out


def same(a, b):
    first, second = (RunFolder(path).checkpoint() for path in (a, b))
    for name in ("network", "activities"):
        assert list(first[name]) == list(second[name])
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name])
    assert first["metrics"] == second["metrics"]
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()


def test_writes_what_it_says(finished, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["plasticity", "--out", str(out), *TINY]) == 0
    said = capsys.readouterr()
    folder = RunFolder(out)
    summary, rows = folder.summary(), folder.table("metrics")
    assert said.out == f"test accuracy {summary.test_accuracy:.2%} after 2 passes: {out}\n"
    assert [line.split(" stimuli")[0].strip() for line in said.err.splitlines()] == ["25", "50", "75", "80"]
    assert [(row["stimuli"], row["epoch"]) for row in rows] == [(25, 0.625), (50, 1.25), (75, 1.875), (80, 2)]
    assert is_drawn(folder.figures / "plasticity.png")
    # inside Brian2 and by PyTorch with these weights: the same
    assert summary.test_accuracy == rows[-1]["test_accuracy"] > 0.3
    assert summary.train_accuracy == rows[-1]["train_accuracy"]
    assert (summary.rule, summary.network, summary.epochs, summary.device) == ("ar", "digits-mlp", 2, "Brian2 (numpy)")
    assert "brian2" in summary.versions
    same(finished, out)


def test_weights_are_those_that_torch_learns(finished):
    """The order of the digits, the initial weights and the rule, once more without the program."""
    network = make_network(Config())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    images, labels = digits().train
    for number in (1, 2):
        for k in torch.randperm(40, generator=random_stream(0, "epoch", number)).tolist():
            optimiser.zero_grad()
            x = images[k : k + 1].double().flatten(1)
            relax_backward(network, x, labels[k : k + 1], integrator="euler", steps=4, eta=0.5)
            optimiser.step()
    learned = build("digits-mlp").double()
    learned.load_state_dict(RunFolder(finished).checkpoint()["network"])
    for name, weight in learned.state_dict().items():
        assert float((weight - network.state_dict()[name]).abs().max()) < 1e-10


def test_a_run_goes_on_for_more_passes(finished, tmp_path, capsys):
    """Looks at other stimuli than an uninterrupted run leave the weights alone."""
    out = tmp_path / "run"
    assert cli.main(["plasticity", "--out", str(out), *TINY, "--epochs", "1"]) == 0
    assert cli.main(["plasticity", f"--resume={out}", "--epochs", "2"]) == 0
    assert RunFolder(out).config()["epochs"] == 2
    first, second = (RunFolder(path).checkpoint()["network"] for path in (finished, out))
    assert max(float((first[key] - second[key]).abs().max()) for key in first) < 1e-12
    assert "after 2 passes" in capsys.readouterr().out.splitlines()[-1]


def test_a_resumed_run_equals_an_uninterrupted_one(finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    respond, calls = brian2_training.accuracy, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return respond(*arguments)

    monkeypatch.setattr(brian2_training, "accuracy", interrupted)
    assert cli.main(["plasticity", "--out", str(out), *TINY]) == 130
    assert RunFolder(out).checkpoint()["learned"] == 50
    assert not RunFolder(out).is_finished()
    monkeypatch.undo()
    assert cli.main(["plasticity", "--resume", str(out)]) == 0
    same(finished, out)
    # a finished run has nothing left to do
    assert cli.main(["plasticity", "--resume", str(out)]) == 0
    same(finished, out)


def test_a_signal_leaves_a_checkpoint(tmp_path, monkeypatch, capsys):
    import signal

    out = tmp_path / "run"
    respond = brian2_training.accuracy

    def signalled(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return respond(*arguments)

    monkeypatch.setattr(brian2_training, "accuracy", signalled)
    assert cli.main(["plasticity", "--out", str(out), *TINY]) == 128 + signal.SIGTERM
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"actrelax plasticity: stopped after 25 of 80 stimuli: continue with actrelax plasticity --resume {out}"
    )
    assert RunFolder(out).checkpoint()["learned"] == 25


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
    # Kolen and Pollack: W - psi shrinks by 1 - lr decay a stimulus
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
        ([*new, "--assumptions", "kolen-pollack"], '"kolen-pollack" feedback needs a decay rate, other'),
        ([*new, "--activation", "gelu"], "activation 'gelu' of population 'hidden1' has no formula for Brian2: "),
        ([*new, "--codegen", "fortran"], "unknown Brian2 target 'fortran'; known: "),
        (["--out", str(finished)], f"{finished} holds a run: --resume {finished} continues it; or give another --out."),
        (["--resume", str(finished), "--lr", "0.3"], f"{finished} is a run with --lr 0.1, not 0.3: leave that option"),
        (
            ["--resume", str(finished), "--epochs", "1"],
            f"{finished} is a run of 2 passes, which --epochs can only add to.",
        ),
        (["--resume", str(tmp_path / "no")], f"{tmp_path / 'no'} holds no run: config.json can't be read."),
        (["--resume", str(other)], f"{other} holds a run of another program: continue it with that."),
    ):
        assert cli.main(["plasticity", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"actrelax plasticity: {sentence}")
        assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_divergence_is_status_1(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--lr", "1e200", "--loss", "sum-of-squares", "--activation", "identity"]
    assert cli.main(["plasticity", "--out", str(out), *TINY, *options]) == 1
    assert "became non-finite: lower the learning rate or eta." in capsys.readouterr().err


def test_table_is_plain_csv(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["epoch", "stimuli", "train_accuracy", "test_accuracy"]
