"""Folders of images, read as torchvision's ImageFolder reads them."""

import numpy as np
import pytest
import torch
from PIL import Image

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data import load
from actrelax.simulations.data.datasets import load_to_test


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Return a folder of three classes with ten grey images of 3 x 5 pixels, with values from 0 to 29."""
    for i in range(30):
        save(np.full((5, 3), i, np.uint8), tmp_path / "flowers" / ["aster", "lily", "rose"][i // 10] / f"{i:02}.png")
    return tmp_path / "flowers"


def refused(name, **options):
    with pytest.raises(ActrelaxError) as error:
        load(str(name), **options)
    return str(error.value)


def test_a_folder_per_class(folder):
    (folder / "aster" / "notes.txt").write_text("not an image")
    (folder / ".ipynb_checkpoints").mkdir()
    save(np.full((5, 3), 30, np.uint8), folder / "rose" / "deeper" / "30.PNG")
    save(np.full((5, 3), 99, np.uint8), folder / "rose" / ".hidden.png")
    data = load_to_test(f"{folder}/")
    assert (data.name, data.names, data.input_shape) == ("flowers", ("aster", "lily", "rose"), (1, 5, 3))
    assert data.test.images[:, 0, 0, 0].tolist() == list(range(31))
    assert data.test.labels.tolist() == [*[0] * 10, *[1] * 10, *[2] * 11]


def test_a_split_that_is_asked_for(folder):
    data = load(str(folder), test_split=0.2)
    values = [part.images[:, 0, 0, 0].tolist() for part in (data.train, data.test)]
    assert sorted(values[0] + values[1]) == list(range(30))
    assert torch.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert all(label == value // 10 for label, value in zip(data.test.labels.tolist(), values[1], strict=True))
    assert load(str(folder), test_split=0.2).test.images.equal(data.test.images)
    assert refused(folder).endswith("flowers has no test images: give --test-split 0.2, or put the classes into "
                                    f"{folder}/train and {folder}/test.")  # fmt: skip
    assert refused(folder, test_split=0.01).endswith("each of the 3 classes needs an image in both parts.")
    assert refused("digits", test_split=0.2) == (
        "--test-split is for sets without test images, but digits has some: leave it out."
    )


@pytest.mark.parametrize("name", ["test", "val"])
def test_parts_of_their_own(folder, name):
    """A class has the same label in both parts, even if one part lacks a class."""
    (folder / "train").mkdir()
    for of in ("aster", "lily", "rose"):
        (folder / of).rename(folder / "train" / of)
    save(np.full((5, 3, 3), (1, 2, 3), np.uint8), folder / name / "rose" / "a.png")
    data = load(str(folder))
    assert data.test.labels.tolist() == [2]
    assert data.test.images[0, :, 4, 2].tolist() == [1, 2, 3]  # a coloured image makes all of them coloured
    assert data.train.images[7, :, 0, 0].tolist() == [7, 7, 7]
    assert refused(folder, test_split=0.5).endswith("has some: leave it out.")
    (folder / name / "tulip").mkdir()
    assert refused(folder).endswith("tulip is not a class of the training images; known: aster, lily, rose.")


def test_kinds_of_images(tmp_path):
    """Grey ones stay grey, transparency is ignored, JPEG is read, too."""
    pixels = np.arange(12, dtype=np.uint8).reshape(4, 3)
    Image.fromarray(pixels).convert("LA").save((tmp_path / "a").mkdir() or tmp_path / "a" / "1.png")
    Image.fromarray(np.where(pixels < 6, 0, 255).astype(np.uint8)).convert("1").save(tmp_path / "a" / "2.png")
    Image.fromarray(np.full((4, 3), 77, np.uint8)).save(tmp_path / "a" / "3.jpeg")
    images = load_to_test(str(tmp_path)).test.images
    assert images[0, 0].equal(torch.from_numpy(pixels))
    assert images[1, 0, :2].unique().tolist() == [0]
    assert images[2].unique().tolist() == [77]
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "a" / "4.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "a" / "5.png")
    assert load_to_test(str(tmp_path)).input_shape == (3, 4, 3)
    Image.fromarray(pixels.astype(np.uint16)).save(tmp_path / "a" / "6.png")
    assert refused(tmp_path, test_split=1).endswith("6.png has pixels of type 'I;16': save it with 8 bits per channel.")


def test_what_is_no_folder_of_images(folder, tmp_path):
    assert refused("nix/") == "nix is no folder: a folder of images needs one folder per class, PATH/CLASS/*.png."
    assert "aster has no folders: a folder of images needs one folder per class" in refused(folder / "aster")
    save(np.zeros((7, 3), np.uint8), folder / "rose" / "z.png")
    assert refused(folder, test_split=0.5) == (
        f"images must have equal sizes, got 3 x 5 in {folder}/aster/00.png and 3 x 7 in {folder}/rose/z.png: "
        "resize them."
    )
    (folder / "lily" / "15.png").write_bytes(b"nothing")
    assert refused(folder, test_split=0.5).endswith("15.png is not a PNG or JPEG image, or is damaged: replace it.")
    whole = (folder / "aster" / "03.png").read_bytes()
    (folder / "aster" / "03.png").write_bytes(whole[:45])
    assert "03.png is not a PNG or JPEG image" in refused(folder, test_split=0.5)
    (folder / "empty").mkdir()
    assert "empty has no images: add PNG or JPEG files" in refused(folder, test_split=0.5)
