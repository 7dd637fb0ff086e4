"""Options of the computation and measurement of a training run, which do not identify the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.hardware import Hardware, Machine, Precision
from actrelax.simulations.training.options import require
from actrelax.simulations.training.processes import ALONE, Processes


@dataclass(frozen=True)
class Execution(Machine):
    """Options of computation and measurement, which change a run's result only by rounding."""

    data_dir: Path | None = None
    """Folder of NAME.npz files, also for downloads. Default: $ACTRELAX_DATA, or else ./data."""
    compile: Literal["auto", "no", "trace", "inductor"] = "auto"
    """no; trace: record kernels in the first batch and replay them; inductor: torch.compile; auto: trace AR if
    possible."""
    processes: int | None = None
    """Number of processes that share each batch, which must be the number started by torchrun. Default: that number."""
    measure_alignment: int | None = None
    """Number of batches between measurements of the angle between AR's and backprop's updates; finished runs of a suite
    are not measured again. Default: no measurements."""

    watch: bool = False
    """Networks with cycles: write for each epoch how stable both phases are on eight fixed images, the share of images
    that had not settled, and the numbers of steps."""

    def hardware(self, precision: Precision) -> Hardware:
        """Return device, threads and precision, with `auto` and None replaced for this machine.

        Raises
        ------
        ActrelaxError
            If the device is unknown, missing, or can't compute in this precision.
        """
        return Hardware(self.device, self.threads, self.channels_last, precision).resolved()

    def resolved(self, experiment: Experiment, processes: Processes = ALONE) -> Execution:
        """Return the options with device, threads, processes and data folder resolved for this machine.

        Raises
        ------
        ActrelaxError
            If the device is not possible (see `hardware`), or the number of processes is not the actual one.
        """
        if self.processes not in (None, processes.count):
            raise ActrelaxError(
                f"the run needs --processes {self.processes}, got {processes.count}: start it with "
                f"torchrun --nproc-per-node={self.processes}."
            )
        threads = processes.threads if self.threads is None else self.threads
        hardware = replace(self, threads=threads).hardware(experiment.precision)
        return replace(
            self,
            device=hardware.device,
            threads=hardware.threads,
            processes=processes.count,
            data_dir=None if self.data_dir is None else self.data_dir.absolute(),
        )

    def check(self, experiment: Experiment) -> None:
        """Raise an error for values out of range, and for options that this experiment does not support."""
        require(measure_alignment=(self.measure_alignment, 1, math.inf))
        if experiment.is_continuous and (self.processes or 1) > 1:
            raise ActrelaxError("continuous plasticity needs a single process: start it without torchrun.")
        if self.measure_alignment and self.measuring(experiment) != self:
            raise ActrelaxError("--measure-alignment needs AR with plasticity at equilibrium: leave it out.")

    def measuring(self, experiment: Experiment) -> Execution:
        """Return the options without measurements of angles if the experiment has no angles."""
        has_angles = experiment.rule == "ar" and not experiment.is_continuous
        return self if has_angles else replace(self, measure_alignment=None)
