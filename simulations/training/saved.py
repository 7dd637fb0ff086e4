"""A trained run, loaded from its folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from actrelax.analysis.fingerprints import of_options, verify, verify_checkpoint
from actrelax.analysis.runs import BEST, CHECKPOINT, RunFolder
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.simulations.training.assemble import make_network
from actrelax.simulations.training.batches import Preprocessing
from actrelax.simulations.training.configuration import read_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.user_code import fingerprint, permitted


@dataclass(frozen=True)
class Run:
    """A run that was trained, or is being trained.

    folder      its files: `summary()`, `table("metrics")`
    experiment  the options that identify it
    execution   how it was computed
    network     with the weights of its last checkpoint, on the CPU
    module      the `nn.Sequential` whose Parameters the network shares, if it was made from one
    preprocess  stored images (batch, channels, height, width) -> the network's input
    names       of the classes, where a folder of images named them
    """

    folder: RunFolder
    experiment: Experiment
    execution: Execution
    network: Network
    module: nn.Module | None
    preprocess: Preprocessing
    names: tuple[str, ...] | None = None


def load_run(
    path: Path | str,
    *,
    best: bool = False,
    trust: bool = False,
    accept_changes: bool = False,
    network: str | None = None,
) -> Run:
    """Load a run from its folder (`actrelax train --out`), with the network of its last checkpoint, finished or not.

    Parameters
    ----------
    path : pathlib.Path or str
    best : bool, default False
        Load the network of the epoch with the best validation accuracy instead.
    trust : bool, default False
        Run the Python file that the run names as its network, which may do anything.
    accept_changes : bool, default False
        Load the run although its options, its network's files or its checkpoint changed since it was trained.
    network : str, optional
        FILE.py:FUNCTION, your own copy of that file: it needs no trust, and must be unchanged.

    Raises
    ------
    ActrelaxError
        If there is no run, it can't be read, or what it depends on changed; for a file that is not trusted.
    """
    folder = RunFolder(Path(path))
    experiment, execution = read_config(folder)
    place = permitted(folder.path, experiment.model.network, named=network, trust=trust)
    inputs = {**of_options(folder.training_config()["experiment"]), "files": fingerprint(place)}
    verify(folder, inputs, accept_changes=accept_changes)
    state = folder.checkpoint(best=best)
    if state is None and best:
        raise ActrelaxError(f"{path} has no best.pt: give --validation when it is trained.")
    if state is None:
        raise ActrelaxError(f"{path} has no checkpoint yet: let the run begin first.")
    verify_checkpoint(folder, state, BEST if best else CHECKPOINT, accept_changes=accept_changes)
    dtype = Hardware(precision=experiment.precision).dtype
    with folder.fitting():
        images = state["images"]
        shape, classes, names = tuple(images["shape"]), images["classes"], images.get("names")
        preprocess = Preprocessing(dtype, images["mean"], images["std"])
    made, module = make_network(replace(experiment.model, network=place), shape, classes, experiment.seed)
    with folder.fitting():
        made.to(dtype).load_state_dict(state["network"])
    return Run(folder, experiment, execution, made, module, preprocess, names)
