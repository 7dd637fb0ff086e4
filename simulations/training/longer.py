"""Extension of a run by further epochs."""

from __future__ import annotations

from pathlib import Path

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import hash_of
from actrelax.simulations.training.experiment import Experiment


def is_longer(path: Path, before: Experiment, epochs: int) -> bool:
    """Return whether a run is extended to more epochs than before.

    Raises
    ------
    ActrelaxError
        For fewer epochs, for a linear or cosine schedule, whose length is fixed, or a suite's run, whose hash includes
        epochs.
    """
    if epochs == before.epochs:
        return False
    if epochs < before.epochs:
        raise ActrelaxError(f"--epochs must be at least {before.epochs}, the epochs of {path}, got {epochs}.")
    if before.optimisation.schedule in ("linear", "cosine"):
        raise ActrelaxError(
            f"the {before.optimisation.schedule} schedule of {path} ends after {before.epochs} epochs: start another "
            f"run with --epochs {epochs}."
        )
    if path.resolve().name.endswith(f"-{hash_of(before)}"):
        raise ActrelaxError(
            f"{path} is a suite's run of {before.epochs} epochs: copy the folder, and extend the copy with --epochs."
        )
    return True
