"""Settings as commands and as Python: both reproduce the picture."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actrelax.models.results import open_trajectory, relative_error
from actrelax.simulations import cli
from actrelax.simulations.explorer.compute import relaxed
from actrelax.simulations.explorer.setting import Lesson, Setting, as_call
from actrelax.simulations.training.experiment import Model
from actrelax.simulations.training.problem_options import ProblemOptions
from actrelax.simulations.training.relaxation import Relaxation

DRAWING = "0f" * 32
SETTINGS = {
    "usual": ({}, {}),
    "image": ({"first": 5, "seed": 3, "model": Model("digits-mlp")}, {"eta": 0.2, "steps": 30}),
    "drawing": ({"drawing": DRAWING, "label": 3}, {"integrator": "rk4", "start": "zero"}),
    "knobs": ({}, {"assumptions": "random-feedback,conv.activity-gain=current", "steps": 20}),
    "noise and delay": ({"model": Model("digits-skip")}, {"noise": 0.2, "delay": 0.4, "dt": 0.2, "steps": 20}),
    "taus": ({}, {"tau": 2.0, "tau_spread": 0.4, "dt": 0.1, "integrator": "heun", "steps": 20}),
    "continuous": ({}, {"assumptions": "continuous", "steps": 20}),
}


def setting_of(problem, relaxation):
    usual = Setting()
    return Setting(replace(usual.problem, **problem), replace(usual.relaxation, **relaxation))


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS, scope="module")
def setting(request):
    return setting_of(*request.param)


def test_the_command_relaxes_the_same(setting, tmp_path, capsys):
    words = shlex.split(setting.command())
    assert words[:2] == ["actrelax", "relax"]
    assert cli.main([*words[1:], "--out", str(tmp_path)]) == 0
    final = relaxed(setting).final
    with open_trajectory(tmp_path / "trajectory.nc") as dataset:
        for name in relaxed(setting).problem.network.hidden:
            last = torch.as_tensor(dataset[name][-1].values)
            assert relative_error(last, final[name].detach().flatten(1)) < 1e-9


def test_the_program_relaxes_the_same(setting, capsys):
    names = {}
    exec(setting.python(), names)
    final = relaxed(setting).final
    for name in names["problem"].network.hidden:
        assert relative_error(names["trajectory"].final[name], final[name]) < 1e-9


def test_settings_differ_from_each_other():
    ends = [relaxed(setting_of(*each)).final["hidden1"].flatten().tolist()[:20] for each in SETTINGS.values()]
    assert len({tuple(round(x, 6) for x in end) for end in ends}) == len(ends)


def test_a_run_and_its_images(tmp_path, capsys):
    run = tmp_path / "a run"
    options = ["--network", "digits-mlp", "--epochs", "1", "--steps", "5", "--quiet"]
    assert cli.main(["train", *options, "--assumptions", "random-feedback", "--out", str(run)]) == 0
    setting = replace(Setting.of_run(run), relaxation=replace(Setting.of_run(run).relaxation, steps=12))
    assert setting.relaxation.assumptions == "random-feedback"
    assert setting.problem.model.network == "digits-mlp"
    assert shlex.split(setting.command()) == [
        *("actrelax", "relax", "--run", str(run), "--batch-size", "1", "--integrator", "euler", "--steps", "12")
    ]
    test_the_command_relaxes_the_same(setting, tmp_path / "out", capsys)
    test_the_program_relaxes_the_same(setting, capsys)
    untrained = relaxed(replace(setting, problem=replace(setting.problem, run=None)))
    assert relative_error(untrained.final["hidden1"], relaxed(setting).final["hidden1"]) > 0.01


def test_calls_leave_defaults_out():
    assert as_call(ProblemOptions()) == "ProblemOptions()"
    call = as_call(ProblemOptions(run=Path("a b"), model=Model("digits-skip")))
    assert call == "ProblemOptions(run=Path('a b'), model=Model(network='digits-skip'))"
    assert as_call(Relaxation(eta=0.2)) == "Relaxation(eta=0.2)"


def test_a_lesson_is_a_training():
    lesson = Lesson("digits-mlp", "no-derivatives", epochs=3, lr=0.2)
    assert shlex.split(lesson.command()) == [
        *("actrelax", "train", "--epochs", "3", "--network", "digits-mlp", "--assumptions", "no-derivatives"),
        *("--lr", "0.2", "--measure-alignment", "5"),
    ]
    assert Lesson(rule="backprop").command() == "actrelax train --rule backprop --epochs 10"
