"""Training on several processes equals training on one, and never hangs."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from outcomes import differing, outcome

from actrelax.analysis.files import claimed
from actrelax.analysis.runs import RunFolder
from actrelax.models.errors import ActrelaxError
from actrelax.simulations import cli
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.training import processes as module
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.batches import Batches, Preprocessing
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.processes import ALONE, Processes
from actrelax.simulations.training.relaxation import Relaxation

# ---- one process at a time


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 2, 6, 7, 64, 65])
def test_shares_are_pieces_as_equal_as_can_be(size, count):
    shares = [Processes(rank, count).share(size) for rank in range(count)]
    pieces = [list(range(size))[share] for share in shares]
    assert [i for piece in pieces for i in piece] == list(range(size))
    assert {len(piece) for piece in pieces} <= {size // count, -(-size // count)}


@pytest.mark.parametrize("augment", ["none", "flip,crop"])
def test_batches_are_drawn_whole_and_then_shared(augment):
    """With more processes than images in the last batch, some processes have none."""
    made = [
        Batches(digits(), Preprocessing(torch.float32), 205, 0, augment, Processes(rank, count))
        for count, rank in ((1, 0), (3, 0), (3, 1), (3, 2))
    ]
    sizes = []
    for whole, *shares in zip(*(batches.epoch(2) for batches in made), strict=True):
        for i in (0, 1):
            assert torch.equal(whole[i], torch.cat([share[i] for share in shares]))
        sizes.append([len(share.labels) for share in shares])
    assert sizes == [[68, 68, 69]] * 7 + [[0, 1, 1]]


def test_alone_nothing_is_said():
    tensors = [torch.ones(2), torch.zeros(3)]
    assert ALONE.total(tensors) is tensors
    assert (ALONE.largest(3), ALONE.gathered("a"), ALONE.threads) == (3, ["a"], None)
    assert module.current() is ALONE


@pytest.mark.parametrize(("cores", "expected"), [(8, 4), (3, 1), (1, 1)])
def test_threads_are_a_share_of_the_cores(monkeypatch, cores, expected):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(module, "_cores", lambda: cores)
    two = Processes(0, 2)
    execution = Execution().resolved(Experiment(), two)
    assert (execution.threads, execution.processes) == (expected, 2)
    assert execution.resolved(Experiment(), two) == execution


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    found, there = [], 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    monkeypatch.setattr(torch.distributed, "new_group", lambda **options: options)
    two = Processes(1, 2)
    assert two.on("cpu") is two
    assert ALONE.on("cuda:1") is ALONE
    assert two.on("cuda").sums == {"backend": "nccl", "timeout": module.NCCL_TIMEOUT}
    assert found == [1]
    for device in ("cuda:1", "mps"):
        with pytest.raises(ActrelaxError, match=f"^several processes can't share '{device}': use --device cuda"):
            two.on(device)
    there = 1
    with pytest.raises(
        ActrelaxError, match=r"^--device cuda needs one GPU per process, got 2 processes and 1 GPUs: start fewer\.$"
    ):
        two.on("cuda")


def test_what_several_processes_refuse():
    continuous, two = Experiment(relaxation=Relaxation("continuous")), Execution(processes=2)
    with pytest.raises(ActrelaxError, match=r"^continuous plasticity needs a single process: start it without"):
        assemble(continuous, two)
    with pytest.raises(
        ActrelaxError,
        match=r"^the run needs --processes 2, got 1: start it with torchrun --nproc-per-node=2\.$",
    ):
        two.resolved(continuous)


@pytest.mark.parametrize(("rank", "expected"), [(0, ["block", "wait"]), (1, ["wait", "block"])])
def test_the_first_goes_first(rank, expected):
    events = []

    class Waiting(Processes):
        def wait(self):
            events.append("wait")

    def failing():
        with Waiting(rank, 2).first_one_first():
            events.append("block")
            raise InterruptedError  # the others must continue, and receive the first one's error

    with pytest.raises(InterruptedError):
        failing()
    assert events == expected


class Silent(Processes):
    """Communicator of one process whose partners always send its own values."""

    def wait(self):
        pass

    def total(self, tensors):
        return tensors

    def largest(self, number):
        return number

    def gathered(self, value):
        return [value] * self.count


@pytest.fixture
def group():
    """Create a group of torch.distributed, which DistributedDataParallel needs."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_each_process_draws_noise_of_its_own():
    seeds = []
    for rank in range(3):
        parts = assemble(Experiment(seed=5), processes=Silent(rank, 3))
        seeds.append(torch.initial_seed())
        assert parts.training.processes.rank == rank
    assert seeds[0] == 5  # as one process
    assert len(set(seeds)) == 3


# ---- two processes

OWN = """
import os
from pathlib import Path
from torch import nn
from actrelax.models.errors import ActrelaxError

RANK = os.environ.get("RANK", "0")

def unequal(shape, classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, classes))
    model[1].weight.data *= 1 + int(RANK)
    (Path(__file__).parent / f"pid{RANK}").write_text(str(os.getpid()))
    return model

def tied(shape, classes):
    unequal(shape, classes)
    same = nn.Linear(20, 20)
    layers = [nn.Linear(64, 20), nn.Tanh(), same, nn.Tanh(), same, nn.Tanh(), nn.Linear(20, classes)]
    layers[-1].requires_grad_(False)
    return nn.Sequential(nn.Flatten(), *layers)

def refusing(shape, classes):
    if RANK == "1":
        raise ActrelaxError("only this one.")
    return unequal(shape, classes)
"""
"""Networks that differ between processes, and write down their process."""

SEVERAL = """
import json, os, signal, sys
from datetime import timedelta
from pathlib import Path
from actrelax.simulations import cli
from actrelax.simulations.training import processes
from actrelax.simulations.training.recorder import Recorder

processes.LAST_WORDS = timedelta(seconds=5)
record = Recorder.on_batch

def on_batch(recorder, training):
    if os.environ["RANK"] == "1" and recorder.folder.path.name == "stopped" and training.done == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    record(recorder, training)

Recorder.on_batch = on_batch
place = Path(sys.argv[1])
statuses = [cli.main(["train", *options]) for options in json.loads((place / "runs.json").read_text())]
(place / f"statuses{os.environ['RANK']}").write_text(json.dumps(statuses))
"""
"""Several runs in one launch, because starting two processes takes longer than the runs.

In the run into the folder `stopped`, a signal reaches the second process alone.
"""

FIXED = ["--precision", "fp64", "--epochs", "1", "--threads", "1", "--quiet"]
CNN = ["--network", "digits-cnn", "--steps", "5", "--batch-size", "718", "--momentum", "0.9", "--augment", "flip,crop"]
CLIPPED = ["--update-clip", "0.002", "--conv-factor", "2", "--measure-alignment", "1"]
EQUILIBRIUM = ["--integrator", "equilibrium", "--batch-size", "718", "--conv-factor", "2"]
CYCLES = ["--network", "digits-rec", "--batch-size", "718", "--lr", "0.05"]
RUNS = {
    "ar": [*CNN, *CLIPPED, "--reduction", "sum", "--lr", "0.01"],
    "learned": [*CNN, *CLIPPED, "--assumptions", "learned-feedback", "--validation", "33"],
    "kolen-pollack": [*CNN, *CLIPPED, "--assumptions", "kolen-pollack", "--decay", "0.1", "--epochs", "2"],
    "backprop": ["--network", "OWN:unequal", "--rule", "backprop", "--batch-size", "205", "--update-clip", "0.002"],
    "tied": ["--network", "OWN:tied", "--assumptions", "kolen-pollack", "--decay", "0.1", "--batch-size", "718"],
    "cycles": [*CYCLES, "--settle-steps", "30", "--steps", "30", "--unsettled", "drop", "--unsettled-above", "0.2"],
    "cycles until a tolerance": CYCLES,
    "cycles, bptt": [*CYCLES, "--rule", "bptt"],
    "group-norm": [
        "--network",
        "digits-resnet-8",
        "--norm",
        "group",
        "--width",
        "4",
        *EQUILIBRIUM,
        "--conv-factor",
        "2",
    ],
    "clip": ["--network", "digits-mlp", "--steps", "5", "--clip", "1.03", "--batch-size", "205"],
}
"""Options of the runs; in most, the last batch has one image, so one process has none."""

NOISY = ["--network", "OWN:unequal", "--integrator", "euler", "--noise", "0.1", "--steps", "10", "--batch-size", "25"]
NOISY += ["--epochs", "2", "--threads", "1", "--quiet"]

SPOILED = ["--network", "digits-mlp", "--activation", "relu", "--steps", "5", "--batch-size", "100"]
SPOILED += ["--precision", "fp32"]


def spoil(path):
    """Write the digits with one overflowing image, in the second process's share of batch 3 with seed 0."""
    data = digits()
    x = data.train.images.flatten(1).numpy().copy()
    x[torch.randperm(len(x), generator=random_stream(0, "epoch", 1))[270]] = 3e38
    test = data.test.images.flatten(1).numpy()
    np.savez(path, x_train=x, y_train=data.train.labels, x_test=test, y_test=data.test.labels)


def launched(*command):
    """Start two processes by torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(launcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process, within=120):
    """Wait until a launcher ends by itself, and return its output."""
    try:
        return process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.terminate()  # its processes end, too, half a minute later if they ignore signals
        process.communicate()
        raise


def training(*options):
    return launched("-m", "actrelax.simulations.train", *map(str, options))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Return the path of the file of networks."""
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(OWN)
    return path


def with_own(options, own):
    return [option.replace("OWN", str(own)) for option in options]


@pytest.fixture(scope="module")
def together(tmp_path_factory, own):
    """Return the folder of all runs by two processes, and their output."""
    place = tmp_path_factory.mktemp("together")
    spoil(place / "spoiled.npz")
    runs = {**RUNS, "noisy": NOISY, "spoiled": [*SPOILED, "--dataset", str(place / "spoiled.npz")]}
    commands = [[*FIXED, *with_own(options, own), "--out", str(place / name)] for name, options in runs.items()]
    commands.append([*FIXED, *with_own(NOISY, own), "--checkpoint-every", "1", "--out", str(place / "stopped")])
    commands.append(["--resume", str(place / "stopped"), "--quiet", "--trust"])
    commands.append(["--assumptions", "nix"])
    commands.append(["--network", "nix", "--out", str(place / "unknown")])
    commands.append(["--network", "digits-mlp", "--out", str(place / "claimed")])
    commands.append(["--lr", "fast"])
    commands.append(["--network", f"{own}:refusing", "--out", str(place / "refused")])
    (place / "several.py").write_text(SEVERAL)
    (place / "runs.json").write_text(json.dumps(commands))
    with claimed(place / "claimed"):
        process = launched(str(place / "several.py"), str(place))
        out, err = ended(process, within=300)
    assert process.returncode == 0, err
    return place, out, err


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_as_one(together, own, tmp_path, name):
    place, _, _ = together
    assert cli.main(["train", *FIXED, *with_own(RUNS[name], own), "--out", str(tmp_path / name)]) == 0
    two, one = RunFolder(place / name), RunFolder(tmp_path / name)
    ours, theirs = two.checkpoint(), one.checkpoint()
    for key, weight in theirs["network"].items():
        assert torch.allclose(ours["network"][key], weight, rtol=0, atol=1e-10)
    assert float(ours["first_loss"]) == pytest.approx(float(theirs["first_loss"]), rel=1e-10)
    for table in ("metrics", "alignment") if "--measure-alignment" in RUNS[name] else ("metrics",):
        for a, b in zip(two.table(table), one.table(table), strict=True):
            assert a == pytest.approx(b, rel=1e-8, nan_ok=True)
    assert (two.summary().processes, one.summary().processes) == (2, 1)
    assert [folder.config()["execution"]["processes"] for folder in (two, one)] == [2, 1]
    assert two.summary().images_per_second == pytest.approx(
        int(two.config()["experiment"]["epochs"])
        * (1437 - int(two.config()["experiment"]["validation"]))
        / sum(row["train_seconds"] for row in two.table("timing"))
    )


def test_the_first_process_speaks_for_all(together):
    place, out, err = together
    done = [*RUNS, "noisy", "stopped"]
    assert [line.partition("epochs: ")[2] for line in out.splitlines() if "epochs: " in line] == [
        str(place / name) for name in done
    ]
    statuses = [json.loads((place / f"statuses{rank}").read_text()) for rank in (0, 1)]
    trained = [*[0] * (len(RUNS) + 1), 1, 143, 0]
    assert statuses == [[*trained, 2, 2, 2, 2, 1], [*trained, 2, 2, 2, 2, 2]]
    said = [line for line in err.splitlines() if line.startswith("actrelax")]
    # only the second process has the overflowing image
    assert said[0].startswith("actrelax train: training diverged in batches 1 to ")
    assert RunFolder(place / "spoiled").checkpoint()["position"]["batch"] == 0
    stopped = place / "stopped"
    assert said[1] == (
        f"actrelax train: stopped after 3 of 58 batches of epoch 1: continue with actrelax train --resume {stopped} "
        "--trust"
    )
    assert said[2].startswith("actrelax train: unknown assumptions 'nix'; known: ar,")
    assert said[3].startswith("actrelax train: unknown network 'nix'; known: digits-mlp,")
    # only the first process claims the folder, and all are refused
    assert said[4].startswith(
        f"actrelax train: another process is writing into {place / 'claimed'}: wait until it has ended, or choose"
    )
    assert sorted(said[5:]) == [
        "actrelax train: another process of this run has ended: continue from the last checkpoint with --resume.",
        "actrelax train: only this one.",
    ]
    assert err.count("fast") == 1
    assert "Traceback" not in err
    for name in ("refused", "unknown", "claimed"):
        assert not (place / name).exists()


def test_noise_is_each_processs_own(together):
    state = RunFolder(together[0] / "noisy").checkpoint()
    assert len(state["random of others"]) == 1
    assert not torch.equal(state["random"]["cpu"], state["random of others"][0]["cpu"])


def pid_of(rank, own):
    return int((own.parent / f"pid{rank}").read_text())


def begun(process, folder, batches=1):
    """Wait until a run's checkpoint has a number of batches."""

    def done():
        state = RunFolder(folder).checkpoint() if (folder / "checkpoint.pt").exists() else None
        return state is not None and state["position"]["batch"] >= batches

    while not done() and process.poll() is None:
        time.sleep(0.05)


def test_a_stopped_run_ends_as_one_that_was_left_alone(together):
    """A signal may reach one process, or both through the launcher; the resumed run continues the noise, too."""
    assert differing(outcome(together[0] / "stopped"), outcome(together[0] / "noisy")) == []


def test_a_killed_process_ends_the_run(own, tmp_path):
    out = tmp_path / "run"
    process = training(*with_own(NOISY, own), "--epochs", 100000, "--out", out, "--checkpoint-every", 5)
    begun(process, out)
    os.kill(pid_of(0, own), signal.SIGKILL)
    _, err = ended(process, within=30)
    assert process.returncode != 0
    # the first process can no longer report it
    assert (
        "actrelax train: another process of this run has ended: continue from the last checkpoint with --resume." in err
    )


def test_the_processes_end_when_their_launcher_is_killed(own, tmp_path):
    """They leave a checkpoint; their output ends when the last process has ended."""
    out = tmp_path / "run"
    process = training(*with_own(NOISY, own), "--epochs", 100000, "--out", out, "--checkpoint-every", 5)
    begun(process, out)
    process.kill()
    try:
        _, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        for rank in (0, 1):
            os.kill(pid_of(rank, own), signal.SIGKILL)
        raise
    assert err.count(f"continue with actrelax train --resume {out} --trust") == 1
