"""Strict numerics: float64 everywhere, warnings as errors (pyproject.toml), one fixed seed per test."""

import gc

import _pytest.doctest
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

DOCTESTS = _pytest.doctest.DoctestModule


class PytestsOwnDoctests:
    """Plugin that restores pytest's doctest collector, which brian2 replaces by one that fails on packages."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_file(self):
        _pytest.doctest.DoctestModule = DOCTESTS


class WithDefect:
    """Plugin that applies one defect before tests are imported, and selects the tests that name it."""

    def __init__(self, name):
        from defects import DEFECTS

        if name not in DEFECTS:
            raise pytest.UsageError(f"unknown defect {name!r}; known: {', '.join(DEFECTS)}.")
        self.name = name
        DEFECTS[name].apply(pytest.MonkeyPatch())
        # failing examples need not be minimal, but must be reproducible
        settings.register_profile("defect", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
        settings.load_profile("defect")

    def pytest_collection_modifyitems(self, config, items):
        kept = [item for item in items if any(m.args == (self.name,) for m in item.iter_markers("catches"))]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_addoption(parser):
    parser.addoption("--defect", help="make this defect of tests/defects.py, and run the tests that should catch it")


def pytest_configure(config):
    config.pluginmanager.register(PytestsOwnDoctests())
    defect = config.getoption("--defect", default=None)
    if defect is not None:
        config.pluginmanager.register(WithDefect(defect))


@pytest.fixture(scope="module", autouse=True)
def _what_lives_is_not_searched():
    """Leave what earlier tests imported out of garbage collection: Brian2 and statsmodels collect at each call."""
    gc.collect()
    gc.freeze()


settings.register_profile("actrelax", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=30)
settings.load_profile("actrelax")


@pytest.fixture(autouse=True)
def double_precision():
    """Use double precision, since tests compare to 1e-10."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20260101)
