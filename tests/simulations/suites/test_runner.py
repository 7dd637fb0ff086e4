"""Execution of many runs: each is done once, by any process, despite interruptions."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import typing
from dataclasses import replace

import numpy as np
import pytest
from tqdm import tqdm

from actrelax.analysis.runs import State
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites import runner
from actrelax.simulations.suites.run_store import Kept
from actrelax.simulations.suites.runner import Work
from actrelax.simulations.suites.suite import Suite
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation
from actrelax.simulations.training.recorder import Recorder
from actrelax.simulations.training.run import run
from actrelax.simulations.training.signals import Stopped


@pytest.fixture
def runs(tmp_path, npz):
    """Return three runs that differ in their seed."""
    base = Experiment(epochs=2, images=Images(str(npz)), model=Model("digits-mlp"), batch_size=20)
    execution = Execution(threads=1, processes=1)
    return [Kept(tmp_path / "runs", replace(base, seed=seed).resolved(), execution) for seed in range(3)]


def perform(runs, jobs=1, **options):
    """Do the runs without a progress bar, and return the runs that ended."""
    return list(runner.perform(runs, Work(jobs, **{"quiet": True, **options})))


def metrics(kept):
    return (kept.folder.path / "metrics.csv").read_bytes()


def test_runs_are_done_once(runs):
    assert perform(runs) == runs
    assert {kept.state for kept in runs} == {State.FINISHED}
    assert [kept.epochs for kept in runs] == [2, 2, 2]
    before = [(kept.folder.path / "summary.json").stat().st_mtime_ns for kept in runs]
    assert perform(runs) == []
    assert [(kept.folder.path / "summary.json").stat().st_mtime_ns for kept in runs] == before


def test_a_run_that_diverges_is_recorded_and_stops_no_other(runs):
    wild = replace(runs[0], experiment=replace(runs[0].experiment, optimisation=Optimisation(lr=1e30)))
    perform([wild, runs[1]])
    assert wild.state is State.DIVERGED
    assert wild.folder.divergence().startswith("training diverged in batches ")
    assert runs[1].state is State.FINISHED
    perform([wild])  # it is not tried again


def test_a_run_that_cannot_be_done_is_named_at_the_end(runs, tmp_path):
    gone = replace(runs[0], experiment=replace(runs[0].experiment, images=Images(str(tmp_path / "gone.npz"))))
    with pytest.raises(
        ActrelaxError, match=r"^1 of 2 runs can't be done; gone-digits-mlp-ar-seed0-\w+: .* does not exist"
    ):
        perform([gone, runs[1]])
    assert runs[1].state is State.FINISHED


def test_an_error_of_another_kind_stops_no_other_run_either(runs, monkeypatch, capsys):
    def broken(experiment, *rest):
        if experiment.seed == 0:
            raise MemoryError("no room")
        return run(experiment, *rest)

    monkeypatch.setattr("actrelax.simulations.suites.runner.run", broken)
    with pytest.raises(ActrelaxError, match=r"^1 of 2 runs can't be done; .*: MemoryError: no room$"):
        perform(runs[:2])
    assert runs[1].state is State.FINISHED
    assert "Traceback" in capsys.readouterr().err


def test_a_run_that_another_process_does_is_waited_for(runs, monkeypatch):
    monkeypatch.setattr("actrelax.simulations.suites.runner.LOOK", 0.1)
    holder = (
        "import sys, time; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); time.sleep(2)"
    )
    lock = runs[0].root / ".locks" / runs[0].hash
    lock.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", holder, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with runs[0].held() as mine:
            assert not mine
        ended = perform(runs[:2])
        assert other.poll() is not None
    assert ended == [runs[1], runs[0]]


def test_options_tell_runs_apart_but_for_the_place_of_their_data(runs, tmp_path):
    assert len({kept.hash for kept in runs}) == 3
    elsewhere = replace(runs[0].execution, data_dir=tmp_path)
    assert replace(runs[0], execution=elsewhere).hash == runs[0].hash
    longer = replace(runs[0], experiment=replace(runs[0].experiment, epochs=3))
    assert longer.hash != runs[0].hash
    assert longer.folder.path.parent == runs[0].root


PACED = """
import pickle, sys, time
from actrelax.simulations.suites.run_store import Kept
from actrelax.simulations.suites.runner import Work, perform
from actrelax.simulations.training.recorder import Recorder

class Paced(Kept):
    def held(self):  # called by the process that does the run
        save = Recorder.on_epoch

        def save_and_rest(recorder, training):
            save(recorder, training)
            time.sleep(0.5)

        Recorder.on_epoch = save_and_rest
        return super().held()

runs = [Paced(**vars(kept)) for kept in pickle.load(open(sys.argv[1], "rb"))]
list(perform(runs, Work(2, quiet=True)))
"""
"""Program that does runs two at a time, and sleeps between epochs, so that a signal arrives before their end."""


def test_a_signal_stops_all_of_them_and_the_same_command_goes_on(runs, tmp_path):
    """Two at a time, in separate processes; the results equal those of uninterrupted runs."""
    quick = replace(runs[0], experiment=replace(runs[0].experiment, epochs=1))
    slow = [replace(kept, experiment=replace(kept.experiment, epochs=60)) for kept in runs[1:]]
    (tmp_path / "runs.pkl").write_bytes(pickle.dumps([quick, *slow]))
    command = [sys.executable, "-c", PACED, str(tmp_path / "runs.pkl")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not all(kept.epochs >= 1 for kept in slow):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert "Stopped: stopped: repeat the command to continue." in said
    assert quick.state is State.FINISHED
    assert [kept.state for kept in slow] == [State.BEGUN] * 2
    assert all(kept.folder.checkpoint() is not None for kept in slow)
    assert perform([quick, *slow]) == slow
    alone = replace(slow[0], root=tmp_path / "alone")
    perform([alone])
    assert metrics(slow[0]) == metrics(alone)


def test_stopped_while_one_runs_at_a_time(runs, monkeypatch):
    """In this process the current run stops, and no further run begins."""
    original = Kept.held

    def signalled(kept):
        if kept == runs[1]:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(kept)

    monkeypatch.setattr(Kept, "held", signalled)
    with pytest.raises(Stopped):
        perform(runs)
    assert runs[0].state is State.FINISHED
    assert runs[1].state is State.BEGUN  # a signal before its handler was installed also stopped it
    assert runs[2].state is State.OPEN
    assert json.loads((runs[0].folder.path / "summary.json").read_text())["seed"] == 0


@pytest.fixture
def forked_workers():
    """Let Dask fork its workers from one process that has imported everything: each else takes four seconds."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        distributed.utils.get_mp_context().set_forkserver_preload(["distributed", runner.__name__])
        yield


@pytest.mark.usefixtures("forked_workers")
def test_workers_of_a_cluster_and_one_that_is_killed(runs, tmp_path):
    """With two Dask workers, another continues a killed worker's run, and a divergence is recorded as locally."""
    distributed = pytest.importorskip("distributed")
    slow = [replace(kept, experiment=replace(kept.experiment, epochs=40)) for kept in runs[:2]]
    wild = replace(runs[2], experiment=replace(runs[2].experiment, optimisation=Optimisation(lr=1e30)))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        first = next(iter(cluster.workers.values())).pid

        def kill():
            while not all(kept.epochs >= 1 for kept in slow):
                time.sleep(0.1)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        ended = perform([*slow, wild], 2, scheduler=cluster.scheduler_address)
        killer.join(0)
        assert not killer.is_alive()
    assert sorted(kept.hash for kept in ended) == sorted(kept.hash for kept in (*slow, wild))
    assert [kept.state for kept in (*slow, wild)] == [State.FINISHED, State.FINISHED, State.DIVERGED]
    alone = replace(slow[0], root=tmp_path / "alone")
    perform([alone])
    assert metrics(slow[0]) == metrics(alone)


@pytest.mark.usefixtures("forked_workers")
def test_a_run_that_kills_its_worker_stops_no_other(runs, tmp_path):
    """Dask gives up such a run after two workers; joblib's Dask backend would wait for ever."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    (tmp_path / "deadly.py").write_text("import os\n\ndef network(input_shape, classes):\n    os._exit(1)\n")
    deadly = replace(runs[0], experiment=replace(runs[0].experiment, model=Model(f"{tmp_path / 'deadly.py'}:network")))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        pytest.raises(ActrelaxError, match=r"^1 of 2 runs can't be done; .*-deadly-ar-seed0-.*KilledWorker: "),
    ):
        perform([deadly, runs[1]], None, scheduler=cluster.scheduler_address)
    assert runs[1].state is State.FINISHED


def test_ctrl_c_with_a_cluster_waits_for_the_runs_under_way(runs, monkeypatch):
    distributed = pytest.importorskip("distributed")
    original = Kept.held

    def signalled(kept):
        os.kill(os.getpid(), signal.SIGINT)
        return original(kept)

    monkeypatch.setattr(Kept, "held", signalled)
    with (
        distributed.LocalCluster(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        pytest.raises(Stopped),
    ):
        perform(runs, None, scheduler=cluster.scheduler_address)
    assert [kept.state for kept in runs] == [State.FINISHED, State.OPEN, State.OPEN]


class OnATerminal(tqdm):
    """Standard error that pretends to be a terminal."""

    shown: typing.ClassVar[list] = []

    def __init__(self, *args, **options):
        super().__init__(*args, **{**options, "disable": False, "file": io.StringIO()})

    def refresh(self, *args, **options):
        super().refresh(*args, **options)
        self.shown.append((self.n, self.total, self.initial))


def test_progress_counts_the_epochs_of_all_runs(runs, monkeypatch):
    """Epochs done before do not enter the estimate of the remaining time."""
    monkeypatch.setattr("actrelax.simulations.suites.runner.tqdm", OnATerminal)
    monkeypatch.setattr("actrelax.simulations.suites.runner.LOOK", 0.01)
    wild = replace(runs[2], experiment=replace(runs[2].experiment, optimisation=Optimisation(lr=1e30)))
    perform(runs[:1])
    OnATerminal.shown.clear()
    perform([*runs[:2], wild], quiet=False)
    counts = [n for n, _, _ in OnATerminal.shown]
    assert counts == sorted(counts)
    assert counts[0] == 2
    assert OnATerminal.shown[-1] == (6, 6, 2)


def test_runs_of_a_file_that_has_changed_are_not_reported_unasked(tmp_path, npz, arrays):
    """Runs with the same name, trained on other images, are not reported either."""
    own = tmp_path / "own.py"
    own.write_text("from torch import nn\ndef net(shape, n):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, n))")
    base = Experiment(epochs=1, images=Images(str(npz)), model=Model(f"{own}:net"), rule="backprop")
    suite = Suite("alone", base, {"backprop": {}}, seeds=1, execution=Execution(threads=1))

    def carry_out(suite, **options):
        work = Work(1, runs=tmp_path / "runs", quiet=True, **options)
        runner.carry_out(suite, tmp_path / "out", work, lambda outcomes: f"{len(outcomes)} runs")

    carry_out(suite)
    np.savez(npz, **arrays | {"x_train": arrays["x_train"][::-1]})
    runner._loaded.cache_clear()  # as in the next process
    two = replace(suite, seeds=2)
    with pytest.raises(
        ActrelaxError, match="were trained with different contents of training images: compare runs with"
    ):
        carry_out(two)
    carry_out(two, accept_changes=True)
    own.write_text(own.read_text() + "  # changed")
    with pytest.raises(ActrelaxError, match=r"^the network's file changed since the run in .* was trained: undo"):
        carry_out(suite, report_only=True)
    carry_out(suite, report_only=True, accept_changes=True)


def test_a_run_of_a_file_goes_on_without_more_trust(tmp_path, npz, monkeypatch):
    """No --trust is needed, because the command names the file."""
    own = tmp_path / "own.py"
    own.write_text("from torch import nn\ndef net(shape, n):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, n))")
    experiment = Experiment(epochs=2, images=Images(str(npz)), model=Model(f"{own}:net"), rule="backprop")
    kept = Kept(tmp_path / "runs", experiment, Execution(threads=1, processes=1))
    saved, epochs = Recorder.on_epoch, []

    def stopped(self, training):
        saved(self, training)
        epochs.append(training.epoch)
        if len(epochs) == 1:
            raise Stopped("stopped.", signal.SIGTERM)

    monkeypatch.setattr(Recorder, "on_epoch", stopped)
    with pytest.raises(Stopped):
        perform([kept])
    assert kept.state is State.BEGUN
    perform([kept])
    assert (kept.state, epochs) == (State.FINISHED, [1, 2])
