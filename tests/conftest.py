"""Strict numerics: everything in float64, warnings are errors (pyproject.toml), one fixed seed a test."""

import _pytest.doctest
import pytest
import torch
from hypothesis import HealthCheck, settings

DOCTESTS = _pytest.doctest.DoctestModule


class PytestsOwnDoctests:
    """Importing brian2 puts a collector of its own in the place of pytest's, and that one fails on packages."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_file(self):
        _pytest.doctest.DoctestModule = DOCTESTS


def pytest_configure(config):
    config.pluginmanager.register(PytestsOwnDoctests())


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
