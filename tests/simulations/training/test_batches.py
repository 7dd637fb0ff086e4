"""Batches: order and augmentation depend only on seed and epoch; images become the network's input."""

import numpy as np
import pytest
import torch

from actrelax.simulations.data.datasets import digits, read
from actrelax.simulations.training.batches import PADDING, Batches, Preprocessing, flip_and_crop, normalisation


def batches(data=None, *, size=64, seed=0, augment="none"):
    return Batches(data or digits(), Preprocessing(torch.float32), size, seed, augment)


def joined(made, epoch, first=0):
    parts = list(made.epoch(epoch, first))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def test_every_image_comes_once_with_its_label():
    data = digits()
    made = batches(data)
    sizes = [len(y) for _, y in made.epoch(1)]
    assert len(made) == len(sizes) == 23
    assert sizes == [64] * 22 + [1437 - 22 * 64]
    x, y = joined(made, 1)
    assert not torch.equal(y, data.train.labels)
    pairs = [torch.cat([a.flatten(1), b[:, None]], 1).unique(dim=0) for a, b in ((x, y), data.train)]
    assert torch.equal(*pairs)


@pytest.mark.parametrize("augment", ["none", "flip,crop"])
def test_seed_and_epoch_fix_the_order_and_nothing_else_does(augment):
    x, y = joined(batches(augment=augment), 3)
    made = batches(augment=augment)
    torch.rand(5)  # another user of the global generator
    for epoch in (1, 2):
        assert not torch.equal(joined(made, epoch)[1], y)
    assert torch.equal(joined(made, 3)[0], x)
    assert not torch.equal(joined(batches(seed=1, augment=augment), 3)[1], y)
    assert torch.equal(joined(batches(size=10, augment=augment), 3)[0], x)
    assert torch.equal(joined(made, 3, first=20)[0], x[20 * 64 :])


def test_augmentation_does_not_change_the_order():
    assert torch.equal(joined(batches(), 1)[1], joined(batches(augment="flip,crop"), 1)[1])
    assert not torch.equal(joined(batches(), 1)[0], joined(batches(augment="flip,crop"), 1)[0])


def test_flip_and_crop_written_out():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (40, 3, 7, 5), dtype=torch.uint8, generator=generator)
    flips = torch.rand(40, generator=generator) < 0.5
    shifts = torch.randint(2 * PADDING + 1, (40, 2), generator=generator)
    made = flip_and_crop(images, flips, shifts)
    assert made.dtype == torch.uint8
    for image, flip, (top, left), got in zip(images.numpy(), flips, shifts.tolist(), made.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        cut = padded[:, top : top + 7, left : left + 5]
        assert np.array_equal(got, cut[:, :, ::-1] if flip else cut)
    assert flips.any()
    assert not flips.all()


def is_a_crop(image, of):
    """Return whether an image is a copy of another, shifted by up to 4 pixels."""
    padded = torch.nn.functional.pad(of, (PADDING,) * 4)
    return any(
        torch.equal(image, padded[:, top : top + 8, left : left + 8])
        for top in range(2 * PADDING + 1)
        for left in range(2 * PADDING + 1)
    )


@pytest.mark.parametrize(
    ("augment", "flipped", "cropped"),
    [("none", False, False), ("flip", True, False), ("crop", False, True), ("flip,crop", True, True)],
)
def test_augmentation_does_what_it_says_and_nothing_else(augment, flipped, cropped):
    plain, augmented = joined(batches(), 1)[0][:60], joined(batches(augment=augment), 1)[0][:60]
    both = joined(batches(augment="flip,crop"), 1)[0][:60]
    flips = sum(not is_a_crop(image, of) for image, of in zip(augmented, plain, strict=True))
    assert (flips > 10) == flipped
    assert all(is_a_crop(x, of) or is_a_crop(x, of.flip(2)) for x, of in zip(augmented, plain, strict=True))
    moved = sum(not (torch.equal(x, of) or torch.equal(x, of.flip(2))) for x, of in zip(augmented, plain, strict=True))
    assert (moved > 40) == cropped
    if not flipped and cropped:  # a seed has the same shifts with and without flips
        assert sum(torch.equal(a, b) for a, b in zip(augmented, both, strict=True)) > 10


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(50, 3, 4, 5), (50, 6)])
def test_normalisation(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, shape, generator=generator).to(dtype)
    scale = 255 if dtype == torch.uint8 else 1
    raw = images.double() / scale
    assert normalisation("none", images) is None
    plain = Preprocessing(torch.float64)(images)
    assert torch.allclose(plain, raw, rtol=1e-15)
    mean, std = normalisation("half", images)
    assert torch.allclose(Preprocessing(torch.float64, mean, std)(images), (raw - 0.5) / 0.5, rtol=1e-12)
    done = Preprocessing(torch.float64, *normalisation("channels", images))(images)
    over = (0, 2, 3) if len(shape) == 4 else (0, 1)
    assert done.mean(over).abs().max() < 1e-12
    assert (done.std(over, correction=0) - 1).abs().max() < 1e-12
    assert done.dtype == torch.float64


def test_a_channel_that_never_changes_stays_finite():
    images = torch.full((9, 2, 3, 3), 7, dtype=torch.uint8)
    images[:, 1] = torch.arange(9)[:, None, None].to(torch.uint8)
    mean, std = normalisation("channels", images)
    assert std[0] == 1
    assert torch.isfinite(Preprocessing(torch.float32, mean.float(), std.float())(images)).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_constant_channel_has_deviation_1_at_any_level(dtype):
    for level in range(256):
        images = torch.full((7, 1, 3, 3), level, dtype=torch.uint8).to(dtype)
        images = images if dtype == torch.uint8 else images / 255
        mean, std = normalisation("channels", images)
        assert std.item() == 1
        assert mean.item() == pytest.approx(level / 255, abs=1e-7)


def test_a_small_deviation_around_a_large_mean_keeps_its_digits():
    images = 1e6 + 1e-3 * torch.randn(50, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, std = normalisation("channels", images)
    assert std.item() == pytest.approx(images.std(correction=0).item(), rel=1e-6)


def test_one_pixel_is_what_it_is(npz, arrays):
    x, _ = next(iter(Batches(read(npz), Preprocessing(torch.float32), 100, 0).epoch(1)))
    assert x.dtype == torch.float32
    assert x.max() == arrays["x_train"].max() / 255 == 1
