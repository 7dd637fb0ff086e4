"""The official archives of the usual image sets: where they are, their published hashes, how to read them."""

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
import pooch
from numpy.typing import NDArray
from scipy.io import loadmat

from actrelax.analysis.files import replacing
from actrelax.models.errors import ActrelaxError

Images = NDArray[np.uint8]
Part = tuple[Images, Images]
Parser = Callable[[Sequence[Path]], tuple[Part, Part]]

TIMEOUT = 30
"""Seconds that a server may be silent."""


@dataclass(frozen=True)
class Archive:
    """An official data set.

    mirrors     folders on the web, tried in this order
    files       file name -> published hash, as pooch writes it
    parse       files on disk -> (images, labels) for training and for testing
    train, test number of images; shape of one, (channels, height, width); number of classes
    """

    mirrors: tuple[str, ...]
    files: Mapping[str, str]
    parse: Parser
    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int


def read_idx(path: Path) -> Images:
    """Read a gzipped IDX file of unsigned bytes, the format of MNIST (yann.lecun.com/exdb/mnist)."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape.tolist())


def parse_mnist(files: Sequence[Path]) -> tuple[Part, Part]:
    """Images and labels of the training set, then of the test set."""
    x_train, y_train, x_test, y_test = map(read_idx, files)
    return (x_train, y_train), (x_test, y_test)


def parse_cifar(files: Sequence[Path]) -> tuple[Part, Part]:
    """Read pickles out of one .tar.gz; safe only because pooch has verified the archive's hash before."""
    batches = {}
    with tarfile.open(files[0]) as archive:
        for member in archive:
            name = Path(member.name).name
            content = archive.extractfile(member) if name.startswith(("data_batch", "test", "train")) else None
            if content is not None:
                batches[name] = pickle.load(content, encoding="bytes")
    test = [name for name in batches if name.startswith("test")]
    train = sorted(name for name in batches if name not in test)
    return _joined([batches[name] for name in train]), _joined([batches[name] for name in test])


def _joined(batches: Sequence[Mapping[bytes, NDArray[np.uint8]]]) -> Part:
    rows = np.concatenate([batch[b"data"] for batch in batches])
    labels = [batch[b"fine_labels" if b"fine_labels" in batch else b"labels"] for batch in batches]
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.concatenate(labels).astype(np.uint8)


def parse_svhn(files: Sequence[Path]) -> tuple[Part, Part]:
    """Read the cropped digits; the label 10 stands for the digit 0."""
    train, test = ((file["X"].transpose(3, 0, 1, 2), file["y"].ravel() % 10) for file in map(loadmat, files))
    return train, test


_IDX = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
_CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_CIFAR100_SHA256 = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
_CIFAR_MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)


def _mnist(md5: Sequence[str], *mirrors: str) -> Archive:
    """MNIST's format and sizes, which Fashion-MNIST took over."""
    hashes = {name: f"md5:{value}" for name, value in zip(_IDX, md5, strict=True)}
    return Archive(mirrors, hashes, parse_mnist, 60_000, 10_000, (1, 28, 28), 10)


def _cifar(file: str, sha256: str, classes: int) -> Archive:
    return Archive(_CIFAR_MIRRORS, {file: f"sha256:{sha256}"}, parse_cifar, 50_000, 10_000, (3, 32, 32), classes)


ARCHIVES: dict[str, Archive] = {
    "mnist": _mnist(
        _MNIST_MD5,
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": _mnist(
        _FASHION_MD5,
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    "cifar10": _cifar("cifar-10-python.tar.gz", _CIFAR10_SHA256, 10),
    "cifar100": _cifar("cifar-100-python.tar.gz", _CIFAR100_SHA256, 100),
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
    """Fetch an official set, verify its hashes, and write it to `path` as a .npz that `datasets.read` reads.

    Raises
    ------
    ActrelaxError
        If no mirror can be reached or has the published files, or if `path` can't be written.
    """
    archive = ARCHIVES[name]
    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory() as folder:
        files = [_fetched(name, file, Path(folder), path) for file in archive.files]
        (x_train, y_train), (x_test, y_test) = archive.parse(files)
    with replacing(path) as file:
        np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _fetched(name: str, file: str, folder: Path, wanted: Path) -> Path:
    """Download one file from the first mirror that has it with the published hash."""
    archive = ARCHIVES[name]
    reasons = []
    for mirror in archive.mirrors:
        fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
        try:
            return Path(pooch.retrieve(mirror + file, archive.files[file], file, folder, downloader=fetch))
        except (OSError, ValueError) as error:  # what requests and pooch raise: no connection, another hash
            reasons.append(f"{mirror + file} ({_brief(error)})")
    raise ActrelaxError(
        f"{wanted} isn't there and {name} can't be downloaded from {' or '.join(reasons)}: put a {wanted.name} with "
        f"x_train, y_train, x_test and y_test into {wanted.parent}, or name its folder by --data-dir."
    )


def _brief(error: Exception) -> str:
    return "another hash" if "hash" in str(error) else type(error).__name__
