"""One network's costs: a row per method."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.costs.images import images_for
from actrelax.simulations.costs.memory import peak_in_own_process, unmeasurable
from actrelax.simulations.costs.methods import Method
from actrelax.simulations.costs.timing import WARM_UP, step_times
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment

Watch = Callable[[str, Sequence[Any]], Iterable[Any]]
"""(what is done, items) -> the same items, with progress shown."""


@dataclass(frozen=True)
class Row:
    """What one method costs; `as_json` is a row of ``actrelax bench --json``.

    auto                    whether the law says how many steps there are
    milliseconds            a step's median
    quartiles               the first and the third, in milliseconds
    peak_memory_bytes       beyond weights and images; None where it was not measured, as its ratio
    """

    network: str
    method: str
    steps: int | None
    auto: bool
    dataset: str
    batch_size: int
    milliseconds: float
    quartiles: tuple[float, float]
    ratio_to_backprop: float
    images_per_second: float
    peak_memory_bytes: int | None
    peak_memory_ratio: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the row with names of JSON's types."""
        return asdict(self) | {"quartiles": list(self.quartiles)}


@dataclass(frozen=True)
class Setting:
    """What is measured of each network.

    base      what all methods have in common; its network is replaced
    execution resolved
    methods   backprop first
    rounds    that count
    memory    whether peak memory is measured too
    dataset   by name or file; None for the images that a network usually takes
    data_dir  where files are
    """

    base: Experiment
    execution: Execution
    methods: Sequence[Method]
    rounds: int
    memory: bool = True
    dataset: str | None = None
    data_dir: Path | None = None


def measured(network: str, setting: Setting, watch: Watch, remark: Callable[[str], None]) -> list[Row]:
    """Measure a network by all methods.

    Parameters
    ----------
    network : str
    setting : Setting
    watch : callable
        (what is done, items) -> the items, with progress shown.
    remark : callable
        Is told what a reader should know beside the rows.

    Raises
    ------
    ActrelaxError
        For a network that there is not, or that does not fit its images, or has nothing that relaxes.
    """
    base = replace(setting.base, model=replace(setting.base.model, network=network))
    data = images_for(
        network, setting.dataset, setting.data_dir, base.batch_size, setting.execution.hardware(base.precision)
    )
    trainings = [method.training(base, setting.execution, data) for method in setting.methods]
    if not trainings[0].network.hidden:
        raise ActrelaxError(f"no population of {network} relaxes: take a network with hidden ones.")
    remark(f"{network} learns from {data.name}.")
    steps = [m.steps_taken(training) for m, training in zip(setting.methods, trainings, strict=True)]
    times = step_times(trainings, watch("rounds", range(WARM_UP + setting.rounds)))
    peaks: list[int | None] = [None] * len(times)
    reason = unmeasurable(setting.execution)
    if setting.memory and reason is not None:
        remark(reason)
    elif setting.memory:
        shape, classes = data.input_shape, data.classes
        for i, method in enumerate(watch("memory", setting.methods)):
            try:
                peaks[i] = peak_in_own_process(method, base, setting.execution, shape, classes)
            except ActrelaxError as error:  # the times that were measured are worth keeping
                remark(str(error))
    # by median: a step that the system interrupted says nothing about the method
    medians = [statistics.median(mine) for mine in times]
    return [
        Row(
            network=network,
            method=method.name,
            steps=count,
            auto=method.steps == "auto",
            dataset=data.name,
            batch_size=base.batch_size,
            milliseconds=1e3 * median,
            quartiles=_quartiles(mine),
            ratio_to_backprop=median / medians[0],
            images_per_second=base.batch_size / median,
            peak_memory_bytes=peak,
            peak_memory_ratio=None if peak is None or not peaks[0] else peak / peaks[0],
        )
        for method, count, mine, median, peak in zip(setting.methods, steps, times, medians, peaks, strict=True)
    ]


def _quartiles(seconds: Sequence[float]) -> tuple[float, float]:
    first, _, third = statistics.quantiles(seconds, n=4)
    return 1e3 * first, 1e3 * third
