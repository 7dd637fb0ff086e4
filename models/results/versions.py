"""Versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version


def installed(*packages: str) -> dict[str, str]:
    """Return "python" and each package -> its version, as it is installed."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
