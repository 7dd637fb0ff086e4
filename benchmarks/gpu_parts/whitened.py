"""ResNet-18 behind a fixed convolution that whitens patches of images, for `--network FILE.py:FUNCTION`."""

from collections.abc import Sequence

from torch import nn

from actrelax.models.network import build_module


def whitened_resnet18(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return the module; its filters are set from images by `trainings.whiten`, and are not learned."""
    channels, height, width = input_shape
    module = nn.Sequential()
    module.whitening = nn.Conv2d(channels, 8 * channels, 2, bias=False).requires_grad_(False)
    name = "resnet18" if height > 8 else "digits-resnet18"
    module.body = build_module(name, input_shape=(8 * channels, height - 1, width - 1), classes=classes)
    return module
