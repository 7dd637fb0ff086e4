"""Run folders are read as they were written, and partial files are refused."""

import json
import math
import os

import pytest
import torch

from actrelax.analysis.runs import CHECKPOINT, FILES, LEARNING_CURVES, SUMMARY, RunFolder, State
from actrelax.analysis.summary import Summary, versions
from actrelax.models.errors import ActrelaxError

RUN = Summary(0.9, 0.95, None, "ar", "simplified", "digits", "digits-cnn", 3, 7, 12.5, 345.0, "cpu", versions())
NUMBERS = ("train_loss", "train_accuracy", "test_accuracy", "train_seconds", "evaluate_seconds")
ROWS = [{"epoch": n, **dict.fromkeys(NUMBERS, value)} for n, value in enumerate((math.nan, 0.1 + 0.2))]


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_config({"lr": 0.1, "data_dir": None})
    folder.write_tables({"metrics": ROWS, "alignment": [], "timing": ROWS})
    folder.write_checkpoint({"weights": torch.arange(3.0), "position": {"epoch": 1}})
    folder.write_summary(RUN)
    return folder


def test_round_trip(folder):
    assert folder.config() == {"lr": 0.1, "data_dir": None}
    for row, expected in zip(folder.table("metrics"), ROWS, strict=True):
        assert row == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert torch.equal(folder.checkpoint()["weights"], torch.arange(3.0))
    assert folder.summary() == RUN
    names = ["checkpoint.pt", "config.json", "metrics.csv", "summary.json", "timing.csv"]
    assert sorted(path.name for path in folder.path.iterdir()) == names
    assert folder.is_begun()
    assert folder.is_finished()


def test_how_far_a_run_is(tmp_path, folder):
    assert folder.state is State.FINISHED
    (folder.path / SUMMARY).unlink()
    assert folder.state is State.BEGUN
    with pytest.raises(ActrelaxError, match=r"holds no run that diverged: diverged\.json can't be read\.$"):
        folder.divergence()
    folder.write_divergence("batch 3: inf.")
    assert (folder.state, folder.divergence()) == (State.DIVERGED, "batch 3: inf.")
    assert RunFolder(tmp_path / "new").state is State.OPEN


def test_clearing_takes_only_what_belongs_to_the_run(folder):
    (folder.path / "notes.csv").write_text("mine")
    folder.tensorboard.mkdir()
    (folder.tensorboard / "events.out").write_text("old")
    figure = folder.path / LEARNING_CURVES
    figure.parent.mkdir(exist_ok=True)
    figure.write_text("old")
    (figure.parent / "own.png").write_text("mine")
    folder.clear()
    assert sorted(path.name for path in folder.path.iterdir()) == ["figures", "notes.csv"]
    assert [path.name for path in figure.parent.iterdir()] == ["own.png"]
    assert not folder.is_begun()
    assert folder.checkpoint() is None
    folder.clear()


TRAINING = {"version": 3, "experiment": {}, "execution": {}}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"checkpoint.pt": "mine"},
        {"metrics.csv": "mine", "summary.json": "{}"},
        {"fingerprints.json": '{"mine": 1}'},
        {"config.json": '{"model": "mine"}'},
        {"config.json": '{"model": "mine"}', "checkpoint.pt": "mine"},
        {"config.json": "damaged", "best.pt": "mine"},
        {LEARNING_CURVES: "mine"},
    ],
)
def test_files_that_no_run_wrote_are_never_replaced(tmp_path, files, overwrite):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(ActrelaxError) as refused:
        RunFolder(tmp_path).check_begin({"lr": 0.1}, None, overwrite=overwrite)
    named = ", ".join(name for name in (*FILES, LEARNING_CURVES) if name in files)
    assert str(refused.value) == (
        f"{tmp_path} holds no run that this program can read, but files that a run would replace ({named}): "
        "give another --out, or move the files away."
    )


@pytest.mark.parametrize("config", [TRAINING, {**TRAINING, "version": 1}, {"lr": 0.2}])
def test_a_run_is_replaced_only_if_asked(folder, config):
    folder.write_config(config)
    folder.check_begin({"lr": 0.1}, None, overwrite=True)
    said = f"^{folder.path} holds a run: --resume {folder.path} continues it, --overwrite replaces it\\.$"
    with pytest.raises(ActrelaxError, match=said):
        folder.check_begin({"lr": 0.1}, None)


def test_a_run_that_was_killed_as_it_began_may_begin_again(tmp_path):
    (tmp_path / "fingerprints.json").write_text('{"options": {}, "files": {}}')
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).check_begin({"lr": 0.1}, None)


def test_a_configuration_of_another_program(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "mine"}')
    said = f"^{tmp_path} is not a run of actrelax train: its config.json has no execution or experiment\\.$"
    with pytest.raises(ActrelaxError, match=said):
        RunFolder(tmp_path).training_config()


def test_a_failed_write_leaves_the_old_file(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write, name in (
        (lambda: folder.write_summary(RUN), SUMMARY),
        (lambda: folder.write_checkpoint({"weights": torch.zeros(9)}), CHECKPOINT),
        (lambda: folder.write_tables({"metrics": ROWS * 3}), "metrics.csv"),
    ):
        with pytest.raises(ActrelaxError) as refused:
            write()
        assert str(refused.value) == f"can't write to {folder.path / name}: No space left on device."
    assert folder.summary() == RUN
    assert len(folder.table("metrics")) == 2
    assert len(folder.checkpoint()["weights"]) == 3
    assert not list(folder.path.glob("*.partial"))


@pytest.mark.parametrize("name", [*FILES, "figures", "tensorboard", "figures/curves.png"])
def test_what_is_in_the_way_of_a_file_is_refused_before_anything_is_written(folder, name):
    path = folder.path / name
    if "." in name:
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
        said = f"can't write to {path}: Is a directory."
    else:
        path.write_text("")
        said = f"can't write to {path}: Not a directory."
    for resumed, overwrite in ((None, True), ({}, False)):
        with pytest.raises(ActrelaxError) as refused:
            folder.check_begin({}, resumed, overwrite=overwrite)
        assert str(refused.value) == said


def test_a_name_that_no_folder_can_have_is_refused(tmp_path):
    with pytest.raises(ActrelaxError, match=r"^can't look at .*: File name too long\.$"):
        RunFolder(tmp_path / ("x" * 300)).check_begin({}, None)


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "[" * 100_000, '{"a":' * 100_000, "\xff", '{"rule": "ar"}'])
def test_what_is_no_finished_run(folder, content):
    (folder.path / SUMMARY).unlink()
    if content is not None:
        (folder.path / SUMMARY).write_bytes(content.encode("latin-1"))
    with pytest.raises(
        ActrelaxError, match=rf"^{folder.path} holds no finished run: summary.json (can't be read|lacks)"
    ):
        folder.summary()


HEAD = ",".join(["epoch", *NUMBERS])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "can't be read"),
        ("epoch,train_loss\n1,2\n", "lacks train_accuracy, test_accuracy"),
        (f"{HEAD}\n1,x,1,1,1,1\n", "can't be read"),
        (f"{HEAD}\n1,1\n", "has 2 cells in row 1, not 6"),
    ],
)
def test_what_is_no_table(folder, content, sentence):
    (folder.path / "metrics.csv").unlink()
    if content is not None:
        (folder.path / "metrics.csv").write_text(content)
    with pytest.raises(ActrelaxError, match=rf"holds no table metrics: metrics\.csv {sentence}\.$"):
        folder.table("metrics")


def test_a_table_that_a_spreadsheet_program_saved(folder):
    path = folder.path / "metrics.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b",", b";").replace(b"\n", b"\r\n"))
    assert folder.table("metrics")[1] == ROWS[1]


@pytest.mark.parametrize(("name", "value"), [("test_accuracy", "0.9"), ("steps", 1.5), ("versions", None)])
def test_a_summary_with_a_value_of_another_type(folder, name, value):
    changed = json.loads((folder.path / SUMMARY).read_text()) | {name: value}
    (folder.path / SUMMARY).write_text(json.dumps(changed))
    with pytest.raises(ActrelaxError, match=rf"holds no finished run: summary\.json has '.*' for {name}\.$"):
        folder.summary()


def test_a_checkpoint_never_runs_code(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"weights": Bomb()}, folder.path / CHECKPOINT)
    with pytest.raises(
        ActrelaxError, match=r"checkpoint.pt is not a checkpoint, or is damaged: start the run again\.$"
    ):
        folder.checkpoint()
    assert not (tmp_path / "exploded").exists()
