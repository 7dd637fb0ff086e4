"""How a training run is computed and measured; none of it is part of what identifies the run."""

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
    """How a run is computed and measured; the result is the same, to rounding."""

    data_dir: Path | None = None
    """Where NAME.npz files are and go; $ACTRELAX_DATA unless given, or else ./data."""
    compile: Literal["auto", "no", "trace", "inductor"] = "auto"
    """trace: only run kernels from the second batch on; inductor: torch.compile; auto: trace for AR where possible."""
    processes: int | None = None
    """Processes that share each batch: as many as torchrun has started, another number is refused."""
    measure_alignment: int | None = None
    """Batches between two measurements of the angle between AR's and backprop's updates. The runs of a suite that are
    done already are not measured again."""

    def hardware(self, precision: Precision) -> Hardware:
        """Return device, threads and precision, with what this machine offers in place of `auto` and None.

        Raises
        ------
        ActrelaxError
            For a device that is not known or not there, or can't compute in this precision.
        """
        return Hardware(self.device, self.threads, self.channels_last, precision).resolved()

    def resolved(self, experiment: Experiment, processes: Processes = ALONE) -> Execution:
        """Return the same with what depends on this machine made definite: device, threads, processes, folder.

        Raises
        ------
        ActrelaxError
            As `hardware`; for another number of processes than there are.
        """
        if self.processes not in (None, processes.count):
            raise ActrelaxError(
                f"the run is one of --processes {self.processes}, and this is one of {processes.count}: start it with "
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
        """Refuse numbers out of range, and what this experiment can't have."""
        require(measure_alignment=(self.measure_alignment, 1, math.inf))
        if experiment.is_continuous and (self.processes or 1) > 1:
            raise ActrelaxError("continuous plasticity moves the weights of one process: start it without torchrun.")
        if self.measure_alignment and self.measuring(experiment) != self:
            raise ActrelaxError(
                "--measure-alignment compares AR's updates after a relaxation with backprop's: leave it out."
            )

    def measuring(self, experiment: Experiment) -> Execution:
        """Return the same without measurements of angles, where an experiment has none."""
        has_angles = experiment.rule == "ar" and not experiment.is_continuous
        return self if has_angles else replace(self, measure_alignment=None)
