"""Formats of the official archives, with small ones from a local HTTP server."""

import functools
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from scipy.io import savemat

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import download
from actrelax.simulations.data.datasets import load
from actrelax.simulations.data.download import ARCHIVES

GENERATOR = np.random.default_rng(0)
TRAIN, TEST = 12, 5


def images(name):
    """Return x_train, y_train, x_test, y_test, in which every class occurs."""
    channels, height, width = ARCHIVES[name].shape
    shape = (height, width) if channels == 1 else (height, width, channels)
    x = [GENERATOR.integers(0, 256, (n, *shape), dtype=np.uint8) for n in (TRAIN, TEST)]
    y = [np.arange(n, dtype=np.uint8) % 10 for n in (TRAIN, TEST)]
    return {"x_train": x[0], "y_train": y[0], "x_test": x[1], "y_test": y[1]}


def idx(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


def cifar(arrays, parts, key):
    """Return a .tar.gz of pickles, with rows of 3,072 and channels first; `parts` splits the training set."""
    content = io.BytesIO()
    cuts = np.array_split(np.arange(TRAIN), len(parts))
    files = {name: (arrays["x_train"][cut], arrays["y_train"][cut]) for name, cut in zip(parts, cuts, strict=True)}
    files["test_batch" if len(parts) > 1 else "test"] = (arrays["x_test"], arrays["y_test"])
    files["batches.meta" if len(parts) > 1 else "meta"] = (arrays["x_test"][:0], arrays["y_test"][:0])
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, (x, y) in reversed(files.items()):
            rows = x.transpose(0, 3, 1, 2).reshape(len(x), 3 * 32 * 32)
            data = pickle.dumps({b"data": rows, key: y.tolist(), b"coarse_labels": [0] * len(y)}, protocol=2)
            info = tarfile.TarInfo(f"cifar-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def mat(x, y):
    content = io.BytesIO()
    savemat(content, {"X": x.transpose(1, 2, 3, 0), "y": np.where(y == 0, 10, y)[:, None]})
    return content.getvalue()


def packed(name, arrays):
    """Return the files of an official archive with these images."""
    names = list(ARCHIVES[name].files)
    if name.endswith("mnist"):
        contents = [idx(array) for array in arrays.values()]
    elif name == "svhn":
        contents = [mat(arrays["x_train"], arrays["y_train"]), mat(arrays["x_test"], arrays["y_test"])]
    elif name == "cifar10":
        contents = [cifar(arrays, [f"data_batch_{i}" for i in range(1, 6)], b"labels")]
    else:
        contents = [cifar(arrays, ["train"], b"fine_labels")]
    return dict(zip(names, contents, strict=True))


@pytest.fixture
def served(tmp_path):
    """Return a folder that is served on loopback, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def serve(monkeypatch, served, name, arrays, mirrors=None):
    """Put small archives on the server, and their hashes into the registry."""
    folder, address = served
    hashes = {}
    for file, content in packed(name, arrays).items():
        (folder / file).write_bytes(content)
        hashes[file] = f"sha256:{hashlib.sha256(content).hexdigest()}"
    small = replace(
        ARCHIVES[name],
        mirrors=mirrors or (address,),
        files=hashes,
        train=TRAIN,
        test=TEST,
        classes=10,
    )
    monkeypatch.setitem(ARCHIVES, name, small)


@pytest.mark.parametrize("name", ARCHIVES)
def test_downloads_and_keeps(name, tmp_path, monkeypatch, served, capfd):
    arrays = images(name)
    serve(monkeypatch, served, name, arrays)
    data = load(name, tmp_path / "data")
    for part in ("train", "test"):
        stored = getattr(data, part)
        x = arrays[f"x_{part}"]
        assert np.array_equal(stored.images.numpy(), x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2))
        assert np.array_equal(stored.labels.numpy(), arrays[f"y_{part}"])
    for file in served[0].iterdir():
        file.unlink()
    again = load(name, tmp_path / "data")  # from the written file
    assert np.array_equal(again.train.images, data.train.images)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [f"{name}.npz"]
    assert capfd.readouterr() == ("", "")


def test_the_next_mirror_is_tried(tmp_path, monkeypatch, served):
    folder, address = served
    arrays = images("mnist")
    serve(monkeypatch, served, "mnist", arrays, mirrors=(f"{address}nowhere/", f"{address}wrong/", address))
    (folder / "wrong").mkdir()
    for file in ARCHIVES["mnist"].files:
        (folder / "wrong" / file).write_bytes(b"something else")
    assert np.array_equal(load("mnist", tmp_path).train.images[:, 0], arrays["x_train"])


class Bomb:
    """Pickle that would write a file if it were loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_wrong_hash_is_refused_before_anything_is_unpickled(tmp_path, monkeypatch, served):
    folder, address = served
    serve(monkeypatch, served, "cifar10", images("cifar10"))
    content, data = io.BytesIO(), pickle.dumps(Bomb(tmp_path / "exploded"))
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    (folder / "cifar-10-python.tar.gz").write_bytes(content.getvalue())
    with pytest.raises(ActrelaxError) as refused:
        load("cifar10", tmp_path / "data")
    assert str(refused.value) == (
        f"{tmp_path / 'data' / 'cifar10.npz'} is missing and cifar10 can't be downloaded from "
        f"{address}cifar-10-python.tar.gz (wrong hash): put a cifar10.npz with x_train, y_train, x_test and y_test "
        f"into {tmp_path / 'data'}, or give its folder as --data-dir."
    )
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "data").exists()


def test_without_a_connection(tmp_path, monkeypatch, served):
    serve(monkeypatch, served, "svhn", images("svhn"), mirrors=("http://127.0.0.1:9/",))
    monkeypatch.setattr(download, "TIMEOUT", 2)
    with pytest.raises(
        ActrelaxError, match=r"can't be downloaded from http://127.0.0.1:9/.* \(ConnectionError\): put a"
    ):
        load("svhn", tmp_path)


def test_the_published_hashes_are_whole():
    for name, archive in ARCHIVES.items():
        for file, value in archive.files.items():
            kind, digest = value.split(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[kind], (name, file)
            assert set(digest) <= set("0123456789abcdef")
        # unpickled files need a secure hash
        assert all(value.startswith("sha256:") for value in archive.files.values() if name.startswith("cifar"))
