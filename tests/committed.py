"""Committed results."""

import subprocess
from pathlib import Path

import pytest

from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.learning_rates import own_rates
from actrelax.simulations.suites.suite import Suite

RESULTS = Path(__file__).resolve().parents[1] / "results"


def carried_out() -> dict[str, Suite]:
    """Return folder -> suite for all suites with results, including those with individual learning rates."""
    own = {
        f"{name}-own-rates": own_rates(name, suite, RESULTS / f"{name}-rates")
        for name, suite in SUITES.items()
        if (RESULTS / f"{name}-own-rates").exists()
    }
    return {name: suite for name, suite in (SUITES | own).items() if (RESULTS / name / "runs.csv").exists()}


CARRIED_OUT = carried_out()


def skip_under_way():
    """Skip the test if results differ from the committed ones, because a suite may be running."""
    asked = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", RESULTS], cwd=RESULTS, capture_output=True, check=False
    )
    if asked.returncode == 1:
        pytest.skip("results are being added to")
