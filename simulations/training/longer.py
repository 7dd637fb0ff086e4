"""Going on with a run beyond the epochs that it was begun with."""

from __future__ import annotations

from pathlib import Path

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import hash_of
from actrelax.simulations.training.experiment import Experiment


def is_longer(path: Path, before: Experiment, epochs: int) -> bool:
    """Return whether a run in a folder shall have more epochs than before.

    Raises
    ------
    ActrelaxError
        For fewer epochs, for a schedule that has come to its end, and for the run of a suite, which knows it by them.
    """
    if epochs == before.epochs:
        return False
    if epochs < before.epochs:
        raise ActrelaxError(f"{path} is a run of {before.epochs} epochs, which --epochs can only add to, got {epochs}.")
    if before.optimisation.schedule == "cosine":
        raise ActrelaxError(
            f"the cosine schedule of {path} ends with its {before.epochs} epochs: begin another run with "
            f"--epochs {epochs}."
        )
    if path.resolve().name.endswith(f"-{hash_of(before)}"):
        raise ActrelaxError(
            f"{path} is a suite's run, which has {before.epochs} epochs: copy the folder and add --epochs to the copy."
        )
    return True
