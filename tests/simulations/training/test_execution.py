"""Execution options, which do not enter a run's hash."""

from dataclasses import replace

import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.relaxation import Relaxation

CONTINUOUS = Experiment(relaxation=Relaxation("continuous"))
MEASURED = "--measure-alignment needs AR with plasticity at equilibrium: leave it out."


def test_it_is_made_definite_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Execution("auto", data_dir=tmp_path.relative_to(tmp_path) / "images").resolved(Experiment())
    assert found.data_dir == tmp_path / "images"
    assert found.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert (found.threads, found.processes) == (torch.get_num_threads(), 1)
    assert found.resolved(Experiment()) == found
    hardware = Execution(threads=3, channels_last=True).hardware("fp64")
    assert (hardware.threads, hardware.channels_last, hardware.dtype) == (3, True, torch.float64)


@pytest.mark.parametrize(
    ("every", "experiment", "sentence"),
    [
        (0, Experiment(), "--measure-alignment must be 1 or more, got 0."),
        (3, CONTINUOUS, MEASURED),
        (3, Experiment(rule="backprop"), MEASURED),
    ],
)
def test_what_can_not_be_measured(every, experiment, sentence):
    execution = Execution(measure_alignment=every)
    Execution(measure_alignment=3).check(Experiment())
    with pytest.raises(ActrelaxError) as refused:
        execution.check(experiment)
    assert str(refused.value) == sentence


def test_suites_measure_where_there_is_something_to_measure():
    execution = Execution(threads=1, measure_alignment=3)
    assert execution.measuring(Experiment()) is execution
    for experiment in (CONTINUOUS, Experiment(rule="backprop")):
        assert execution.measuring(experiment) == replace(execution, measure_alignment=None)
