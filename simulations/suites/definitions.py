"""All suites by name."""

from __future__ import annotations

from actrelax.simulations.suites.cnn import FURTHER
from actrelax.simulations.suites.depth import DEEP
from actrelax.simulations.suites.papers import PAPERS
from actrelax.simulations.suites.recurrent import RECURRENT
from actrelax.simulations.suites.suite import Suite

SUITES: dict[str, Suite] = {**PAPERS, **FURTHER, **DEEP, **RECURRENT}
"""Name -> suite, in the order of `actrelax reproduce list`."""
