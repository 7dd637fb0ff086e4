"""Real images to learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from actrelax.models.errors import ActrelaxError


@dataclass(frozen=True)
class Dataset:
    """Images and labels, split into what is trained on and what is only reported.

    x_train, x_test  (n, channels, height, width), floats in [0, 1]
    y_train, y_test  (n,), integers from 0 to classes - 1
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.x_train.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.y_train.max()) + 1

    def validating(self, count: int) -> Dataset:
        """Hold out the last `count` training images in the test set's place: for tuning.

        Raises
        ------
        ActrelaxError
            If that leaves nothing on one of the sides.
        """
        if not 0 < count < len(self.x_train):
            raise ActrelaxError(f"validation must lie between 1 and {len(self.x_train) - 1} images, got {count}.")
        x, y = self.x_train, self.y_train
        return replace(self, x_train=x[:-count], y_train=y[:-count], x_test=x[-count:], y_test=y[-count:])


def digits() -> Dataset:
    """Load scikit-learn's bundled 8x8 handwritten digits: 1,437 images for training, 360 for testing.

    The split is fixed: stratified by class, by scikit-learn's `train_test_split` with random_state 0.
    """
    bundled = load_digits()
    images = (bundled.images / 16).astype(np.float32)[:, None]
    parts = train_test_split(images, bundled.target, test_size=360, stratify=bundled.target, random_state=0)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    return Dataset("digits", x_train, y_train, x_test, y_test)
