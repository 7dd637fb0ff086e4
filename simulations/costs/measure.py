"""Costs of a network, one row per method, and the machine on which they were measured."""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from actrelax.analysis.summary import versions
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.costs.images import USUAL, Source, images_for
from actrelax.simulations.costs.memory import peak_in_own_process
from actrelax.simulations.costs.methods import Method
from actrelax.simulations.costs.timing import WARM_UP, step_times
from actrelax.simulations.data import Dataset
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.hardware import Hardware


@dataclass(frozen=True)
class Row:
    """Costs of one method, a row of ``actrelax bench --json``.

    auto                    True if the closed form determines the number of steps
    milliseconds            median time of a step
    quartiles               first and third quartile, in milliseconds
    peak_memory_bytes       memory beyond weights and images; None, like its ratio to backprop, if not measured
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


def measured(
    network: str,
    base: Experiment,
    execution: Execution,
    methods: Sequence[Method],
    rounds: int,
    memory: bool,
    source: Source = USUAL,
) -> list[Row]:
    """Measure a network with all methods; progress and remarks go to standard error.

    network     replaces the network in `base`, the options of all methods
    execution   resolved execution options
    methods     methods, backprop first
    rounds      number of measured rounds, after a warm-up
    memory      also measure peak memory
    source      source of the images; by default the network's usual data set

    Raises
    ------
    ActrelaxError
        For an unknown network, one that does not fit its images, or one without hidden populations.
    """
    base = replace(base, model=replace(base.model, network=network))
    data = images_for(network, source, base.batch_size, execution.hardware(base.precision))
    trainings = [methods[0].training(base, execution, data)]
    reasons = {method: method.misfit(trainings[0].network) for method in methods}
    for name, reason in dict.fromkeys((method.name, reason) for method, reason in reasons.items() if reason):
        if name != "unrolled":  # which --help says is for networks with cycles
            remark(f"{name} is left out for {network}, which {reason}.")
    methods = [method for method, reason in reasons.items() if reason is None]
    trainings += [method.training(base, execution, data) for method in methods[1:]]
    if not trainings[0].network.hidden:
        raise ActrelaxError(f"{network} has no hidden population to relax: take a deeper network.")
    remark(f"{network} learns from {data.name}.")
    steps = [method.steps_taken(training) for method, training in zip(methods, trainings, strict=True)]
    times = step_times(trainings, _watched(range(WARM_UP + rounds), desc=f"{network}, rounds"))
    peaks = _peaks(network, base, execution, methods, data) if memory else [None] * len(methods)
    # the median, because the system may interrupt single turns
    backprop = statistics.median(times[0])
    rows = []
    for method, count, mine, peak in zip(methods, steps, times, peaks, strict=True):
        first, median, third = statistics.quantiles(mine, n=4)
        rows.append(
            Row(
                network=network,
                method=method.name,
                steps=count,
                auto=method.steps == "auto",
                dataset=data.name,
                batch_size=base.batch_size,
                milliseconds=1e3 * median,
                quartiles=(1e3 * first, 1e3 * third),
                ratio_to_backprop=median / backprop,
                images_per_second=base.batch_size / median,
                peak_memory_bytes=peak,
                peak_memory_ratio=None if peak is None or not peaks[0] else peak / peaks[0],
            )
        )
    return rows


def _peaks(
    network: str, base: Experiment, execution: Execution, methods: Sequence[Method], data: Dataset
) -> list[int | None]:
    """Return the peak memory of each method, in bytes; None where it can't be measured, with a remark."""
    peaks: list[int | None] = [None] * len(methods)
    if execution.device == "mps":
        remark("peak memory is left out: PyTorch does not count it on mps.")
        return peaks
    for i, method in enumerate(_watched(methods, desc=f"{network}, memory")):
        try:
            peaks[i] = peak_in_own_process(method, base, execution, data.input_shape, data.classes)
        except ActrelaxError as error:  # keep the measured times
            remark(str(error))
    return peaks


_watched = partial(tqdm, leave=False, disable=None)
"""Progress bar that vanishes at its end, on terminals only."""


def machine(hardware: Hardware, compiled: str) -> dict[str, Any]:
    """Return hardware, software and settings that influence costs, ready for JSON."""
    on_gpu = hardware.device.startswith("cuda")
    return {
        "device": hardware.device,
        "name": torch.cuda.get_device_name(hardware.device) if on_gpu else _processor(),
        "cores": os.cpu_count(),
        "threads": hardware.threads,
        "precision": hardware.precision,
        "channels_last": hardware.channels_last,
        "compile": compiled,
        "system": platform.platform(),
        "versions": versions(),
    }


def _processor() -> str:
    """Return the name of the processor, from /proc/cpuinfo or else from Python."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def remark(text: str) -> None:
    """Print a remark to standard error."""
    print(text, file=sys.stderr)
