"""A folder of images, one sub-folder per class, as torchvision's `ImageFolder` reads it: PNG and JPEG, by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actrelax.models.errors import ActrelaxError

SUFFIXES = (".jpeg", ".jpg", ".png")
GREY, COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's types of pixels with 8 bits per channel."""

Part = tuple[Tensor, Tensor]
"""Images (n, channels, height, width), uint8, and labels (n,), int64."""


class Images(NamedTuple):
    """The images of a folder; a label is the class's position in `names`, which are sorted."""

    train: Part
    test: Part
    names: tuple[str, ...]


def is_folder(name: str) -> bool:
    """Return whether a data set's name means a folder: it has a slash and is no .npz file's."""
    return "/" in name and not name.endswith(".npz")


def read_folder(path: Path, test_split: float | None = None) -> Images:
    """Read PATH/train/CLASS/* and PATH/test/CLASS/* (or PATH/val), or PATH/CLASS/*, which is split.

    Images may lie deeper in a class's folder; hidden files and folders are left out. Images have one channel where all
    are grey, otherwise three; transparency is ignored.

    Parameters
    ----------
    path : pathlib.Path
    test_split : float, optional
        Share of each class in PATH/CLASS/* to test on; with 1 all images are in both parts.

    Raises
    ------
    ActrelaxError
        For a folder without classes or images, an image that can't be read, images of several sizes, a split that is
        missing or not needed.
    """
    test = _test_part(path)
    if test is None:
        return _split(path, test_split)
    if test_split is not None:
        raise ActrelaxError(f"--test-split is for sets without test images, {test} has some: leave it out.")
    names = _folders(path / "train")
    files, tested = _files(path / "train", names), _files(test, names)
    images, labels = _read_all([*files, *tested])
    count = len(files)
    return Images((images[:count], labels[:count]), (images[count:], labels[count:]), tuple(names))


def has_test_part(path: Path) -> bool:
    """Return whether a folder has training and test images in folders of their own."""
    return _test_part(path) is not None


def _test_part(path: Path) -> Path | None:
    test = next((path / name for name in ("test", "val") if _folders(path / name)), None)
    return test if _folders(path / "train") else None


def _split(path: Path, share: float | None) -> Images:
    """Read PATH/CLASS/*, and split the images, the same way each time."""
    names = _folders(path)
    files = _files(path, names)
    if share is None:
        raise ActrelaxError(
            f"{path} has no test images: give --test-split 0.2, or sort the classes into {path}/train and {path}/test."
        )
    images, labels = _read_all(files)
    if share == 1:
        return Images((images, labels), (images, labels), tuple(names))
    from sklearn.model_selection import train_test_split  # here: it takes longer to import than PyTorch

    try:
        parts = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=0)
    except ValueError as error:  # of scikit-learn, about its own arguments
        raise ActrelaxError(
            f"--test-split {share:g} can't part the {len(labels)} images of {path}: "
            f"each of the {len(names)} classes needs an image on both sides."
        ) from error
    train, test = ((images[some], labels[some]) for some in (torch.from_numpy(np.sort(part)) for part in parts))
    return Images(train, test, tuple(names))


def _folders(path: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; none where there is no folder."""
    try:
        return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


def _files(path: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the images of the classes in a folder, and their labels."""
    found = _folders(path)
    if not found:
        lack = "has no folders" if path.is_dir() else "is no folder"
        raise ActrelaxError(f"{path} {lack}: a folder of images is PATH/CLASS/*.png, with a folder per class.")
    files = []
    for name in found:
        if name not in names:
            raise ActrelaxError(f"{path / name} is not a class of the training images; known: {', '.join(names)}.")
        inside = sorted(p for p in (path / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        visible = [p for p in inside if not any(word.startswith(".") for word in p.relative_to(path).parts)]
        if not visible:
            raise ActrelaxError(f"{path / name} has no images: put PNG or JPEG files there, or remove the folder.")
        files += [(file, names.index(name)) for file in visible]
    return files


def _read_all(files: Sequence[tuple[Path, int]]) -> Part:
    """Return images of one size, and their labels; a coloured image makes all of them coloured."""
    images = [_read(file) for file, _ in files]
    for (file, _), image in zip(files, images, strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            sizes = [f"{x.shape[2]} x {x.shape[1]}" for x in (images[0], image)]
            raise ActrelaxError(
                f"images must have one size, got {sizes[0]} of {files[0][0]} and {sizes[1]} of {file}: resize them."
            )
    channels = max(len(image) for image in images)
    whole = np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])
    return torch.from_numpy(whole), torch.tensor([label for _, label in files])


def _read(file: Path) -> NDArray[np.uint8]:
    """Return an image, (1 or 3, height, width)."""
    from PIL import Image  # here: benchmarks/gpu.py runs without it

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            mode = image.mode
            pixels = np.asarray(image.convert("L" if mode in GREY else "RGB"))
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise ActrelaxError(f"{file} can't be read as a PNG or JPEG image: it is damaged or something else.") from error
    if mode not in (*GREY, *COLOUR):
        raise ActrelaxError(f"{file} has pixels of type {mode!r}: save it with 8 bits per channel.")
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
