"""Files are written atomically."""

from pathlib import Path

import pytest

from actrelax.analysis.files import claimed, exists, locked, replacing, require_places
from actrelax.models._files import partial_of
from actrelax.models.errors import ActrelaxError


def test_a_file_appears_when_the_block_is_left(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with replacing(path) as file:
        file.write(b"next")
    assert path.read_bytes() == b"next"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_an_error_in_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted():
        with replacing(path) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, monkeypatch):
    """Every write to /dev/full raises "No space left on device"."""
    path, partial = tmp_path / "file", Path("/dev/full")
    path.write_bytes(b"old")
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(partial, "wb") if mode == "xb" else opened(self, mode))
    with pytest.raises(ActrelaxError) as refused, replacing(path) as file:
        file.write(b"new")
    assert str(refused.value) == f"can't write to {path}: No space left on device."
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_where_the_system_does_not_say_whether_there_is_a_file(tmp_path):
    assert exists(tmp_path)
    assert not exists(tmp_path / "none" / "none")
    (tmp_path / "file").write_text("")
    assert not exists(tmp_path / "file" / "below")
    for name, why in (("x" * 300, "File name too long"), ("a\0b", "embedded null byte")):
        with pytest.raises(ActrelaxError, match=f"^can't look at .*: {why}\\.$"):
            exists(tmp_path / name)


def test_what_is_in_the_way_of_a_file(tmp_path):
    (tmp_path / "file").write_text("old")
    require_places(tmp_path / "file", tmp_path / "new" / "folders" / "file")
    below = tmp_path / "file" / "below"
    for path, said in ((tmp_path, f"{tmp_path}: Is a directory"), (below / "it", f"{below}: Not a directory")):
        with pytest.raises(ActrelaxError, match=f"^can't write to {said}\\.$"):
            require_places(tmp_path / "file", path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_is_held_by_one(tmp_path):
    path = tmp_path / "new" / "lock"
    with locked(path) as mine, locked(path, wait=False) as others:
        assert (mine, others) == (True, False)
    with locked(path, wait=False) as mine:
        assert mine
    with (
        pytest.raises(ActrelaxError, match="can't write to /dev/null/locks: Not a directory"),
        locked(Path("/dev/null/locks/lock")),
    ):
        pass


def test_two_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    names = {partial_of(path).name for _ in range(100)}
    assert len(names) == 100
    assert len(partial_of(tmp_path / ("x" * 255)).name) <= 255


def test_a_folder_is_claimed_by_one(tmp_path):
    folder = tmp_path / "new" / "run"

    def twice():
        with claimed(folder), claimed(folder):
            pass

    with pytest.raises(ActrelaxError) as refused:
        twice()
    assert str(refused.value) == (
        f"another process is writing into {folder}: wait until it has ended, or choose another folder."
    )
    assert list(tmp_path.iterdir()) == []  # nothing was written


def test_who_claims_a_folder_clears_away_what_a_killed_process_left(tmp_path):
    left, mine = partial_of(tmp_path / "file"), tmp_path / "mine.partial"
    for path in (left, mine, tmp_path / ".lock"):
        path.write_text("half")
    with claimed(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mine.partial"]
        (tmp_path / "file").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine.partial"]
