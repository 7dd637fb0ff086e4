"""Strict numerics: everything in float64, warnings are errors (pyproject.toml), one fixed seed a test."""

import _pytest.doctest
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

DOCTESTS = _pytest.doctest.DoctestModule


class PytestsOwnDoctests:
    """Importing brian2 puts a collector of its own in the place of pytest's, and that one fails on packages."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_file(self):
        _pytest.doctest.DoctestModule = DOCTESTS


class WithDefect:
    """The package with one defect, from before its tests are imported, and of the tests those that name it."""

    def __init__(self, name):
        from defects import DEFECTS

        if name not in DEFECTS:
            raise pytest.UsageError(f"unknown defect {name!r}; known: {', '.join(DEFECTS)}.")
        self.name = name
        DEFECTS[name].apply(pytest.MonkeyPatch())
        # which example fails need not be the smallest, but must be the same each time
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
