"""Folders of PNG and JPEG images, with one sub-folder per class as in torchvision's `ImageFolder`."""

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
"""Pillow's modes with 8 bits per channel."""

Part = tuple[Tensor, Tensor]
"""Images (n, channels, height, width), uint8, and labels (n,), int64."""


class Images(NamedTuple):
    """Images of a folder; a label is the position of the class in `names`, which are sorted."""

    train: Part
    test: Part
    names: tuple[str, ...]


def is_folder(name: str) -> bool:
    """Return whether the name of a data set is a folder: it has a slash and does not end in .npz."""
    return "/" in name and not name.endswith(".npz")


def read_folder(path: Path, test_split: float | None = None) -> Images:
    """Read PATH/train/CLASS/* and PATH/test/CLASS/* (or PATH/val), or split PATH/CLASS/*.

    Sub-folders of a class are included, hidden files and folders are not. Images have one channel if all are grey,
    otherwise three; transparency is ignored.

    Parameters
    ----------
    path : pathlib.Path
    test_split : float, optional
        Share of each class in PATH/CLASS/* for testing; with 1 both parts contain all images. Required for
        PATH/CLASS/*, not allowed for PATH/train and PATH/test.

    Raises
    ------
    ActrelaxError
        If there are no classes or images, an image can't be read, sizes differ, or `test_split` is missing or not
        allowed.
    """
    test = _test_part(path)
    if test is None:
        return _split(path, test_split)
    if test_split is not None:
        raise ActrelaxError(f"--test-split is for sets without test images, but {test} has some: leave it out.")
    names = _folders(path / "train")
    files, tested = _files(path / "train", names), _files(test, names)
    images, labels = _read_all([*files, *tested])
    count = len(files)
    return Images((images[:count], labels[:count]), (images[count:], labels[count:]), tuple(names))


def has_test_part(path: Path) -> bool:
    """Return whether a folder has separate folders of training and test images."""
    return _test_part(path) is not None


def _test_part(path: Path) -> Path | None:
    test = next((path / name for name in ("test", "val") if _folders(path / name)), None)
    return test if _folders(path / "train") else None


def _split(path: Path, share: float | None) -> Images:
    """Read PATH/CLASS/*, and split the images reproducibly."""
    names = _folders(path)
    files = _files(path, names)
    if share is None:
        raise ActrelaxError(
            f"{path} has no test images: give --test-split 0.2, or put the classes into {path}/train and {path}/test."
        )
    images, labels = _read_all(files)
    if share == 1:
        return Images((images, labels), (images, labels), tuple(names))
    from sklearn.model_selection import train_test_split  # here: it takes longer to import than PyTorch

    try:
        parts = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=0)
    except ValueError as error:  # scikit-learn's message names its own arguments
        raise ActrelaxError(
            f"--test-split {share:g} can't split the {len(labels)} images of {path}: "
            f"each of the {len(names)} classes needs an image in both parts."
        ) from error
    train, test = ((images[some], labels[some]) for some in (torch.from_numpy(np.sort(part)) for part in parts))
    return Images(train, test, tuple(names))


def _folders(path: Path) -> list[str]:
    """Return the sorted names of visible sub-folders; none if `path` is no folder."""
    try:
        return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


def _files(path: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the image files of all classes in a folder, with their labels."""
    found = _folders(path)
    if not found:
        lack = "has no folders" if path.is_dir() else "is no folder"
        raise ActrelaxError(f"{path} {lack}: a folder of images needs one folder per class, PATH/CLASS/*.png.")
    files = []
    for name in found:
        if name not in names:
            raise ActrelaxError(f"{path / name} is not a class of the training images; known: {', '.join(names)}.")
        inside = sorted(p for p in (path / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        visible = [p for p in inside if not any(word.startswith(".") for word in p.relative_to(path).parts)]
        if not visible:
            raise ActrelaxError(f"{path / name} has no images: add PNG or JPEG files, or remove the folder.")
        files += [(file, names.index(name)) for file in visible]
    return files


def _read_all(files: Sequence[tuple[Path, int]]) -> Part:
    """Return images and labels; all images have three channels if one is coloured."""
    images = [_read(file) for file, _ in files]
    for (file, _), image in zip(files, images, strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            sizes = [f"{x.shape[2]} x {x.shape[1]}" for x in (images[0], image)]
            raise ActrelaxError(
                f"images must have equal sizes, got {sizes[0]} in {files[0][0]} and {sizes[1]} in {file}: resize them."
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
        raise ActrelaxError(f"{file} is not a PNG or JPEG image, or is damaged: replace it.") from error
    if mode not in (*GREY, *COLOUR):
        raise ActrelaxError(f"{file} has pixels of type {mode!r}: save it with 8 bits per channel.")
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
