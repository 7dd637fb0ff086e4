"""What images and labels a data set has, by SHA-256."""

from __future__ import annotations

import hashlib

from actrelax.simulations.data.datasets import Dataset, Split

PARTS = {"train": "training", "validation": "validation", "test": "test"}


def fingerprint(data: Dataset) -> dict[str, str]:
    """Return part -> SHA-256 of its images and labels, as they are loaded, before they are moved to a device."""
    return {f"{PARTS[name]} images": _digest(part) for name, part in data.parts.items()}


def of_test_images(data: Dataset) -> dict[str, dict[str, str]]:
    """Return the fingerprint of the test images alone, as part of a run's."""
    return {"images": {"test images": _digest(data.test)}}


def _digest(part: Split) -> str:
    digest = hashlib.sha256()
    for tensor in part:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
