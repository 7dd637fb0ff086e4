"""`actrelax train` as a user sees it: files, resuming, and refused options."""

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from outcomes import differing, is_drawn, outcome

from actrelax.analysis.runs import RunFolder
from actrelax.models.engines import solve
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations import cli, train
from actrelax.simulations.data import load
from actrelax.simulations.training.configuration import as_config, from_config
from actrelax.simulations.training.recorder import Recorder
from actrelax.simulations.training.saved import load_run

QUICK = ["--network", "digits-mlp", "--steps", "3", "--threads", "1", "--batch-size", "25"]


@pytest.fixture
def tiny(npz):
    """Return options of a run of one second: 100 images, 4 batches per epoch."""
    return ["--dataset", str(npz), *QUICK, "--epochs", "3"]


def run(*arguments):
    return cli.main(["train", *map(str, arguments)])


def assert_same(a, b):
    assert differing(a, b) == []


def test_writes_what_it_says(tmp_path, tiny, capsys):
    out = tmp_path / "run"
    assert run(*tiny, "--out", out, "--validation", 20) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "best.pt",
        "checkpoint.pt",
        "config.json",
        "figures",
        "fingerprints.json",
        "metrics.csv",
        "summary.json",
        "timing.csv",
    ]
    assert is_drawn(out / "figures" / "learning-curves.png")
    metrics, timing = RunFolder(out).table("metrics"), RunFolder(out).table("timing")
    assert [row["epoch"] for row in metrics] == [row["epoch"] for row in timing] == [0, 1, 2, 3]
    summary = json.loads((out / "summary.json").read_text())
    for name in ("test_accuracy", "train_accuracy", "validation_accuracy"):
        assert summary[name] == metrics[-1][name]
        assert 0 <= summary[name] <= 1
    assert summary["wall_seconds"] == pytest.approx(
        sum(row["train_seconds"] + row["evaluate_seconds"] for row in timing)
    )
    assert summary["images_per_second"] == pytest.approx(3 * 80 / sum(row["train_seconds"] for row in timing))
    expected = {"rule": "ar", "assumptions": "ar", "dataset": "tiny", "network": "digits-mlp", "epochs": 3, "seed": 0}
    assert {name: summary[name] for name in expected} == expected
    assert summary["device"] == "cpu"
    assert summary["versions"]["torch"] == torch.__version__
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"hash of the options: {summary['hash']}",
        f"best validation accuracy after epoch {summary['best_epoch']}, with test accuracy "
        f"{summary['test_accuracy_at_best']:.2%}: best.pt",
        f"test accuracy {summary['test_accuracy']:.2%} after 3 epochs: {out}",
    ]
    assert len(said.err.splitlines()) == 3


def test_a_clip_above_the_largest_bracket_has_no_effect(tmp_path, tiny, npz):
    """Holds for the first batch with trained weights; a scheme with two stages has no bound."""
    assert run(*tiny, "--out", tmp_path / "run") == 0
    trained, data = load_run(tmp_path / "run"), load(str(npz)).train
    bound = trained.folder.summary().largest_bracket
    problem = RelaxationProblem.from_batch(trained.network, trained.preprocess(data.images[:25]), data.labels[:25])
    free, above, below = (
        solve(replace(problem, clip=clip), "sequential", 3, eta=0.1).final["hidden1"]
        for clip in (None, 1.001 * bound, 0.5 * bound)
    )
    assert torch.allclose(above, free)
    assert not torch.allclose(below, free)
    assert run(*tiny, "--integrator", "heun", "--out", tmp_path / "heun", "--epochs", 1) == 0
    assert RunFolder(tmp_path / "heun").summary().largest_bracket is None


def test_json_is_alone_on_standard_output(tmp_path, tiny, capsys):
    assert run(*tiny, "--out", tmp_path / "run", "--json", "--quiet") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert said.err == ""


def test_a_folder_is_named_after_its_run(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*tiny, "--epochs", 1) == 0
    assert run(*tiny, "--epochs", 1, "--rule", "backprop", "--seed", 3) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "tiny-digits-mlp-ar-seed0",
        "tiny-digits-mlp-backprop-seed3",
    ]


def test_defaults_of_a_protocol_can_be_changed():
    config = train.defaults(["--protocol=paper-cnn", "--lr", "1"])
    assert config.experiment == train.protocol("paper-cnn")
    assert train.defaults(["--lr", "1"]).experiment == train.Experiment()
    # the last of a repeated option counts, as usual
    repeated = ["--protocol", "paper-mlp", "--protocol", "paper-cnn"]
    assert train.defaults(repeated).experiment == train.protocol("paper-cnn")


def test_options_after_a_protocol_hold(tmp_path, tiny):
    out = tmp_path / "run"
    assert run("--protocol", "paper-mlp", *tiny, "--epochs", 1, "--activation", "relu", "--out", out) == 0
    config = RunFolder(out).config()["experiment"]
    changed = {"activation": "relu", "epochs": 1, "network": "digits-mlp", "batch_size": 25, "steps": 3}
    kept = {"lr": 0.0005, "loss": "sum-of-squares", "reduction": "sum", "weight_std": 0.05}
    assert {name: config[name] for name in changed | kept} == changed | kept
    assert as_config(*from_config(RunFolder(out).config())) == RunFolder(out).config()


def test_paired_runs_begin_alike(tmp_path, tiny):
    first = {}
    for rule, assumptions in (("backprop", "ar"), ("ar", "ar"), ("ar", "simplified")):
        out = tmp_path / f"{rule}-{assumptions}"
        assert run(*tiny, "--rule", rule, "--assumptions", assumptions, "--out", out, "--seed", 5) == 0
        first[out] = RunFolder(out).table("metrics")[0]["test_accuracy"]
    assert len(set(first.values())) == 1
    configs = [json.loads((out / "config.json").read_text()) for out in first]
    assert all(config["experiment"]["seed"] == 5 for config in configs)


# ---- resuming


@pytest.fixture
def whole(tmp_path, tiny):
    """Return an uninterrupted run."""
    out = tmp_path / "whole"
    assert run(*tiny, "--out", out, "--quiet", "--augment", "flip,crop", "--momentum", 0.9, "--schedule", "cosine") == 0
    return out


CHANGING = ["--augment", "flip,crop", "--momentum", 0.9, "--schedule", "cosine", "--quiet"]


class Killed(BaseException):
    """Exception that no code catches, like SIGKILL."""


def killed_after_five_batches(monkeypatch, *arguments):
    """Start a run, and kill it after the fifth batch was recorded."""
    batches, original = iter(range(5)), Recorder.on_batch

    def dying(self, training):
        original(self, training)
        if next(batches) == 4:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "on_batch", dying)
        with pytest.raises(Killed):
            run(*arguments)


@pytest.mark.parametrize("event", ["start", "batch 2", "batch 5", "batch 9", "epoch 1", "epoch 2"])
@pytest.mark.parametrize("every", [None, 2])
def test_resumed_equals_uninterrupted(tmp_path, tiny, whole, monkeypatch, event, every):
    """A run that is killed at an event keeps only the files written before it."""
    out, count = tmp_path / "run", {"batch": 0, "epoch": 0}
    kind, _, number = event.partition(" ")

    def dying(self, training, *, kind, original):
        count[kind] = count.get(kind, 0) + 1
        if count[kind] == int(number or 1):
            raise Killed
        original(self, training)

    with monkeypatch.context() as patched:
        original = getattr(Recorder, f"on_{kind}")
        patched.setattr(
            Recorder, f"on_{kind}", lambda self, training: dying(self, training, kind=kind, original=original)
        )
        with pytest.raises(Killed):
            run(*tiny, "--out", out, *CHANGING, *(["--checkpoint-every", every] if every else []))
    assert not (out / "summary.json").exists()
    assert run("--resume", out, "--quiet") == 0
    assert_same(outcome(out), outcome(whole))
    mine, theirs = ({**json.loads((folder / "summary.json").read_text())} for folder in (out, whole))
    for name in ("wall_seconds", "images_per_second"):
        del mine[name], theirs[name]
    assert mine == theirs


BIOLOGY = {
    "noise": ["--noise", 0.1],
    "input noise": ["--input-noise", 0.1, "--assumptions", "current-presynaptic"],
    "delay": ["--delay", 0.2],
    "transform": ["--feedback-transform", "quantised-4"],
}


@pytest.mark.parametrize("name", BIOLOGY)
def test_biology_changes_what_is_learned_and_resumes(tmp_path, tiny, monkeypatch, name):
    """Delays and noise change the weights, and a resumed run continues the noise of the killed one."""
    options = [*tiny, "--network", "mlp-3x12", "--integrator", "euler", "--quiet", "--checkpoint-every", 1]
    options += ["--tau", 1, "--eta", 0.1]
    without = [] if name != "input noise" else BIOLOGY[name][2:]
    assert run(*options, *without, "--out", tmp_path / "without") == 0
    assert run(*options, *BIOLOGY[name], "--out", tmp_path / "whole") == 0
    assert run(*options, *BIOLOGY[name], "--out", tmp_path / "again") == 0
    whole = outcome(tmp_path / "whole")
    assert_same(outcome(tmp_path / "again"), whole)
    changed = {where.split(".")[2] for where in differing(outcome(tmp_path / "without"), whole) if "network" in where}
    assert changed
    killed_after_five_batches(monkeypatch, *options, *BIOLOGY[name], "--out", tmp_path / "run")
    assert run("--resume", tmp_path / "run", "--quiet") == 0
    assert_same(outcome(tmp_path / "run"), whole)


LAYOUTS = {
    "bf16": ["--precision", "bf16"],
    "bf16, sign-concordant": ["--precision", "bf16", "--assumptions", "sign-feedback"],
    "channels last": ["--channels-last"],
    "both": ["--channels-last", "--precision", "bf16", "--assumptions", "learned-feedback"],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_precision_and_layout_resume(tmp_path, tiny, monkeypatch, name):
    """A run killed after five of twelve batches keeps its fp32 weights and their memory layout."""
    options = [*tiny, "--network", "digits-cnn", "--momentum", 0.9, "--quiet", "--checkpoint-every", 1]
    assert run(*options, *LAYOUTS[name], "--out", tmp_path / "whole") == 0
    killed_after_five_batches(monkeypatch, *options, *LAYOUTS[name], "--out", tmp_path / "run")
    assert run("--resume", tmp_path / "run", "--quiet") == 0
    whole, resumed = outcome(tmp_path / "whole"), outcome(tmp_path / "run")
    assert_same(resumed, whole)
    for state in (whole["checkpoint"], resumed["checkpoint"]):
        momenta = [entry["momentum_buffer"] for entry in state["optimiser"]["state"].values()]
        for weight in [*state["network"].values(), *momenta]:
            assert weight.dtype == torch.float32
            if weight.dim() == 4 and weight.shape[1] > 1:
                assert weight.is_contiguous(memory_format=torch.channels_last) == (
                    "channels" in " ".join(LAYOUTS[name])
                )
    run_again = load_run(tmp_path / "run")
    assert run_again.network(torch.zeros(1, 1, 8, 8)).dtype == torch.float32


def test_bf16_learns_what_fp32_learns(tmp_path, tiny):
    """Results agree to bf16's rounding, but not exactly."""
    for precision in ("fp32", "bf16"):
        assert run(*tiny, "--precision", precision, "--out", tmp_path / precision, "--quiet") == 0
    rounded, exact = (outcome(tmp_path / precision)["checkpoint"]["network"] for precision in ("bf16", "fp32"))
    for name, weight in exact.items():
        assert 0 < (rounded[name] - weight).norm() / weight.norm() < 0.05


def test_noise_needs_an_integrator_that_follows_it(tmp_path, tiny, capsys):
    said = refused(capsys, 2, *tiny, "--noise", 0.1, "--out", tmp_path / "run")
    assert said.startswith('"sequential" can\'t be used here: it does not support noise: use "euler"')
    said = refused(capsys, 2, *tiny, "--integrator", "euler", "--delay", 0.25, "--out", tmp_path / "run")
    assert said == "the delay of 'hidden1->output' must be a whole number of dt, got 0.25 with dt 0.1."
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_changes_nothing(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert run("--resume", whole) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert "test accuracy" in capsys.readouterr().out


PACED = """
import sys, time
from actrelax.simulations import cli
from actrelax.simulations.training.recorder import Recorder

save = Recorder.on_epoch

def save_and_rest(recorder, training):
    save(recorder, training)
    time.sleep(0.2)

Recorder.on_epoch = save_and_rest
sys.exit(cli.main(["train", *sys.argv[1:]]))
"""


def started(*arguments, folder):
    """Return a run in a separate process that has begun to train.

    It sleeps between epochs, so that a signal arrives before its end.
    """
    command = [sys.executable, "-c", PACED, *map(str, arguments), "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    return process


LONG = ["--epochs", "30", "--steps", "20"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_cleanly(tmp_path, tiny, number, status):
    out = tmp_path / "run"
    process = started(*tiny, *LONG, folder=out)
    time.sleep(0.3)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    last = said.splitlines()[-1]
    assert last.startswith("actrelax train: stopped after ")
    assert last.endswith(f"of epoch {_epochs_in(out) + 1}: continue with actrelax train --resume {out}")
    assert "Traceback" not in said
    assert run("--resume", out, "--quiet") == 0
    assert run(*tiny, *LONG, "--out", tmp_path / "whole", "--quiet") == 0
    assert_same(outcome(out), outcome(tmp_path / "whole"))


def _epochs_in(folder):
    return RunFolder(folder).checkpoint()["position"]["epoch"]


def test_killed_at_once(tmp_path, tiny, capsys):
    """tests/kill.py kills a longer run at ten random moments."""
    out = tmp_path / "run"
    process = started(*tiny, *LONG, "--checkpoint-every", 3, folder=out)
    time.sleep(0.2)
    # no other process may write into its folder while it runs
    held = f"another process is writing into {out}: wait until it has ended, or choose another folder."
    assert refused(capsys, 2, *tiny, "--seed", 5, "--overwrite", "--out", out) == held
    assert refused(capsys, 2, "--resume", out) == held
    process.kill()
    process.communicate(timeout=60)
    assert run("--resume", out, "--quiet") == 0
    assert run(*tiny, *LONG, "--out", tmp_path / "whole", "--quiet") == 0
    assert_same(outcome(out), outcome(tmp_path / "whole"))


# ---- refusing


def refused(capsys, status, *arguments):
    capsys.readouterr()
    assert run(*arguments) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("actrelax train: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("actrelax train: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--dataset", "nix"], "unknown dataset 'nix'; known: digits, mnist,"),
        (["--dataset", "nix.npz"], f"{Path('nix.npz').absolute()} does not exist: give a .npz file with"),
        (["--network", "nix"], "unknown network 'nix'; known: digits-mlp,"),
        (["--network", "cnn"], "this network takes images (channels, height, width) of at least 14 x 14,"),
        (["--assumptions", "nix"], "unknown assumptions 'nix'; known: ar,"),
        (["--integrator", "nix"], "unknown integrator 'nix'; known: euler,"),
        (["--loss", "nix"], "unknown loss 'nix'; known: cross-entropy,"),
        (["--activation", "nix"], "unknown activation 'nix'; known: identity,"),
        (["--device", "nix"], "unknown device 'nix'; known: cpu, cuda, cuda:N, mps, auto."),
        (["--device", "cuda:99"], "device 'cuda:99' is not available: this machine has cpu"),
        (["--precision", "tf32"], "device 'cpu' has no TF32: use fp32, or an NVIDIA GPU from Ampere on."),
        (
            ["--precision", "bf16", "--assumptions", "continuous"],
            "continuous plasticity does not support bf16: use fp32.",
        ),
        (["--channels-last"], "--channels-last is for convolutions, but digits-mlp has none: leave it out."),
        (["--protocol", "nix"], "unknown protocol 'nix'; known: paper-mlp, paper-cnn."),
        (["--epochs", "0"], "--epochs must be 1 or more, got 0."),
        (["--batch-size", "0"], "--batch-size must be 1 or more, got 0."),
        (["--lr", "0"], "--lr must be positive and at most 1e+30, got 0."),
        (["--lr", "nan"], "--lr must be positive and at most 1e+30, got nan."),
        (["--steps", "-3"], "--steps must be 0 or more, got -3."),
        (["--eta", "2.5"], 'eta must lie between 0 and 2 for "sequential", got 2.5:'),
        (["--eta", "0.1", "--dt", "0.1"], "--dt and --eta exclude each other: give one of them."),
        (["--tau-spread", "0.1"], "eta is dt/tau and needs one tau, but the problem has several: give dt."),
        (["--threads", "0"], "--threads must be between 1 and 1024, got 0."),
        (["--rule", "backprop", "--assumptions", "nix"], "unknown assumptions 'nix'; known: ar,"),
        (["--resume", "nix", "--protocol", "paper-mlp"], "--resume takes its options from the run: leave --protocol"),
        (["--read-every", "0"], "--read-every must be 1 or more, got 0."),
        (["--checkpoint-every", "-1"], "--checkpoint-every must be 1 or more, got -1."),
        (["--validation", "100"], "validation must lie between 1 and 99 images, got 100."),
        (["--assumptions", "kolen-pollack"], "Kolen-Pollack feedback needs a decay rate: give --decay."),
        (["--resume", "nix"], "nix holds no run: config.json can't be read."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(tmp_path, tiny, capsys, options, sentence):
    out = tmp_path / "run"
    where = [] if "--resume" in options else ["--out", out]
    assert refused(capsys, 2, *tiny, *where, *options).startswith(sentence)
    assert not out.exists()


def test_usage_errors_are_status_2(capsys):
    for arguments in (["--lr", "fast"], ["--rule", "magic"], ["--colour", "red"]):
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_overwriting_keeps_the_old_run_where_the_new_one_is_refused(tiny, whole, capsys, monkeypatch):
    before = outcome(whole)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = refused(capsys, 2, *tiny, "--out", whole, "--overwrite", "--tensorboard")
    assert said == "--tensorboard needs the package tensorboard: pip install tensorboard."
    assert_same(outcome(whole), before)


@pytest.mark.parametrize("damage", ["empty", "truncated", "random", "nan", "labels"])
def test_bad_files(tmp_path, tiny, npz, arrays, capsys, damage):
    if damage == "nan":
        x = arrays["x_train"] / 255
        x[5, 0, 0] = np.nan
        np.savez(npz, **arrays | {"x_train": x, "x_test": arrays["x_test"] / 255})
    elif damage == "labels":
        np.savez(npz, **arrays | {"y_test": arrays["y_test"] + 1})
    else:
        whole = npz.read_bytes()
        npz.write_bytes(
            {"empty": b"", "truncated": whole[:-999], "random": np.random.default_rng(0).bytes(4000)}[damage]
        )
    assert str(npz) in refused(capsys, 2, *tiny, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rule", ["ar", "backprop"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_learning_rate_of_1e30(tmp_path, tiny, capsys, rule, activation):
    out = tmp_path / "run"
    options = [*tiny, "--lr", "1e30", "--rule", rule, "--activation", activation, "--out", out, "--quiet"]
    assert refused(capsys, 1, *options).startswith("training diverged in batches 1 to 4 of epoch 1, ")
    assert not (out / "summary.json").exists()
    assert all(torch.isfinite(p).all() for p in load_run(out).network.parameters())
    assert refused(capsys, 1, "--resume", out).startswith("training diverged in batches 1 to 4 of epoch 1, ")


def test_nothing_is_saved_that_is_not_sound(tmp_path, tiny, capsys):
    """With checkpoints after every batch and checks after every epoch, diverged weights of batch 2 are not saved."""
    out = tmp_path / "run"
    options = [*tiny, "--lr", "1e30", "--checkpoint-every", 1, "--read-every", 1000, "--out", out]
    refused(capsys, 1, *options)
    assert RunFolder(out).checkpoint()["position"]["batch"] == 1
    assert RunFolder(out).checkpoint()["totals"]["sound"]


def test_a_run_is_never_overwritten_unasked(tmp_path, tiny, whole, capsys):
    before = outcome(whole)
    assert refused(capsys, 2, *tiny, "--out", whole) == (
        f"{whole} holds a run: --resume {whole} continues it, --overwrite replaces it."
    )
    assert_same(outcome(whole), before)
    assert refused(capsys, 2, *tiny, "--out", whole, "--overwrite", "--integrator", "nix").startswith("unknown integ")
    assert_same(outcome(whole), before)
    (whole / "notes.txt").write_text("mine")
    assert run(*tiny, "--out", whole, "--overwrite", "--quiet", "--epochs", 1) == 0
    assert len(RunFolder(whole).table("metrics")) == 2
    assert (whole / "notes.txt").read_text() == "mine"


def test_a_run_of_another_config_is_not_resumed(whole, capsys):
    assert refused(capsys, 2, "--resume", whole, "--lr", "0.3") == (
        f"{whole} is a run with --lr 0.1, not 0.3: leave the option out, or begin another run."
    )
    assert refused(capsys, 2, "--resume", whole, "--out", "elsewhere") == (
        "--resume continues a run in its folder: leave --out and --overwrite out."
    )
    assert run("--resume", whole, "--lr", "0.1") == 0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--freeze", "input->hidden1"], "freeze"),
        (["--lift", "hidden1->output.feedback=random"], "lift"),
        (["--feedback-strength", "0.5"], "feedback-strength"),
        (["--train-images", "20"], "train-images"),
    ],
)
def test_a_resumed_run_takes_no_option_that_it_began_without(whole, capsys, options, name):
    """config.json lacks these at their defaults; given later, they would change the run behind its back."""
    said = refused(capsys, 2, "--resume", whole, *options)
    assert said == f"{whole} is a run without --{name}: leave the option out, or begin another run."


def test_damaged_runs_are_not_resumed(tmp_path, tiny, whole, capsys):
    (whole / "summary.json").unlink()
    checkpoint = (whole / "checkpoint.pt").read_bytes()
    flipped = bytearray(checkpoint)
    flipped[len(checkpoint) // 2] ^= 64  # in the middle of a weight
    random = np.random.default_rng(0)
    noise = [random.bytes(3000) for _ in range(50)]
    for content in (b"", checkpoint[:-500], bytes(flipped), b"PK\x03\x04nothing", *noise):
        (whole / "checkpoint.pt").write_bytes(content)
        said = refused(capsys, 2, "--resume", whole)
        assert said == f"{whole / 'checkpoint.pt'} is not a checkpoint, or is damaged: start the run again."
        assert (whole / "checkpoint.pt").read_bytes() == content
    broken = json.loads((whole / "config.json").read_text())
    broken["experiment"]["lr"] = "x"
    for text, sentence in (
        ("{", f"{whole} holds no run: config.json can't be read."),
        ("[]", f"{whole} holds no run: config.json can't be read."),
        (
            json.dumps(broken),
            "the configuration has the invalid value 'x' for lr.",
        ),
    ):
        (whole / "config.json").write_text(text)
        assert refused(capsys, 2, "--resume", whole) == sentence


def test_a_checkpoint_of_another_network(tmp_path, tiny, whole, capsys):
    assert run(*tiny, "--network", "mlp-3x9", "--out", tmp_path / "other", "--quiet") == 0
    (whole / "summary.json").unlink()
    (whole / "checkpoint.pt").write_bytes((tmp_path / "other" / "checkpoint.pt").read_bytes())
    said = refused(capsys, 2, "--resume", whole)
    assert said.startswith(
        f"{whole / 'checkpoint.pt'} belongs to another run: start the run again, or pass --accept-changes"
    )
    said = refused(capsys, 2, "--resume", whole, "--accept-changes")
    assert said == f"{whole / 'checkpoint.pt'} belongs to another run: start the run again."


def test_a_folder_that_cannot_be_written(tmp_path, tiny, capsys):
    (tmp_path / "file").write_text("mine")
    said = refused(capsys, 2, *tiny, "--out", tmp_path / "file" / "run")
    assert said == f"can't write to {tmp_path / 'file' / 'run'}: Not a directory."
    assert refused(capsys, 2, *tiny, "--out", "/proc/run") == "can't write to /proc/run: No such file or directory."
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("config", [None, '{"model": "mine"}'])
def test_a_folder_with_files_of_another_program_stays_as_it_is(tmp_path, tiny, capsys, config):
    files = {"checkpoint.pt": "mine", "metrics.csv": "mine", "summary.json": "mine", "timing.csv": "mine"}
    files |= {} if config is None else {"config.json": config}
    for name, content in files.items():
        (tmp_path / "mine" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text(content)
    for options in ([], ["--overwrite"]):
        said = refused(capsys, 2, *tiny, "--out", tmp_path / "mine", *options)
        assert said.startswith(f"{tmp_path / 'mine'} holds no run that this program can read, but files that a run wo")
        assert {path.name: path.read_text() for path in (tmp_path / "mine").iterdir()} == files


def test_a_full_disk(tmp_path, tiny):
    """A limit on file sizes simulates a full disk: writing a checkpoint fails half-way."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "actrelax.simulations.train", *tiny, "--network", "mlp-3x200", "--out", str(out)]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"actrelax train: can't write to {out / 'checkpoint.pt'}: File too large.\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "fingerprints.json",
        "metrics.csv",
        "timing.csv",
    ]
    assert run("--resume", out, "--quiet") == 0
    # later, an existing checkpoint stays unchanged
    (out / "summary.json").unlink()
    before = (out / "checkpoint.pt").read_bytes()
    done = subprocess.run([*command[:3], "--resume", str(out)], capture_output=True, text=True, preexec_fn=limit)
    assert done.stderr == f"actrelax train: can't write to {out / 'checkpoint.pt'}: File too large.\n"
    assert (out / "checkpoint.pt").read_bytes() == before


def test_a_run_in_a_thread(tmp_path, tiny):
    """Signals can't be caught in a thread."""
    status = []
    thread = threading.Thread(target=lambda: status.append(run(*tiny, "--out", tmp_path / "run", "--quiet")))
    thread.start()
    thread.join()
    assert status == [0]


def test_a_run_of_another_version_is_refused(tmp_path, tiny, capsys):
    out = tmp_path / "run"
    assert run(*tiny, "--out", out) == 0
    config = json.loads((out / "config.json").read_text())
    assert config.pop("version") == 3
    (out / "config.json").write_text(json.dumps(config))
    assert run("--resume", out) == 2
    assert capsys.readouterr().err.endswith(
        f"{out} holds no run of actrelax train that this version reads: its config.json has version None, not 3.\n"
    )


def test_options_without_an_effect_are_said(tmp_path, tiny, capsys):
    options = ["--optimiser", "adam", "--reduction", "sum", "--lr", 0.01, "--out", tmp_path / "a"]
    assert run(*tiny, *options) == 0
    said = capsys.readouterr().err
    assert said.startswith("--reduction has no effect: adam normalises each update, unless --update-clip")
