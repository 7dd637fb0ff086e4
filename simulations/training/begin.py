"""Beginning or resuming a run in its folder: locks, checks and fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from actrelax.analysis.files import claimed
from actrelax.analysis.fingerprints import Fingerprints, of_options, record, verify
from actrelax.analysis.runs import RunFolder, flat
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import as_config, as_options, read_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.longer import is_longer
from actrelax.simulations.training.processes import Processes
from actrelax.simulations.training.recording import Recording
from actrelax.simulations.training.state import Training
from actrelax.simulations.training.user_code import fingerprint, permitted


def check_begin(folder: RunFolder, experiment: Experiment, execution: Execution, recording: Recording) -> bool:
    """Check that a run may begin or be resumed with these options, and return whether it gets more epochs.

    Raises
    ------
    ActrelaxError
        If it would replace a run, or resume one with other options.
    """
    if recording.resume is None:
        folder.check_begin(flat(as_config(experiment, execution)), None, overwrite=recording.overwrite)
        return False
    options = as_options(experiment) | as_options(execution)  # with those that config.json lacks at their defaults
    before, computed = read_config(folder)
    may_differ = ["epochs"]
    if recording.network is not None:
        permitted(folder.path, before.model.network, named=recording.network)
        may_differ.append("network")  # a copy, whose fingerprint is compared before it is loaded
    folder.check_begin(options, as_options(before) | as_options(computed), may_differ=may_differ)
    return is_longer(folder.path, before, experiment.epochs)


@contextmanager
def claimed_by_all(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """Claim the folder in the first process, on behalf of all; if it is refused, all raise the error."""
    refused = None
    with ExitStack() as stack:
        if processes.is_first:
            try:
                stack.enter_context(claimed(folder.path))
            except ActrelaxError as error:
                refused = str(error)
        if refused := processes.gathered(refused)[0]:
            raise ActrelaxError(refused)
        yield


def files_of(folder: RunFolder, experiment: Experiment, recording: Recording) -> dict[str, Mapping[str, str]]:
    """Return the fingerprints of options and files, before any user's file is executed.

    Raises
    ------
    ActrelaxError
        If the inputs of a resumed run have changed, or its network's file is not trusted.
    """
    files = fingerprint(experiment.model.network)
    if recording.resume is None:
        return {**of_options(as_config(experiment, Execution())["experiment"]), "files": files}
    options = folder.training_config()["experiment"]
    permitted(folder.path, options["network"], named=recording.network, trust=recording.trust)
    inputs = {**of_options(options), "files": files}
    verify(folder, inputs, accept_changes=recording.accept_changes)
    return inputs


def begin(folder: RunFolder, inputs: Fingerprints, config: Mapping[str, Any], processes: Processes) -> None:
    """Write the fingerprints of a new run, and finally its configuration, which marks it as begun."""
    if processes.is_first:
        folder.clear()
        record(folder, inputs)
        folder.write_config(config)


def go_on(folder: RunFolder, inputs: Fingerprints, epochs: int, training: Training) -> None:
    """Write the current fingerprints of a resumed run, and its new number of epochs.

    Raises
    ------
    ActrelaxError
        If the run gets more epochs after it was stopped early.
    """
    before, computed = read_config(folder)
    if epochs != before.epochs and training.is_over:
        raise ActrelaxError(
            f"{folder.path} stopped after epoch {training.epoch} because the validation accuracy did not improve: "
            "leave --epochs out, or start another run with a larger --patience."
        )
    if training.processes.is_first:
        record(folder, inputs)
        if epochs != before.epochs:
            folder.lengthen(as_config(replace(before, epochs=epochs), computed))
