"""Recording of a run: contents and times of checkpoints; tests/simulations/test_train.py has whole runs."""

import math
import signal

import pytest
import torch

from actrelax.analysis.runs import RunFolder
from actrelax.models.results import DivergenceError
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.callbacks import DivergenceCheck
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.loop import Callback, train
from actrelax.simulations.training.recorder import Recorder
from actrelax.simulations.training.signals import Stop, Stopped


def recorded(tmp_path, stop, every=None, before=()):
    parts = assemble(Experiment(rule="backprop", epochs=2))
    check = DivergenceCheck(1000)
    recorder = Recorder(RunFolder(tmp_path), check, stop, every, again=f"train --resume {tmp_path}", run="mark")
    train(parts.training, [check, *before, recorder])


def test_a_signal_saves_and_says_how_to_continue(tmp_path):
    with pytest.raises(Stopped) as stopped:
        recorded(tmp_path, Stop(signal.SIGTERM))
    assert stopped.value.signal_number == signal.SIGTERM
    assert str(stopped.value) == (
        f"stopped after 1 of 23 batches of epoch 1: continue with actrelax train --resume {tmp_path}"
    )
    assert RunFolder(tmp_path).checkpoint()["position"]["batch"] == 1
    assert RunFolder(tmp_path).checkpoint()["run"] == "mark"


def test_what_a_signal_finds_diverged_is_not_saved(tmp_path):
    class Spoil(Callback):
        def on_batch(self, training):
            with torch.no_grad():
                next(training.network.parameters())[0] = math.inf

    with pytest.raises(DivergenceError):
        recorded(tmp_path, Stop(signal.SIGTERM), before=[Spoil()])
    assert RunFolder(tmp_path).checkpoint()["position"]["batch"] == 0


def test_checkpoints_come_as_often_as_asked(tmp_path):
    saved = []

    class Watch(Callback):
        def on_batch(self, training):
            position = RunFolder(tmp_path).checkpoint()["position"]
            saved.append((position["epoch"], position["batch"]))

    recorded(tmp_path, Stop(), every=10, before=[Watch()])
    # checkpoint on disk while batch 1, 2, ... is learned: every tenth of the run, and ends of epochs
    first = [(0, 0)] * 10 + [(0, 10)] * 10 + [(0, 20)] * 3
    second = [(1, 0)] * 7 + [(1, 7)] * 10 + [(1, 17)] * 6
    assert saved == first + second
