"""Trained runs, loaded from their folders."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from actrelax.analysis.fingerprints import of_options, verify, verify_checkpoint
from actrelax.analysis.runs import BEST, CHECKPOINT, RunFolder
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.simulations.data.folders import is_folder
from actrelax.simulations.training.batches import Preprocessing
from actrelax.simulations.training.configuration import read_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.networks import make_network
from actrelax.simulations.training.user_code import fingerprint, permitted


@dataclass(frozen=True)
class Run:
    """Run that has been trained, or is being trained.

    folder       files of the run: `summary()`, `table("metrics")`
    experiment   options that determine the result
    execution    options of the computation
    network      network on the CPU in evaluation mode, with the weights and buffers of the last checkpoint
    module       `nn.Module` that shares its parameters with the network, if it was made from one
    preprocess   function of stored images, (batch, channels, height, width), that returns the network's input
    input_shape  shape of one stimulus
    classes      number of outputs
    names        names of the classes, if the data set is a folder of images
    """

    folder: RunFolder
    experiment: Experiment
    execution: Execution
    network: Network
    module: nn.Module | None
    preprocess: Preprocessing
    input_shape: tuple[int, ...]
    classes: int
    names: tuple[str, ...] | None = None

    def is_own(self, dataset: str | None) -> bool:
        """Return whether a data set is the run's, by name or by path; None is no data set."""
        return dataset is not None and _identified(dataset) == _identified(self.experiment.images.dataset)


def _identified(dataset: str) -> str:
    """Return the path of a file or folder, absolute and without links, and other names unchanged."""
    return os.path.realpath(dataset) if dataset.endswith(".npz") or is_folder(dataset) else dataset


def load_run(
    path: Path | str,
    *,
    best: bool = False,
    trust: bool = False,
    accept_changes: bool = False,
    network: str | None = None,
) -> Run:
    """Load a run, finished or not, from its folder (`actrelax train --out`), with the weights of its last checkpoint.

    Parameters
    ----------
    path : pathlib.Path or str
    best : bool, default False
        Load the network of the epoch with the best validation accuracy instead.
    trust : bool, default False
        Allow the Python file of the run's network to be executed, which may do anything.
    accept_changes : bool, default False
        Load the run even if its options, the network's files or the checkpoint have changed since training.
    network : str, optional
        Your copy of the network's file, as FILE.py:FUNCTION; it needs no trust, and must be unchanged.

    Raises
    ------
    ActrelaxError
        If the run is missing or unreadable, its inputs have changed, or its network's file is not trusted.
    """
    folder = RunFolder(Path(path))
    experiment, execution = read_config(folder)
    place = permitted(folder.path, experiment.model.network, named=network, trust=trust)
    inputs = {**of_options(folder.training_config()["experiment"]), "files": fingerprint(place)}
    verify(folder, inputs, accept_changes=accept_changes)
    state = folder.checkpoint(best=best)
    if state is None and best:
        raise ActrelaxError(f"{path} has no best.pt: train it with --validation.")
    if state is None:
        raise ActrelaxError(f"{path} has no checkpoint yet: wait until the run has begun.")
    verify_checkpoint(folder, state, BEST if best else CHECKPOINT, accept_changes=accept_changes)
    dtype = Hardware(precision=experiment.precision).dtype
    with folder.fitting():
        images = state["images"]
        shape, classes, names = tuple(images["shape"]), images["classes"], images.get("names")
        preprocess = Preprocessing(dtype, images["mean"], images["std"], shape=shape)
    made, module = make_network(replace(experiment.model, network=place), shape, classes, experiment.seed)
    with folder.fitting():
        made.to(dtype).load_state_dict(state["network"])
    made.eval()
    return Run(folder, experiment, execution, made, module, preprocess, shape, classes, names)
