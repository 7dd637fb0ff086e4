"""Options of `actrelax train` beyond the papers': longer runs, the best network, early stopping, other optimisers."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from outcomes import differing, outcome
from torch.nn.utils import parameters_to_vector

from actrelax.analysis.runs import RunFolder
from actrelax.models.results import open_trajectory
from actrelax.simulations import cli
from actrelax.simulations.data import load
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.configuration import hash_of, read_config
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation
from actrelax.simulations.training.loop import train
from actrelax.simulations.training.optimisers import PREFIX, SHORT, optimiser_named
from actrelax.simulations.training.recorder import Recorder
from actrelax.simulations.training.saved import load_run

QUICK = ["--network", "digits-mlp", "--steps", "3", "--threads", "1", "--batch-size", "25", "--quiet"]


@pytest.fixture
def tiny(npz):
    """Return options of a run with 4 batches per epoch."""
    return ["--dataset", str(npz), *QUICK]


def run(*arguments):
    return cli.main([*map(str, arguments)])


def refused(capsys, *arguments):
    assert run(*arguments) == 2
    return capsys.readouterr().err.strip().partition(": ")[2]


def test_the_knobs_of_one_projection(tmp_path, tiny, capsys):
    lift = ["--lift", "hidden1->output.feedback=random", "--lift", "input->hidden1.weight-gain=none"]
    assert run("train", *tiny, *lift, "--epochs", 1, "--out", tmp_path / "run") == 0
    assert "hidden1->output.feedback" in load_run(tmp_path / "run").network.state_dict()
    words = tuple(lift[1::2])
    assert read_config(RunFolder(tmp_path / "run"))[0].relaxation.lift == words
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["assumptions"] == ",".join(["ar", *words])
    sentence = "assumptions name an unknown projection 'hidden2'; known: input->hidden1, hidden1->output."
    assert sentence in refused(capsys, "train", *tiny, "--lift", "hidden2.feedback=sign", "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


# ---- more epochs


@pytest.mark.parametrize(
    "options", [["--augment", "flip,crop", "--momentum", 0.9, "--warmup", 0.5], ["--optimiser", "adam"]]
)
def test_a_finished_run_goes_on_as_one_that_was_never_finished(tmp_path, tiny, options):
    options = [*options, "--schedule", "step", "--step-epochs", 1, "--validation", 20]
    assert run("train", *tiny, *options, "--epochs", 4, "--out", tmp_path / "whole") == 0
    assert run("train", *tiny, *options, "--epochs", 2, "--out", tmp_path / "run") == 0
    assert run("train", "--resume", tmp_path / "run", "--epochs", 4, "--quiet") == 0
    assert differing(outcome(tmp_path / "run"), outcome(tmp_path / "whole")) == []
    assert (tmp_path / "run" / "config.json").read_text() == (tmp_path / "whole" / "config.json").read_text()
    best = [load_run(tmp_path / name, best=True).network.state_dict() for name in ("run", "whole")]
    assert all(torch.equal(a, b) for a, b in zip(best[0].values(), best[1].values(), strict=True))


def test_a_run_that_is_killed_as_it_becomes_longer_is_whole(tmp_path, tiny, monkeypatch):
    class Killed(BaseException):
        pass

    def dying(self, training):
        raise Killed

    assert run("train", *tiny, "--epochs", 1, "--out", tmp_path / "run") == 0
    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "on_start", dying)
        with pytest.raises(Killed):
            run("train", "--resume", tmp_path / "run", "--epochs", 2, "--quiet")
    assert not (tmp_path / "run" / "summary.json").exists()
    assert run("train", "--resume", tmp_path / "run", "--quiet") == 0
    assert RunFolder(tmp_path / "run").summary().epochs == 2


def test_runs_that_can_not_be_longer(tmp_path, tiny, capsys):
    out = tmp_path / "run"
    assert run("train", *tiny, "--epochs", 2, "--schedule", "cosine", "--out", out) == 0
    before = outcome(out)
    assert refused(capsys, "train", "--resume", out, "--epochs", 3) == (
        f"the cosine schedule of {out} ends after 2 epochs: start another run with --epochs 3."
    )
    assert refused(capsys, "train", "--resume", out, "--epochs", 1) == (
        f"--epochs must be at least 2, the epochs of {out}, got 1."
    )
    assert run("train", *tiny, "--epochs", 1, "--out", tmp_path / "other") == 0
    experiment, _ = read_config(RunFolder(tmp_path / "other"))
    kept = tmp_path / f"tiny-digits-mlp-ar-seed0-{hash_of(experiment)}"
    shutil.copytree(tmp_path / "other", kept)
    capsys.readouterr()
    assert refused(capsys, "train", "--resume", kept, "--epochs", 2) == (
        f"{kept} is a suite's run of 1 epochs: copy the folder, and extend the copy with --epochs."
    )
    assert differing(outcome(out), before) == []
    assert run("train", "--resume", tmp_path / "other", "--epochs", 2, "--quiet") == 0


# ---- validation


def test_the_best_network_is_kept(tmp_path, tiny, capsys):
    out = tmp_path / "run"
    options = ["--validation", 20, "--epochs", 4, "--lr", 0.5, "--rule", "backprop"]
    assert run("train", *tiny, *options, "--out", out) == 0
    said = capsys.readouterr().out
    rows, summary = RunFolder(out).table("metrics")[1:], RunFolder(out).summary()
    best = max(rows, key=lambda row: row["validation_accuracy"])
    assert best["epoch"] == 3  # not the last epoch
    assert (summary.best_epoch, summary.test_accuracy_at_best) == (best["epoch"], best["test_accuracy"])
    assert f"best validation accuracy after epoch {summary.best_epoch}, with test accuracy " in said
    assert summary.test_accuracy == rows[-1]["test_accuracy"] != best["test_accuracy"]
    for options, row in (["--best"], best), ([], rows[-1]):
        assert run("evaluate", out, "--json", *options) == 0
        assert json.loads(capsys.readouterr().out)["test_accuracy"] == row["test_accuracy"]
    assert run("train", *tiny, "--epochs", 1, "--out", out, "--overwrite") == 0
    assert refused(capsys, "evaluate", out, "--best") == f"{out} has no best.pt: train it with --validation."


def test_early_stopping(tmp_path, tiny, capsys):
    out = tmp_path / "run"
    options = ["--validation", 20, "--patience", 2, "--lr", 0.5, "--rule", "backprop"]
    assert run("train", *tiny, *options, "--epochs", 50, "--out", out) == 0
    summary, rows = RunFolder(out).summary(), RunFolder(out).table("metrics")[1:]
    found = [row["validation_accuracy"] for row in rows]
    firsts = [max(range(n), key=lambda i: found[i]) for n in range(1, len(found) + 1)]  # the best epoch so far
    assert [n - first >= 2 for n, first in enumerate(firsts)] == [False] * (len(found) - 1) + [True]
    assert summary.epochs == len(found) < 50
    assert f"after {summary.epochs} epochs: {out}" in capsys.readouterr().out
    before = outcome(out)
    assert refused(capsys, "train", "--resume", out, "--epochs", 60) == (
        f"{out} stopped after epoch {summary.epochs} because the validation accuracy did not improve: "
        "leave --epochs out, or start another run with a larger --patience."
    )
    (out / "summary.json").unlink()  # killed before the end
    assert run("train", "--resume", out, "--quiet") == 0
    assert differing(outcome(out), before) == []


# ---- optimisers and losses


def trained(npz, batch_size=25, **optimisation):
    experiment = Experiment(
        "backprop",
        1,
        batch_size,
        images=Images(str(npz)),
        model=Model("digits-mlp"),
        optimisation=Optimisation(**optimisation),
    )
    experiment.check()
    training = assemble(experiment).training
    train(training)
    return training


OTHERS = [name for name, kind in vars(torch.optim).items() if isinstance(kind, type)]
OTHERS = [name for name in OTHERS if name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")]


@pytest.mark.parametrize("name", OTHERS)
def test_optimisers_of_torch(npz, name):
    """Optimisers agree with the same loop in plain PyTorch."""
    training = trained(npz, optimiser=f"torch.optim.{name}", lr=0.01)
    other = trained(npz, lr=1e-30)  # the initial weights
    network, batches = other.network, other.batches
    kind = getattr(torch.optim, name)
    decay = {"weight_decay": 0.0} if name == "AdamW" else {}
    optimiser = kind(network.parameters(), lr=0.01, **decay)
    for x, y in batches.epoch(1):
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
    for p, q in zip(training.network.parameters(), network.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)
    again = optimiser_named(PREFIX + name)(network.parameters(), lr=0.01)
    again.load_state_dict(training.optimiser.state_dict())


def test_names_of_optimisers():
    assert [optimiser_named(name) for name in SHORT] == [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW]
    experiment = Experiment(optimisation=Optimisation(optimiser="torch.optim.RMSprop", momentum=0.5))
    experiment.check()
    assert assemble(experiment).training.optimiser.param_groups[0]["momentum"] == 0.5


def test_updates_are_clipped_by_their_norm(npz):
    """One step of gradient descent changes the weights by lr times the bound, along the gradient."""
    runs = (
        trained(npz, 100, lr=lr, clip_norm=clip) for lr, clip in ((1e-30, None), (0.1, None), (0.1, 0.01), (0.1, 1e6))
    )
    start, free, clipped, high = (parameters_to_vector(t.network.parameters()).detach().double() for t in runs)
    moved, held = free - start, clipped - start
    assert moved.norm() > 2 * held.norm()
    assert float(held.norm()) == pytest.approx(0.1 * 0.01, rel=1e-4)
    assert float(moved @ held / moved.norm() / held.norm()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(high, free)


def test_smoothed_labels_of_a_run(tmp_path, tiny, npz):
    """The first training loss equals PyTorch's, and a later relaxation uses the same loss."""
    out = tmp_path / "run"
    options = ["--label-smoothing", 0.2, "--lr", 1e-30, "--epochs", 1]
    assert run("train", *tiny, *options, "--out", out) == 0
    found = load_run(out)
    training = assemble(found.experiment).training
    x, y = training.batches.example(100)
    expected = F.cross_entropy(found.network(x).detach(), y, label_smoothing=0.2)
    assert RunFolder(out).table("metrics")[1]["train_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert run("relax", "--run", out, "--out", tmp_path / "relaxed", "--batch-size", 2, "--steps", 2) == 0
    ends = open_trajectory(tmp_path / "relaxed" / "trajectory.nc")["output"][-1].values
    x, y = (part[:2] for part in load(str(npz)).test)
    output = found.network(found.preprocess(x)).detach().double().requires_grad_()
    F.cross_entropy(output, y, label_smoothing=0.2, reduction="sum").backward()
    assert ends == pytest.approx(output.grad.numpy(), abs=1e-6)
