"""Data sets are read completely, and invalid files are refused in one sentence."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import datasets
from actrelax.simulations.data.datasets import digits, load, read
from actrelax.simulations.data.download import ARCHIVES

DATA = Path(os.environ.get("ACTRELAX_DATA", Path(__file__).resolve().parents[2] / "data"))


def test_digits():
    data = digits()
    assert data.train.images.shape == (1437, 1, 8, 8)
    assert data.test.images.shape == (360, 1, 8, 8)
    assert (data.train.images.min(), data.train.images.max()) == (0, 1)
    assert (data.input_shape, data.classes, data.train.images.dtype) == ((1, 8, 8), 10, torch.float32)
    counts = torch.bincount(data.test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    assert list(data.parts) == ["train", "test"]


def test_the_split_is_fixed_and_shares_no_image():
    first, second = digits(), digits()
    assert torch.equal(first.test.images, second.test.images)
    seen = {image.numpy().tobytes() for image in first.train.images}
    assert not any(image.numpy().tobytes() in seen for image in first.test.images)


def test_validation_comes_out_of_the_training_images():
    data = digits()
    held_out = data.holding_out(287)
    assert [len(part.labels) for part in held_out.parts.values()] == [1150, 287, 360]
    assert torch.equal(held_out.test.images, data.test.images)
    together = torch.cat([held_out.train.images, held_out.validation.images]).flatten(1)
    assert torch.equal(together.unique(dim=0), data.train.images.flatten(1).unique(dim=0))
    pairs = torch.cat([data.train.images.flatten(1), data.train.labels[:, None]], 1)
    held = torch.cat([held_out.validation.images.flatten(1), held_out.validation.labels[:, None]], 1)
    assert all((pairs == row).all(1).any() for row in held)
    assert torch.bincount(held_out.validation.labels).min() > 10  # not the tail of a sorted file
    assert torch.equal(data.holding_out(287).validation.images, held_out.validation.images)
    for count in (0, -1, 1437):
        with pytest.raises(ActrelaxError, match=f"^validation must lie between 1 and 1436 images, got {count}\\.$"):
            data.holding_out(count)


def test_training_images_are_chosen_at_random_in_their_order():
    data = digits()
    few = data.keeping(200)
    assert [len(part.labels) for part in few.parts.values()] == [200, 360]
    places = [int((data.train.images == image).flatten(1).all(1).nonzero()[0]) for image in few.train.images]
    assert places == sorted(places)
    assert places[100] > 300  # not the first ones
    assert torch.equal(few.train.labels, data.train.labels[places])
    assert torch.equal(data.keeping(1437).train.images, data.train.images)
    for count in (0, 1438):
        with pytest.raises(ActrelaxError, match=f"^train_images must lie between 1 and 1437, got {count}\\.$"):
            data.keeping(count)


def test_uint8_images_stay_as_they_are(npz, arrays):
    data = read(npz)
    assert (data.name, data.classes, data.input_shape) == ("tiny", 10, (1, 8, 8))
    assert data.train.images.dtype == torch.uint8
    assert np.array_equal(data.train.images[:, 0].numpy(), arrays["x_train"])
    assert data.test.labels.dtype == torch.int64
    assert np.array_equal(data.test.labels.numpy(), arrays["y_test"])


@pytest.mark.parametrize(
    ("shape", "expected"), [((7, 5, 3), (1, 5, 3)), ((7, 5, 4, 3), (3, 5, 4)), ((7, 6), (6,))], ids=str
)
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "float64", "uint8"])
def test_shapes_and_types(tmp_path, shape, expected, dtype):
    x = np.random.default_rng(0).uniform(0, 3, shape).astype(dtype)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(7, dtype=np.uint8) % 3, x_test=x, y_test=np.zeros(7, int))
    data = read(tmp_path / "a.npz")
    assert data.input_shape == expected
    values = np.moveaxis(data.train.images.numpy(), 1, -1) if len(shape) == 4 else data.train.images.numpy()
    assert np.array_equal(values.reshape(shape), x)
    kept = {"uint8": torch.uint8, "float64": torch.float64}.get(dtype, torch.float32)
    assert data.train.images.dtype == kept


@pytest.fixture
def with_channels(tmp_path):
    """Return a function that writes images of a given shape, and returns the file and the images."""

    def write(shape):
        x = np.random.default_rng(0).integers(0, 256, (7, *shape), dtype=np.uint8)
        path = tmp_path / "a.npz"
        np.savez(path, x_train=x, y_train=np.arange(7) % 3, x_test=x, y_test=np.arange(7) % 3)
        return path, x

    return write


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((3, 6, 5), None, (3, 6, 5)),
        ((6, 5, 3), None, (3, 6, 5)),
        ((1, 28, 28), None, (1, 28, 28)),
        ((3, 4, 3), "nchw", (3, 4, 3)),
        ((3, 4, 3), "nhwc", (3, 3, 4)),
        ((8, 6, 5), "nchw", (8, 6, 5)),
        ((8, 6, 5), "nhwc", (5, 8, 6)),
        ((3, 6, 5), "nhwc", (5, 3, 6)),
    ],
)
def test_channels_are_where_the_layout_says(with_channels, shape, layout, expected):
    path, x = with_channels(shape)
    data = load(str(path), layout=layout)
    assert data.input_shape == expected
    is_first = expected == shape if layout is None else layout == "nchw"
    assert np.array_equal(data.test.images.numpy(), x if is_first else x.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(3, 32, 3), (1, 4, 4), (8, 8, 8)])
def test_images_that_fit_two_layouts_or_none(with_channels, shape):
    path, x = with_channels(shape)
    with pytest.raises(ActrelaxError) as refused:
        read(path)
    assert str(refused.value) == (
        f"{path}: x_train of shape {x.shape} may be (n, channels, height, width) or (n, height, width, channels): "
        "give --layout nchw or nhwc."
    )


def test_a_layout_is_of_images_with_channels(with_channels):
    path, _ = with_channels((8, 8))
    with pytest.raises(ActrelaxError, match=r"images with channels, got x_train of shape \(7, 8, 8\): leave"):
        read(path, "nhwc")
    with pytest.raises(ActrelaxError, match=r"^--layout is for \.npz files, but digits has a fixed layout"):
        load("digits", layout="nchw")
    with pytest.raises(ActrelaxError, match=r"^unknown layout 'chw'; known: nchw, nhwc\.$"):
        read(path, "chw")


def replaced(**changes):
    """Return a function that replaces arrays of a file by new values, or by functions of the old ones."""

    def change(arrays):
        new = {key: value(arrays[key]) if callable(value) else value for key, value in changes.items()}
        return {key: value for key, value in (arrays | new).items() if value is not None}

    return change


def with_nan(x):
    x = x.astype(float)
    x[13, 2, 2] = np.nan
    return x


def with_label(value):
    def change(y):
        y = y.copy()
        y[3] = value
        return y

    return change


EVERY = "y_train must have every label from 0 to its largest,"
GIVE = "give at least one image with its label for training, and one for testing."
ARRAYS = "x_train must be (n, features), (n, height, width) or with channels (--layout), got"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (replaced(x_train=with_nan), "x_train must be finite, got nan or inf in image 13."),
        (replaced(y_test=with_label(10)), "labels must lie between 0 and 9, y_train's largest; got 10 in y_test."),
        (replaced(y_train=with_label(-1)), "labels must lie between 0 and 9, y_train's largest; got -1 in y_train."),
        (replaced(y_train=with_label(2**62)), f"{EVERY} got {2**62} for the largest and no 10."),
        (replaced(y_train=lambda y: with_label(2**64 - 1)(y.astype(np.uint64))), f"{EVERY} got {2**64 - 1} for the"),
        (replaced(y_train=lambda y: y + 1), f"{EVERY} got 10 for the largest and no 0."),
        (
            replaced(y_train=lambda y: y[:99]),
            "x_train and y_train must have equal lengths, got 100 images and 99 labels.",
        ),
        (replaced(x_test=lambda x: x[:30]), "x_test and y_test must have equal lengths, got 30 images and 40 labels."),
        (replaced(x_train=lambda x: x.astype(int)), "x_train must be uint8 or floats, got int64."),
        (replaced(x_train=lambda x: x[:, 0, 0]), f"{ARRAYS} (100,)."),
        (
            replaced(x_train=lambda x: x[:0], y_train=lambda y: y[:0]),
            f"x_train is empty, of shape (0, 8, 8): {GIVE}",
        ),
        (replaced(y_train=lambda y: y[:0]), f"y_train is empty, of shape (0,): {GIVE}"),
        (replaced(x_test=lambda x: x[:0]), f"x_test is empty, of shape (0, 8, 8): {GIVE}"),
        (replaced(y_test=lambda y: y[:0]), f"y_test is empty, of shape (0,): {GIVE}"),
        (replaced(x_train=lambda x: x[:, :0]), f"x_train is empty, of shape (100, 0, 8): {GIVE}"),
        (replaced(y_train=lambda y: y / 2), "y_train must be integers of shape (n,), got float64 (100,)."),
        (replaced(y_test=lambda y: y[:, None]), "y_test must be integers of shape (n,), got int64 (40, 1)."),
        (
            replaced(x_test=lambda x: x[:, :7]),
            "x_train and x_test must have the same dtype and image shape, got uint8 (100, 8, 8) and uint8 (40, 7, 8).",
        ),
        (
            replaced(x_test=lambda x: x / 255),
            "x_train and x_test must have the same dtype and image shape, got uint8 (100, 8, 8) and float64 "
            "(40, 8, 8).",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_are_no_data_set(tmp_path, arrays, change, sentence):
    path = tmp_path / "bad.npz"
    np.savez(path, **change(arrays))
    with pytest.raises(ActrelaxError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: {sentence}")


@pytest.mark.parametrize("content", ["missing", "empty", "truncated", "random", "text", "folder", "pickle", "lacking"])
def test_files_that_are_no_data_set(tmp_path, npz, arrays, content):
    path = tmp_path / "bad.npz"
    if content == "empty":
        path.write_bytes(b"")
    elif content == "truncated":
        path.write_bytes(npz.read_bytes()[:-2000])
    elif content == "random":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif content == "text":
        path.write_text("x_train,y_train\n1,2\n")
    elif content == "folder":
        path.mkdir()
    elif content == "pickle":
        np.savez(path, **arrays | {"x_train": np.array([{}, []], dtype=object)})
    elif content == "lacking":
        np.savez(path, **{key: value for key, value in arrays.items() if key != "y_test"})
    what = {
        "missing": f"{path} does not exist",
        "lacking": f"{path} lacks some of x_train, y_train, x_test, y_test",
    }.get(content, f"{path} is not a .npz file, or is damaged")
    with pytest.raises(ActrelaxError) as refused:
        read(path)
    help_ = "give a .npz file with x_train, y_train, x_test and y_test, written by numpy.savez."
    assert str(refused.value) == f"{what}: {help_}"


def test_every_damage_to_a_file_is_refused_or_harmless(npz):
    """A truncated file, or one changed byte, never raises another type of exception."""
    whole = npz.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= 255
        for content in (whole[: generator.integers(len(whole))], bytes(damaged)):
            npz.write_bytes(content)
            try:
                read(npz)
            except ActrelaxError:
                refused += 1
    assert refused > 80


def test_names(tmp_path, npz, monkeypatch):
    assert load("digits").name == "digits"
    assert load(str(npz)).name == "tiny"
    assert load("tiny", tmp_path).name == "tiny"
    monkeypatch.setenv("ACTRELAX_DATA", str(tmp_path))
    assert load("tiny").name == "tiny"
    with monkeypatch.context() as patched:
        patched.setenv("ACTRELAX_DATA", "")  # not the current directory
        assert datasets.data_folder(None) == Path("data")
    with pytest.raises(ActrelaxError) as refused:
        load("tinny")
    assert str(refused.value) == (
        "unknown dataset 'tinny'; known: digits, mnist, fashion-mnist, cifar10, cifar100, svhn, "
        f"a NAME.npz in {tmp_path}, the path of a .npz, or a folder/ of images."
    )


def test_another_set_is_never_taken_for_an_official_one(tmp_path, npz, monkeypatch):
    npz.rename(tmp_path / "svhn.npz")
    monkeypatch.setattr(datasets, "download", None)  # the file is there: nothing is downloaded
    with pytest.raises(ActrelaxError) as refused:
        load("svhn", tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / 'svhn.npz'} is not svhn, which has 73257 + 26032 images of shape (3, 32, 32) in 10 classes; "
        "the file has 100 + 40 of (1, 8, 8) in 10: give the file another name."
    )


@pytest.mark.parametrize("field", ["train", "test", "shape", "classes"])
def test_an_official_set_is_known_by_all_its_sizes(tmp_path, npz, monkeypatch, field):
    npz.rename(tmp_path / "svhn.npz")
    right = replace(ARCHIVES["svhn"], train=100, test=40, shape=(1, 8, 8), classes=10)
    monkeypatch.setitem(ARCHIVES, "svhn", right)
    assert load("svhn", tmp_path).name == "svhn"
    other = 11 if field == "classes" else getattr(ARCHIVES["mnist"], field)
    monkeypatch.setitem(ARCHIVES, "svhn", replace(right, **{field: other}))
    with pytest.raises(ActrelaxError, match="is not svhn, which has"):
        load("svhn", tmp_path)


@pytest.mark.parametrize("name", [*ARCHIVES, "svhn10k"])
def test_the_real_sets_where_they_are(name):
    if not (DATA / f"{name}.npz").exists():
        pytest.skip(f"{DATA} has no {name}.npz")
    data = load(name, DATA)
    assert data.name == name
    assert data.train.images.dtype == torch.uint8
    expected = (8001, 1999) if name == "svhn10k" else (ARCHIVES[name].train, ARCHIVES[name].test)
    assert (len(data.train.labels), len(data.test.labels)) == expected
    assert torch.bincount(data.train.labels).min() > 100
