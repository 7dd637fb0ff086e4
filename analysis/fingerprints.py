"""SHA-256 fingerprints of a run's inputs: recorded in its folder, and compared when the run is used again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from actrelax.analysis.files import write_text
from actrelax.analysis.runs import BEST, CHECKPOINT, CONFIG, FINGERPRINTS, RunFolder
from actrelax.models.errors import ActrelaxError

Fingerprints = Mapping[str, Mapping[str, str]]
"""Part -> name -> SHA-256. A run has the parts `options`, `files`, `images` and, once it has finished, `weights`."""
NAMED_BY = {"files": ("network",), "images": ("dataset", "test_split", "layout", "validation", "train_images")}
"""Part -> the options that choose its files or images."""
MISSING = "missing"
"""Replaces the SHA-256 of a missing file."""


def of_file(path: Path) -> str:
    """Return a file's SHA-256, or `MISSING`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return MISSING


def record(folder: RunFolder, found: Fingerprints) -> None:
    """Write the fingerprints of a run into its folder.

    Raises
    ------
    ActrelaxError
        If the file can't be written.
    """
    write_text(folder.path / FINGERPRINTS, f"{json.dumps(found, indent=2)}\n")


def recorded(folder: RunFolder) -> dict[str, dict[str, str]] | None:
    """Return a run's recorded fingerprints; None if it has none.

    Raises
    ------
    ActrelaxError
        If the file can't be read.
    """
    path = folder.path / FINGERPRINTS
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(names, dict) for names in found.values()):
        raise ActrelaxError(f"{folder.path} holds no fingerprints: {FINGERPRINTS} can't be read.")
    return found


def of_values(values: Any) -> str:
    """Return the SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def of_options(options: Mapping[str, Any]) -> Fingerprints:
    """Return the fingerprint of the options that determine a run's result, except the number of epochs."""
    return {"options": {CONFIG: of_values({name: value for name, value in options.items() if name != "epochs"})}}


def of_weights(folder: RunFolder) -> Fingerprints:
    """Return the fingerprints of a run's checkpoint and, if it has one, of its best network."""
    found = {name: of_file(folder.path / name) for name in (CHECKPOINT, BEST)}
    return {"weights": {name: value for name, value in found.items() if value != MISSING}}


def identity(found: Fingerprints) -> str:
    """Return the mark of a run's checkpoints: the SHA-256 of all fingerprints but the weights'."""
    return of_values({part: names for part, names in found.items() if part != "weights"})


def verify_checkpoint(
    folder: RunFolder, state: Mapping[str, Any], name: str = CHECKPOINT, *, accept_changes: bool = False
) -> None:
    """Refuse a checkpoint from another run, or, once the run has finished, one that has changed since.

    `state` is the content of the file `name`; with `accept_changes` nothing is refused.

    Raises
    ------
    ActrelaxError
        If the checkpoint is refused.
    """
    if accept_changes:
        return
    before = recorded(folder) or {}
    if state.get("run") != identity(before):
        raise ActrelaxError(
            f"{folder.path / name} belongs to another run: start the run again, or pass --accept-changes "
            "(accept_changes=True in Python)."
        )
    if "weights" in before:
        verify(folder, {"weights": {name: of_file(folder.path / name)}})


def verify(folder: RunFolder, found: Fingerprints, *, accept_changes: bool = False) -> None:
    """Refuse inputs that have changed since the run in a folder was trained.

    Parameters
    ----------
    folder : RunFolder
    found : mapping
        Current fingerprints; parts and names that it lacks are not compared.
    accept_changes : bool, default False
        Refuse nothing.

    Raises
    ------
    ActrelaxError
        If something has changed, or the run has no fingerprints.
    """
    if accept_changes:
        return
    before = recorded(folder)
    if before is None:
        raise ActrelaxError(
            f"{folder.path} has no fingerprints to compare its inputs with: start the run again, or pass "
            "--accept-changes (accept_changes=True in Python)."
        )
    changed = [
        name
        for part, names in found.items()
        for name, fingerprint in names.items()
        if before.get(part, {}).get(name) != fingerprint
    ]
    if changed:
        raise ActrelaxError(
            f"{', '.join(changed)} changed since the run in {folder.path} was trained: undo the change, or pass "
            "--accept-changes (accept_changes=True in Python)."
        )


def verify_alike(folders: Iterable[RunFolder], *, accept_changes: bool = False) -> None:
    """Refuse runs whose options name the same network or data set, but whose files or images differ.

    Folders without a run, and runs without fingerprints, are skipped.

    Raises
    ------
    ActrelaxError
        If the contents differ.
    """
    if accept_changes:
        return
    first: dict[tuple[str, ...], tuple[RunFolder, str]] = {}
    for folder in (folder for folder in folders if folder.is_begun()):
        options, before = folder.training_config()["experiment"], recorded(folder) or {}
        verify(folder, of_options(options) if before else {}, accept_changes=not before)
        for part, named_by in NAMED_BY.items():
            for name, fingerprint in before.get(part, {}).items():
                key = (part, name, *(str(options.get(option)) for option in named_by))
                other, expected = first.setdefault(key, (folder, fingerprint))
                if fingerprint != expected:
                    raise ActrelaxError(
                        f"{other.path} and {folder.path} were trained with different contents of {name}: "
                        "compare runs with the same contents, or pass --accept-changes."
                    )
