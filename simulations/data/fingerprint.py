"""SHA-256 fingerprints of the images and labels of a data set."""

from __future__ import annotations

import hashlib

from actrelax.simulations.data.datasets import Dataset, Split

PARTS = {"train": "training", "validation": "validation", "test": "test"}


def fingerprint(data: Dataset) -> dict[str, str]:
    """Return part -> SHA-256 of its images and labels."""
    return {f"{PARTS[name]} images": _digest(part) for name, part in data.parts.items()}


def of_test_images(data: Dataset) -> dict[str, dict[str, str]]:
    """Return the fingerprint of the test images, in the format of a run's fingerprints."""
    return {"images": {"test images": _digest(data.test)}}


def _digest(part: Split) -> str:
    digest = hashlib.sha256()
    for tensor in part:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
