"""A run's folder is read as it was written, and never half of it."""

from pathlib import Path

import pytest

from actrelax.analysis.runs import METRICS, SUMMARY, Summary, read_run, versions, write_run
from actrelax.models.errors import ActrelaxError

RUN = Summary(0.9, 0.95, "ar", "simplified", "digits", "digits-cnn", 3, 7, 12.5, 345.0, "cpu", versions())
ROWS = [{"epoch": 0.0, "train_loss": 2.3}, {"epoch": 1.0, "train_loss": 0.1}]


def test_round_trip(tmp_path):
    write_run(tmp_path / "run", RUN, ROWS)
    assert read_run(tmp_path / "run") == (RUN, ROWS)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [METRICS, SUMMARY]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_run(tmp_path, RUN, ROWS)

    def full(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ActrelaxError, match=r"^can't write to .*: No space left on device\.$"):
        write_run(tmp_path, RUN, ROWS)
    assert read_run(tmp_path) == (RUN, ROWS)


@pytest.mark.parametrize("content", [None, "", "{", '{"rule": "ar"}'])
def test_what_is_no_run(tmp_path, content):
    write_run(tmp_path, RUN, ROWS)
    (tmp_path / SUMMARY).unlink()
    if content is not None:
        (tmp_path / SUMMARY).write_text(content)
    with pytest.raises(ActrelaxError, match=r"holds no finished run: summary.json or metrics.csv can't be read\.$"):
        read_run(tmp_path)
