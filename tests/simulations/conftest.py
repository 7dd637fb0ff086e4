"""Simulations are tested as they run: in single precision, on one thread."""

import numpy as np
import pytest
import torch

from actrelax.simulations.data import digits


@pytest.fixture(autouse=True)
def as_users_run(double_precision):
    torch.set_default_dtype(torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def arrays():
    """A hundred real digits as a .npz file holds them: uint8, (n, height, width)."""
    data = digits()
    x = (data.train.images[:140, 0] * 255).round().numpy().astype(np.uint8)
    y = data.train.labels[:140].numpy()
    return {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:], "y_test": y[100:]}


@pytest.fixture
def npz(tmp_path, arrays):
    """The path of such a file."""
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays)
    return path
