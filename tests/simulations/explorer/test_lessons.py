"""Trainings side by side: the same as `actrelax train`, told after every epoch, and stopped at once."""

import math
import threading

import pytest

from actrelax.analysis.runs import RunFolder
from actrelax.models.errors import ActrelaxError
from actrelax.simulations import cli
from actrelax.simulations.explorer.lessons import learn
from actrelax.simulations.explorer.setting import Lesson


def test_two_rules_learn_as_the_program_does(tmp_path, capsys):
    lessons = {"A": Lesson("digits-mlp", "random-feedback", 2), "B": Lesson("digits-mlp", "backprop", 1)}
    told = []
    assert learn(lessons, lambda *what: told.append(what))
    assert [(name, progress.epoch) for name, progress in told] == [("A", 0), ("B", 0), ("A", 1), ("B", 1), ("A", 2)]
    for name, lesson in lessons.items():
        words = lesson.command().split()[1:]
        assert cli.main([*words, "--quiet", "--compile", "no", "--out", str(tmp_path / name)]) == 0
        rows = RunFolder(tmp_path / name).table("metrics")
        found = [progress for each, progress in told if each == name]
        assert [p.accuracy for p in found] == pytest.approx([100 * row["test_accuracy"] for row in rows])
        angles = [row.get("angle mean", math.nan) for row in rows]
        assert [p.angle is None for p in found] == [math.isnan(angle) for angle in angles]
        assert [p.angle for p in found if p.angle] == pytest.approx([a for a in angles if not math.isnan(a)])
    assert told[-1][1].accuracy > told[0][1].accuracy + 20
    assert told[-1][1].angle > 5


def test_stops_within_an_epoch():
    stop, told = threading.Event(), []

    def report(name, progress):
        told.append(progress.epoch)
        if progress.epoch == 1:
            stop.set()

    assert not learn({"A": Lesson("digits-mlp", epochs=50)}, report, stop)
    assert told == [0, 1]


def test_refusals():
    for lesson, said in (
        (Lesson("mlp"), "networks for the digits learn here, got 'mlp': use actrelax train."),
        (Lesson(rule="nix"), "unknown assumptions 'nix'"),
        (Lesson(rule="kolen-pollack"), "Kolen-Pollack feedback needs a decay rate: give --decay."),
    ):
        with pytest.raises(ActrelaxError) as refused:
            learn({"A": lesson}, lambda *_: None)
        assert str(refused.value).startswith(said)
