"""Data sets: scikit-learn's bundled digits, official sets by name, .npz files, or folders of images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actrelax.analysis.files import exists
from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data.download import ARCHIVES, download
from actrelax.simulations.data.folders import has_test_part, is_folder, read_folder

Layout = Literal["nchw", "nhwc"]
"""Order of dimensions: (n, channels, height, width) or (n, height, width, channels)."""
MOST_CHANNELS = 4
"""Largest number of channels for which the layout is inferred from the shape (RGB with alpha)."""
KEYS = ("x_train", "y_train", "x_test", "y_test")
Array = NDArray[np.generic]


class Split(NamedTuple):
    """Images and their labels.

    images  (n, channels, height, width) or (n, features): uint8 from 0 to 255, or floats, which are not rescaled
    labels  (n,), int64 from 0 to classes - 1
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """Images for training, validation and testing.

    name         name in reports; the name of an official set always means the complete set
    classes      number of classes
    train, test  images for training and for testing
    validation   images for choosing options; None unless `holding_out` was called
    names        names of the classes, if the data set is a folder of images
    """

    name: str
    classes: int
    train: Split
    test: Split
    validation: Split | None = None
    names: tuple[str, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.train.images.shape[1:])

    @property
    def parts(self) -> dict[str, Split]:
        """Name -> part, without a missing validation part."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def keeping(self, count: int) -> Dataset:
        """Keep `count` training images, chosen by a fixed random permutation, in their order.

        Raises
        ------
        ActrelaxError
            Unless `count` lies between 1 and the number of training images.
        """
        images, labels = self.train
        if not 0 < count <= len(images):
            raise ActrelaxError(f"train_images must lie between 1 and {len(images)}, got {count}.")
        kept = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].sort().values
        return replace(self, train=Split(images[kept], labels[kept]))

    def holding_out(self, count: int) -> Dataset:
        """Move `count` training images, chosen by a fixed random permutation, to the validation part.

        Raises
        ------
        ActrelaxError
            If a part would have no images.
        """
        images, labels = self.train
        if not 0 < count < len(images):
            raise ActrelaxError(f"validation must lie between 1 and {len(images) - 1} images, got {count}.")
        shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        held, kept = shuffled[:count].sort().values, shuffled[count:].sort().values
        return replace(self, train=Split(images[kept], labels[kept]), validation=Split(images[held], labels[held]))


def data_folder(given: Path | None) -> Path:
    """Return the given data directory, or else a non-empty environment variable ACTRELAX_DATA, or else ``data``."""
    return Path(os.environ.get("ACTRELAX_DATA") or "data") if given is None else given


def load(
    name: str, data_dir: Path | None = None, test_split: float | None = None, layout: Layout | None = None
) -> Dataset:
    """Load a data set by name, file or folder.

    Parameters
    ----------
    name : str
        ``digits`` (bundled); an official set of `download.ARCHIVES`, read from NAME.npz in the data directory, or
        downloaded into it; the NAME of any other NAME.npz in that directory; the path of a .npz file; or, with a slash
        in it, a folder of PNG and JPEG images: PATH/CLASS/*.png, or PATH/train/CLASS/*.png with PATH/test or PATH/val.
    data_dir : Path, optional
        Data directory; see `data_folder` for the default.
    test_split : float, optional
        Share of the images of PATH/CLASS/*.png for testing (see `read_folder`); not allowed for other sets.
    layout : {"nchw", "nhwc"}, optional
        Order of dimensions in a .npz file (see `read`); not allowed for other sets.

    Raises
    ------
    ActrelaxError
        If the name is unknown, the set is missing and can't be downloaded, or the file is not a data set.
    """
    if layout is not None and (is_folder(name) or name in ("digits", *ARCHIVES)):
        raise ActrelaxError(f"--layout is for .npz files, but {name} has a fixed layout: leave it out.")
    if is_folder(name):
        found = read_folder(Path(name), test_split)
        train, test = Split(*found.train), Split(*found.test)
        return Dataset(Path(name).name, len(found.names), train, test, names=found.names)
    if test_split is not None:
        raise ActrelaxError(f"--test-split is for sets without test images, but {name} has some: leave it out.")
    folder = data_folder(data_dir)
    if name == "digits":
        return digits()
    if name in ARCHIVES:
        path = folder / f"{name}.npz"
        if not exists(path):
            download(name, path)
        return _official(read(path), path)
    if name.endswith(".npz"):
        return read(Path(name), layout)
    if Path(name).name == name and exists(folder / f"{name}.npz"):
        return read(folder / f"{name}.npz", layout)
    names = ", ".join(["digits", *ARCHIVES])
    raise ActrelaxError(
        f"unknown dataset {name!r}; known: {names}, a NAME.npz in {folder}, the path of a .npz, or a folder/ of images."
    )


def load_to_test(
    name: str, data_dir: Path | None = None, test_split: float | None = None, layout: Layout | None = None
) -> Dataset:
    """Load a data set for testing only: by default all images of PATH/CLASS/*.png are test images."""
    if test_split is None and is_folder(name) and not has_test_part(Path(name)):
        test_split = 1.0
    return load(name, data_dir, test_split, layout)


def digits() -> Dataset:
    """Load scikit-learn's bundled 8x8 handwritten digits, in [0, 1]: 1,437 images for training, 360 for testing.

    The split is fixed: stratified by class, by scikit-learn's `train_test_split` with random_state 0.
    """
    from sklearn.datasets import load_digits  # here: it takes longer to import than PyTorch
    from sklearn.model_selection import train_test_split

    bundled = load_digits()
    images = (bundled.images / 16).astype(np.float32)[:, None]
    parts = train_test_split(images, bundled.target, test_size=360, stratify=bundled.target, random_state=0)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    return Dataset("digits", 10, Split(x_train, y_train), Split(x_test, y_test))


def read(path: Path, layout: Layout | None = None) -> Dataset:
    """Read a .npz file with x_train, y_train, x_test and y_test.

    Images are uint8, or floats, which are not rescaled: (n, features), (n, height, width), or with channels. Labels are
    integers from 0 to classes - 1, one per image, and each must occur among the training labels.

    Parameters
    ----------
    path : Path
    layout : {"nchw", "nhwc"}, optional
        Order of dimensions, (n, channels, height, width) or (n, height, width, channels). By default the only order
        with 1 to 4 channels.

    Raises
    ------
    ActrelaxError
        For any other content, and for images with channels if both layouts are possible, or neither.
    """
    if layout is not None:
        known("layout", layout, get_args(Layout))
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file.files}
    except FileNotFoundError as error:
        raise ActrelaxError(f"{path} does not exist: {_HELP}") from error
    except Exception as error:  # damaged bytes make NumPy and zipfile raise nearly anything
        raise ActrelaxError(f"{path} is not a .npz file, or is damaged: {_HELP}") from error
    if len(arrays) < len(KEYS):
        raise ActrelaxError(f"{path} lacks some of {', '.join(KEYS)}: {_HELP}")
    try:
        _check_empty(arrays)
        _check_labels(arrays)
        classes = int(arrays["y_train"].max()) + 1
        train, test = (
            _split(part, arrays[f"x_{part}"], arrays[f"y_{part}"], classes, layout) for part in ("train", "test")
        )
        if train.images.shape[1:] != test.images.shape[1:] or train.images.dtype != test.images.dtype:
            raise ActrelaxError(
                f"x_train and x_test must have the same dtype and image shape, got {arrays['x_train'].dtype} "
                f"{arrays['x_train'].shape} and {arrays['x_test'].dtype} {arrays['x_test'].shape}."
            )
    except ActrelaxError as error:
        raise ActrelaxError(f"{path}: {error}") from error
    return Dataset(path.stem, classes, train, test)


_HELP = "give a .npz file with x_train, y_train, x_test and y_test, written by numpy.savez."


def _check_empty(arrays: Mapping[str, Array]) -> None:
    for key, values in arrays.items():
        if values.size == 0:
            raise ActrelaxError(
                f"{key} is empty, of shape {values.shape}: give at least one image with its label for training, and "
                "one for testing."
            )


def _check_labels(arrays: Mapping[str, Array]) -> None:
    for key in ("y_train", "y_test"):
        labels = arrays[key]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ActrelaxError(f"{key} must be integers of shape (n,), got {labels.dtype} {labels.shape}.")
    occurring = np.unique(arrays["y_train"]).tolist()
    if occurring[0] >= 0 and len(occurring) <= occurring[-1]:
        largest, missing = occurring[-1], next(i for i, label in enumerate(occurring) if label != i)
        raise ActrelaxError(
            f"y_train must have every label from 0 to its largest, got {largest} for the largest and no {missing}."
        )


def _split(part: str, x: Array, y: Array, classes: int, layout: Layout | None) -> Split:
    if x.ndim not in (2, 3, 4):
        raise ActrelaxError(
            f"x_{part} must be (n, features), (n, height, width) or with channels (--layout), got {x.shape}."
        )
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise ActrelaxError(f"x_{part} must be uint8 or floats, got {x.dtype}.")
    if len(x) != len(y):
        raise ActrelaxError(f"x_{part} and y_{part} must have equal lengths, got {len(x)} images and {len(y)} labels.")
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
        raise ActrelaxError(f"x_{part} must be finite, got nan or inf in image {finite.argmin()}.")
    if y.min() < 0 or y.max() >= classes:
        worst = y.min() if y.min() < 0 else y.max()
        raise ActrelaxError(f"labels must lie between 0 and {classes - 1}, y_train's largest; got {worst} in y_{part}.")
    x = _channels_first(part, x, layout)
    if x.dtype.kind == "f":  # including half and extended precision, in either byte order
        x = x.astype(np.float32 if x.dtype.itemsize <= 4 else np.float64)
    return Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)))


def _channels_first(part: str, x: Array, layout: Layout | None) -> Array:
    """Return images as (n, channels, height, width), and vectors unchanged."""
    if x.ndim < 4:
        if layout is not None:
            raise ActrelaxError(f"--layout is for images with channels, got x_{part} of shape {x.shape}: leave it out.")
        return x[:, None] if x.ndim == 3 else x
    if layout is None:
        fits = {"nchw": x.shape[1] <= MOST_CHANNELS, "nhwc": x.shape[3] <= MOST_CHANNELS}
        if fits["nchw"] == fits["nhwc"]:
            raise ActrelaxError(
                f"x_{part} of shape {x.shape} may be (n, channels, height, width) or (n, height, width, channels): "
                "give --layout nchw or nhwc."
            )
        layout = "nchw" if fits["nchw"] else "nhwc"
    return x if layout == "nchw" else np.moveaxis(x, 3, 1)


def _official(dataset: Dataset, path: Path) -> Dataset:
    """Return an official set unchanged, or raise an error if its sizes are not the official ones."""
    archive = ARCHIVES[dataset.name]
    found = (len(dataset.train.images), len(dataset.test.images), dataset.input_shape, dataset.classes)
    if found != (archive.train, archive.test, archive.shape, archive.classes):
        raise ActrelaxError(
            f"{path} is not {dataset.name}, which has {archive.train} + {archive.test} images of shape {archive.shape} "
            f"in {archive.classes} classes; the file has {found[0]} + {found[1]} of {found[2]} in {found[3]}: "
            "give the file another name."
        )
    return dataset
