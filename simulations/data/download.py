"""Official archives of image sets: mirrors, published hashes, and parsers."""

from __future__ import annotations

import gzip
import pickle
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from actrelax.analysis.files import replacing
from actrelax.models.errors import ActrelaxError

Images = NDArray[np.uint8]

TIMEOUT = 30
"""Time limit for a server's response, in seconds."""


@dataclass(frozen=True)
class Archive:
    """Official data set.

    mirrors      URLs of folders, tried in this order
    files        file name -> published hash, in pooch's format
    parse        function of the files on disk that returns x_train, y_train, x_test, y_test
    train, test  numbers of images
    shape        shape of one image, (channels, height, width)
    classes      number of classes
    """

    mirrors: tuple[str, ...]
    files: Mapping[str, str]
    parse: Callable[[Sequence[Path]], Sequence[Images]]
    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int


def parse_mnist(files: Sequence[Path]) -> Sequence[Images]:
    """Read gzipped IDX files of unsigned bytes (yann.lecun.com/exdb/mnist)."""
    arrays = []
    for path in files:
        content = gzip.decompress(path.read_bytes())
        shape = np.frombuffer(content, ">u4", content[3], offset=4)
        arrays.append(np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape.tolist()))
    return arrays


def parse_cifar(files: Sequence[Path]) -> Sequence[Images]:
    """Read the pickles in a .tar.gz, which is safe because pooch has verified the hash of the archive."""
    arrays = []
    with tarfile.open(files[0]) as archive:
        paths = sorted(archive.getnames())
        for part in ("data_batch", "train"), ("test",):
            members = [archive.extractfile(path) for path in paths if Path(path).name.startswith(part)]
            batches = [pickle.load(member, encoding="bytes") for member in members if member is not None]
            rows = np.concatenate([batch[b"data"] for batch in batches])
            labels = [batch.get(b"fine_labels", batch.get(b"labels")) for batch in batches]
            arrays += [rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.concatenate(labels).astype(np.uint8)]
    return arrays


def parse_svhn(files: Sequence[Path]) -> Sequence[Images]:
    """Read the cropped digits, whose label 10 means the digit 0."""
    train, test = map(loadmat, files)
    return [array for part in (train, test) for array in (part["X"].transpose(3, 0, 1, 2), part["y"].ravel() % 10)]


def _mnist(mirrors: tuple[str, ...], *md5: str) -> Archive:
    """Return an archive with the format and sizes of MNIST, which Fashion-MNIST shares."""
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    files = {name: f"md5:{value}" for name, value in zip(names, md5, strict=True)}
    return Archive(mirrors, files, parse_mnist, 60_000, 10_000, (1, 28, 28), 10)


def _cifar(classes: int, sha256: str) -> Archive:
    mirrors = "https://www.cs.toronto.edu/~kriz/", "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
    files = {f"cifar-{classes}-python.tar.gz": f"sha256:{sha256}"}
    return Archive(mirrors, files, parse_cifar, 50_000, 10_000, (3, 32, 32), classes)


ARCHIVES: dict[str, Archive] = {
    "mnist": _mnist(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion-mnist": _mnist(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "cifar10": _cifar(10, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
    "cifar100": _cifar(100, "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"),
    "svhn": Archive(
        ("http://ufldl.stanford.edu/housenumbers/",),
        {
            "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
        },
        parse_svhn,
        73_257,
        26_032,
        (3, 32, 32),
        10,
    ),
}
"""Name -> official set. SVHN is for non-commercial use (ufldl.stanford.edu/housenumbers)."""


def download(name: str, path: Path) -> None:
    """Download an official set, verify its hashes, and write it to `path` as a .npz file for `datasets.read`.

    Raises
    ------
    ActrelaxError
        If no mirror provides files with the published hashes, or `path` can't be written.
    """
    import pooch  # here: benchmarks/gpu.py runs without it

    archive = ARCHIVES[name]
    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory() as folder:
        files = [_fetched(name, file, Path(folder), path) for file in archive.files]
        x_train, y_train, x_test, y_test = archive.parse(files)
    with replacing(path) as file:
        np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _fetched(name: str, file: str, folder: Path, wanted: Path) -> Path:
    """Download a file from the first mirror that provides it with the published hash."""
    import pooch

    reasons = []
    for mirror in ARCHIVES[name].mirrors:
        fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
        try:
            return Path(pooch.retrieve(mirror + file, ARCHIVES[name].files[file], file, folder, downloader=fetch))
        except (OSError, ValueError) as error:  # from requests or pooch: no connection, or a wrong hash
            reasons.append(f"{mirror + file} ({'wrong hash' if 'hash' in str(error) else type(error).__name__})")
    raise ActrelaxError(
        f"{wanted} is missing and {name} can't be downloaded from {' or '.join(reasons)}: put a {wanted.name} with "
        f"x_train, y_train, x_test and y_test into {wanted.parent}, or give its folder as --data-dir."
    )
