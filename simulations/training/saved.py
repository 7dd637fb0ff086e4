"""A trained run, loaded from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from actrelax.analysis.runs import RunFolder
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.simulations.training.assemble import make_network
from actrelax.simulations.training.batches import Preprocessing
from actrelax.simulations.training.configuration import read_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.hardware import Hardware


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


def load_run(path: Path | str, *, best: bool = False) -> Run:
    """Load a run from its folder (`actrelax train --out`), with the network of its last checkpoint, finished or not.

    Parameters
    ----------
    path : pathlib.Path or str
    best : bool, default False
        Load the network of the epoch with the best validation accuracy instead.

    Raises
    ------
    ActrelaxError
        If there is no run, or it can't be read.
    """
    folder = RunFolder(Path(path))
    experiment, execution = read_config(folder)
    state = folder.checkpoint(best=best)
    if state is None and best:
        raise ActrelaxError(f"{path} has no best.pt: give --validation when it is trained.")
    if state is None:
        raise ActrelaxError(f"{path} has no checkpoint yet: let the run begin first.")
    dtype = Hardware(precision=experiment.precision).dtype
    with folder.fitting():
        images = state["images"]
        shape, classes, names = tuple(images["shape"]), images["classes"], images.get("names")
        preprocess = Preprocessing(dtype, images["mean"], images["std"])
    network, module = make_network(experiment.model, shape, classes, experiment.seed)
    with folder.fitting():
        network.to(dtype).load_state_dict(state["network"])
    return Run(folder, experiment, execution, network, module, preprocess, names)
