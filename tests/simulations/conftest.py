"""Tests of simulations run in single precision, on one thread, as the programs do."""

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
    """Return a hundred real digits as arrays of a .npz file: uint8, (n, height, width)."""
    data = digits()
    x = (data.train.images[:140, 0] * 255).round().numpy().astype(np.uint8)
    y = data.train.labels[:140].numpy()
    return {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:], "y_test": y[100:]}


@pytest.fixture
def npz(tmp_path, arrays):
    """Return the path of a .npz file with these digits."""
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays)
    return path
