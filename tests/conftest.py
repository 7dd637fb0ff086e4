"""Strict numerics: everything in float64, warnings are errors (pyproject.toml), one fixed seed a test."""

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("actrelax", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=30)
settings.load_profile("actrelax")


@pytest.fixture(autouse=True)
def double_precision():
    """Tests compare to 1e-10; single precision can't."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20260101)
