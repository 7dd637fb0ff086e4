"""Real images to learn from: scikit-learn's bundled digits, the usual sets by name, or any NAME.npz."""

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
"""Where the channels are: (n, channels, height, width) or (n, height, width, channels)."""
MOST_CHANNELS = 4
"""Of images whose layout is seen from their shape: grey, with alpha, RGB, RGB with alpha."""
KEYS = ("x_train", "y_train", "x_test", "y_test")
Array = NDArray[np.generic]


class Split(NamedTuple):
    """Some images and their labels.

    images  (n, channels, height, width) or (n, features): uint8 of 0 to 255, or floats taken as they are
    labels  (n,), int64 from 0 to classes - 1
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """Images in three parts: what is trained on, what choices are made by, and what is only reported.

    name        as it is reported; an official set's name means the whole official set
    classes     number of classes
    train, test the two parts; validation is None unless `holding_out` took some training images out
    names       of the classes, where a folder of images names them
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
        """Name -> part, those that are there."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def holding_out(self, count: int) -> Dataset:
        """Move `count` training images, chosen at random once and for all, to the validation part.

        Raises
        ------
        ActrelaxError
            If that leaves nothing on one of the sides.
        """
        images, labels = self.train
        if not 0 < count < len(images):
            raise ActrelaxError(f"validation must lie between 1 and {len(images) - 1} images, got {count}.")
        shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        held, kept = shuffled[:count].sort().values, shuffled[count:].sort().values
        return replace(self, train=Split(images[kept], labels[kept]), validation=Split(images[held], labels[held]))


def data_folder(given: Path | None) -> Path:
    """Return the data directory: the environment's ACTRELAX_DATA, or else ``data``, unless one is given."""
    return Path(os.environ.get("ACTRELAX_DATA", "data")) if given is None else given


def load(
    name: str, data_dir: Path | None = None, test_split: float | None = None, layout: Layout | None = None
) -> Dataset:
    """Load a data set by name, file or folder.

    Parameters
    ----------
    name : str
        ``digits`` (bundled); an official set of `download.ARCHIVES`, from NAME.npz in the data directory or else
        downloaded into it; the NAME of any other NAME.npz there; the path of a .npz file, reported by its name; or,
        with a slash in it, a folder of PNG and JPEG images: PATH/CLASS/*.png, or PATH/train/CLASS/*.png with
        PATH/test or PATH/val.
    data_dir : Path, optional
        As `data_folder`.
    test_split : float, optional
        Share of the images of PATH/CLASS/*.png to test on, as `read_folder`; sets with test images take none.
    layout : {"nchw", "nhwc"}, optional
        As for `read`; not for bundled and official sets.

    Raises
    ------
    ActrelaxError
        For an unknown name, a set that is neither there nor can be downloaded, or a file that is no data set.
    """
    if layout is not None and (is_folder(name) or name in ("digits", *ARCHIVES)):
        raise ActrelaxError(f"--layout is for .npz files of your own, {name} has its own layout: leave it out.")
    if is_folder(name):
        found = read_folder(Path(name), test_split)
        train, test = Split(*found.train), Split(*found.test)
        return Dataset(Path(name).name, len(found.names), train, test, names=found.names)
    if test_split is not None:
        raise ActrelaxError(f"--test-split is for sets without test images, {name} has some: leave it out.")
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
    """As `load`, for who trains on nothing: without a share, all images of PATH/CLASS/*.png are test images."""
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

    Images are uint8, or floats that are taken as they are: (n, features), (n, height, width), or with channels. Labels
    are integers from 0 to classes - 1, one per image, every one among the training labels.

    Parameters
    ----------
    path : Path
    layout : {"nchw", "nhwc"}, optional
        (n, channels, height, width) or (n, height, width, channels). Not needed if only one has 1 to 4 channels.

    Raises
    ------
    ActrelaxError
        For anything else, and for images with channels that fit both layouts or none.
    """
    if layout is not None:
        known("layout", layout, get_args(Layout))
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file.files}
    except FileNotFoundError as error:
        raise ActrelaxError(f"there is no file {path}: {_HELP}") from error
    except Exception as error:  # damaged bytes make NumPy and zipfile raise nearly anything
        raise ActrelaxError(f"{path} can't be read as a .npz file, it is damaged or something else: {_HELP}") from error
    if len(arrays) < len(KEYS):
        raise ActrelaxError(f"{path} lacks some of {', '.join(KEYS)}: {_HELP}")
    try:
        _check_labels(arrays)
        classes = int(arrays["y_train"].max()) + 1
        train, test = (
            _split(part, arrays[f"x_{part}"], arrays[f"y_{part}"], classes, layout) for part in ("train", "test")
        )
        if train.images.shape[1:] != test.images.shape[1:] or train.images.dtype != test.images.dtype:
            raise ActrelaxError(
                f"x_train and x_test must be alike but for their number, got {arrays['x_train'].dtype} "
                f"{arrays['x_train'].shape} and {arrays['x_test'].dtype} {arrays['x_test'].shape}."
            )
    except ActrelaxError as error:
        raise ActrelaxError(f"{path}: {error}") from error
    return Dataset(path.stem, classes, train, test)


_HELP = "a data set is a .npz of x_train, y_train, x_test and y_test, as numpy.savez writes it."


def _check_labels(arrays: Mapping[str, Array]) -> None:
    for key in ("y_train", "y_test"):
        labels = arrays[key]
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
            raise ActrelaxError(f"{key} must be integers of shape (n,), got {labels.dtype} {labels.shape}.")
    occurring = np.unique(arrays["y_train"]).tolist()
    if occurring[0] >= 0 and len(occurring) <= occurring[-1]:
        largest, missing = occurring[-1], next(i for i, label in enumerate(occurring) if label != i)
        raise ActrelaxError(
            f"y_train must have every label from 0 to its largest, got {largest} for the largest and no {missing}."
        )


def _split(part: str, x: Array, y: Array, classes: int, layout: Layout | None) -> Split:
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise ActrelaxError(
            f"x_{part} must be (n, features), (n, height, width) or with channels (--layout), got {x.shape}."
        )
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise ActrelaxError(f"x_{part} must be uint8 or floats, got {x.dtype}.")
    if len(x) != len(y):
        raise ActrelaxError(f"x_{part} and y_{part} must be equally many, got {len(x)} images and {len(y)} labels.")
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
        raise ActrelaxError(f"x_{part} must be finite, got nan or inf in image {finite.argmin()}.")
    if y.min() < 0 or y.max() >= classes:
        worst = y.min() if y.min() < 0 else y.max()
        raise ActrelaxError(f"labels must lie between 0 and {classes - 1}, y_train's largest; got {worst} in y_{part}.")
    x = _channels_first(part, x, layout)
    if x.dtype.kind == "f":  # also half and extended precision, and either byte order
        x = x.astype(np.float32 if x.dtype.itemsize <= 4 else np.float64)
    return Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)))


def _channels_first(part: str, x: Array, layout: Layout | None) -> Array:
    """Return images as (n, channels, height, width), and vectors as they are."""
    if x.ndim < 4:
        if layout is not None:
            raise ActrelaxError(f"--layout is for images with channels, got x_{part} of {x.shape}: leave it out.")
        return x[:, None] if x.ndim == 3 else x
    if layout is None:
        fits = {"nchw": x.shape[1] <= MOST_CHANNELS, "nhwc": x.shape[3] <= MOST_CHANNELS}
        if fits["nchw"] == fits["nhwc"]:
            raise ActrelaxError(
                f"x_{part} of {x.shape} may be (n, channels, height, width) or (n, height, width, channels): say which "
                "by --layout nchw or nhwc."
            )
        layout = "nchw" if fits["nchw"] else "nhwc"
    return x if layout == "nchw" else np.moveaxis(x, 3, 1)


def _official(dataset: Dataset, path: Path) -> Dataset:
    """Return an official set; refuse another one under its name."""
    archive = ARCHIVES[dataset.name]
    found = (len(dataset.train.images), len(dataset.test.images), dataset.input_shape, dataset.classes)
    if found != (archive.train, archive.test, archive.shape, archive.classes):
        raise ActrelaxError(
            f"{path} is not {dataset.name}: that has {archive.train} + {archive.test} images of shape {archive.shape} "
            f"in {archive.classes} classes, the file {found[0]} + {found[1]} of {found[2]} in {found[3]}: "
            "give it a name of its own."
        )
    return dataset
