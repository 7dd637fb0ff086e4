"""Files are written completely, or the earlier file remains."""

from io import BytesIO

import pytest

from actrelax.models import _files
from actrelax.models._files import partial_of, write_whole


def test_parts_have_names_of_their_own(tmp_path):
    assert len({partial_of(tmp_path / "file") for _ in range(100)}) == 100
    assert len(partial_of(tmp_path / ("x" * 255)).name) <= 255


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"another"):
        write_whole(path, BytesIO(content))
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"earlier")

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, BytesIO(b"new"))
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]
