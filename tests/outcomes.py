"""Reproducible outcome of a run, and differences between two outcomes, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from actrelax.analysis.runs import RunFolder


def outcome(folder: Path) -> dict[str, Any]:
    """Return the checkpoint without its times, and the tables as on disk."""
    state = RunFolder(folder).checkpoint()
    assert state is not None
    del state["position"]["seconds"], state["tables"]["timing"]
    tables = {
        name: (folder / name).read_bytes() for name in ("metrics.csv", "alignment.csv") if (folder / name).exists()
    }
    return {"checkpoint": state, **tables}


def differing(a: object, b: object, where: str = "run") -> list[str]:
    """Return the names of differing parts of two outcomes."""
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        return [found for key in a for found in differing(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in differing(*pair, f"{where}.{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    return [] if a == b or (a != a and b != b) else [where]


def is_drawn(path):
    """Return whether a file is a PNG image."""
    return path.read_bytes().startswith(b"\x89PNG")
