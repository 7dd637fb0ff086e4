"""The fingerprint of a data set changes only with its images and labels."""

from dataclasses import replace

import pytest
import torch

from actrelax.simulations.data import Dataset, Split
from actrelax.simulations.data.fingerprint import fingerprint, of_test_images


@pytest.fixture
def data():
    x = torch.arange(64.0).reshape(4, 1, 4, 4)
    return Dataset("some", 2, Split(x[:3], torch.tensor([0, 1, 0])), Split(x[3:], torch.tensor([1])))


def test_each_part_has_one(data):
    found = fingerprint(data)
    assert of_test_images(data) == {"images": {"test images": found["test images"]}}
    assert sorted(fingerprint(data.holding_out(1))) == ["test images", "training images", "validation images"]
    strided = data.train.images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    same = replace(data, name="other", train=Split(strided, data.train.labels))
    assert fingerprint(same) == found


@pytest.mark.parametrize("changed", ["image", "label", "shape", "type"])
def test_it_changes_with_the_data(data, changed):
    images, labels = (x.clone() for x in data.train)
    if changed == "image":
        images[2, 0, 3, 3] += 1
    elif changed == "label":
        labels[1] = 0
    elif changed == "shape":
        images = images.reshape(3, 1, 2, 8)
    else:
        images = images.view(torch.int32)
    before, after = fingerprint(data), fingerprint(replace(data, train=Split(images, labels)))
    assert [name for name in before if before[name] != after[name]] == ["training images"]
