"""The bundled digits are what they are said to be."""

import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.datasets import digits


def test_digits():
    data = digits()
    assert data.x_train.shape == (1437, 1, 8, 8)
    assert data.x_test.shape == (360, 1, 8, 8)
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert (data.input_shape, data.classes, data.x_train.dtype) == ((1, 8, 8), 10, torch.float32)
    counts = torch.bincount(data.y_test)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_the_split_is_fixed_and_shares_no_image():
    first, second = digits(), digits()
    assert torch.equal(first.x_test, second.x_test)
    seen = {image.numpy().tobytes() for image in first.x_train}
    assert not any(image.numpy().tobytes() in seen for image in first.x_test)


def test_validation_comes_out_of_the_training_images():
    data = digits()
    held_out = data.validating(287)
    assert torch.equal(torch.cat([held_out.x_train, held_out.x_test]), data.x_train)
    assert torch.equal(torch.cat([held_out.y_train, held_out.y_test]), data.y_train)
    assert len(held_out.x_test) == 287
    for count in (0, -1, 1437):
        with pytest.raises(ActrelaxError, match=f"^validation must lie between 1 and 1436 images, got {count}\\.$"):
            data.validating(count)
