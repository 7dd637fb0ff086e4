"""Changed inputs are named; inputs without a record are not compared."""

import pytest

from actrelax.analysis.fingerprints import (
    MISSING,
    identity,
    of_file,
    of_options,
    of_weights,
    record,
    recorded,
    verify,
    verify_alike,
    verify_checkpoint,
)
from actrelax.analysis.runs import VERSION, RunFolder
from actrelax.models.errors import ActrelaxError

OPTIONS = {"network": "net.py:f", "dataset": "tiny", "validation": 0, "lr": 0.1}


def run_of(path, options=OPTIONS, **parts):
    folder = RunFolder(path)
    folder.write_config({"version": VERSION, "experiment": options, "execution": {}})
    record(folder, {**of_options(options), **parts})
    return folder


def test_all_that_changed_is_named(tmp_path):
    folder = run_of(tmp_path / "run", files={"a.py": "1", "b.py": "2", "c.py": "3"})
    verify(folder, {"files": {"a.py": "1"}})
    found = {"files": {"a.py": "1", "b.py": "9", "new.py": "4"}, "images": {"test images": "5"}}
    with pytest.raises(ActrelaxError) as refused:
        verify(folder, found)
    assert str(refused.value) == (
        f"b.py, new.py, test images changed since the run in {folder.path} was trained: undo the change, or pass "
        "--accept-changes (accept_changes=True in Python)."
    )
    verify(folder, found, accept_changes=True)
    with pytest.raises(
        ActrelaxError, match="has no fingerprints to compare its inputs with: start the run again, or pass"
    ):
        verify(RunFolder(tmp_path / "other"), found)


def test_a_files_fingerprint_is_that_of_its_content(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    assert of_file(tmp_path / "a") == of_file(tmp_path / "b") != of_file(tmp_path / "c")
    assert of_file(tmp_path / "nix") == MISSING
    assert of_options({"lr": 0.1, "seed": 0}) == of_options({"seed": 0, "lr": 0.1}) != of_options({"lr": 0.1})
    assert of_options({"lr": 0.1, "epochs": 3}) == of_options({"lr": 0.1, "epochs": 5})


def test_a_checkpoint_belongs_to_its_run_and_at_the_end_is_the_last(tmp_path):
    folder = run_of(tmp_path / "run", files={"a.py": "1"})
    mark = identity(recorded(folder))
    verify_checkpoint(folder, {"run": mark})
    with pytest.raises(ActrelaxError, match="belongs to another run: start the run again, or pass --accept-changes"):
        verify_checkpoint(folder, {"run": identity({"files": {"a.py": "2"}})})
    folder.write_checkpoint({"run": mark})
    record(folder, {**recorded(folder), **of_weights(folder)})
    assert identity(recorded(folder)) == mark
    verify_checkpoint(folder, folder.checkpoint())
    folder.write_checkpoint({"run": mark, "more": 1})
    with pytest.raises(ActrelaxError, match=r"^checkpoint\.pt changed since the run in .* was trained"):
        verify_checkpoint(folder, folder.checkpoint())
    verify_checkpoint(folder, {}, accept_changes=True)


def test_runs_that_are_compared_have_one_file_and_one_data_set_under_a_name(tmp_path):
    first = run_of(tmp_path / "a", files={"net.py": "1"}, images={"test images": "1"})
    held_out = {**OPTIONS, "validation": 10, "network": "mlp"}
    second = run_of(tmp_path / "b", held_out, files={}, images={"test images": "2"})
    other = run_of(tmp_path / "c", {**OPTIONS, "dataset": "other"}, files={"net.py": "2"}, images={})
    verify_alike([first, second, RunFolder(tmp_path / "none")])
    with pytest.raises(ActrelaxError) as refused:
        verify_alike([first, second, other])
    assert str(refused.value) == (
        f"{first.path} and {other.path} were trained with different contents of net.py: "
        "compare runs with the same contents, or pass --accept-changes."
    )
    verify_alike([first, second, other], accept_changes=True)
    second.write_config({"version": VERSION, "experiment": OPTIONS, "execution": {}})
    with pytest.raises(ActrelaxError, match=r"^config\.json changed since the run in .* was trained"):
        verify_alike([first, second])
