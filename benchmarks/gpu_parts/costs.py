"""What a training step costs: time, peak memory and images per second, each method beside backprop.

As in `actrelax bench`, whose steps these are; in an order in which what matters most comes first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from actrelax.simulations.costs.images import random_images
from actrelax.simulations.costs.memory import peak, step_peak
from actrelax.simulations.costs.methods import Method
from actrelax.simulations.costs.timing import Stepper, step_times
from actrelax.simulations.training.assemble import on_device
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.usual_images import usual_shape
from gpu_parts.items import Item, Options, Rows

BACKPROP, EQUILIBRIUM = Method("backprop"), Method("equilibrium")
EAGER = (BACKPROP, EQUILIBRIUM, Method("closed-form", 100), Method("stepped", 100))
ROUNDS, SECONDS = 12, 15.0
"""Turns of each method, and how long a measurement may go on taking turns."""
FEWEST = 3


def items(options: Options) -> list[Item]:
    """Return the measurements: networks by batches, and compiled at the larger batch."""
    if options.tiny:
        eager, compiled = [("digits-mlp", 8), ("digits-cnn", 8)], [("digits-mlp", 8)]
    else:
        eager = [("cnn", 512), ("cnn", 64), ("mlp", 512), ("mlp", 64), ("vgg8", 512), ("vgg8", 64)]
        compiled = [("cnn", 512), ("mlp", 512), ("vgg8", 512)]
        if options.long:
            eager += [("cnn", 2048), ("mlp", 2048), ("vgg8", 2048)]
            compiled += [("cnn", 2048)]
    # what is compiled comes after the same network's eager rows
    small = [(name, size, False) for name, size in eager[:2]] + [(name, size, True) for name, size in compiled[:1]]
    rest = [(name, size, False) for name, size in eager[2:]] + [(name, size, True) for name, size in compiled[1:]]
    return [_item(*row, options) for row in small + rest]


def _item(network: str, size: int, compiled: bool, options: Options) -> Item:
    name = f"{network}, batch {size}{', compiled' if compiled else ''}"
    return Item(name, lambda: measured(network, size, compiled, options))


def measured(network: str, size: int, compiled: bool, options: Options) -> Rows:
    """Return a row per method, backprop first."""
    base = Experiment(batch_size=size, model=Model(network), optimisation=Optimisation(lr=1e-6))
    # eager: AR is traced, as `actrelax train` does it by itself, and backprop is not
    execution = Execution(options.device, compile="inductor" if compiled else "auto").resolved(base)
    methods = (BACKPROP, EQUILIBRIUM) if compiled else EAGER
    data = on_device(random_images(usual_shape(network), 10, 4 * size), execution.hardware(base.precision))
    trainings = [method.training(base, execution, data) for method in methods]
    times = step_times(trainings, _turns(2 if options.tiny else ROUNDS))
    peaks: list[int | None]
    if not compiled:
        peaks = [peak(m, base, execution, data.input_shape, data.classes) for m in methods]
    elif options.device.startswith("cuda"):  # of the same trainings: others would be compiled anew
        peaks = [step_peak(Stepper(training), torch.device(options.device)) for training in trainings]
    else:
        peaks = [None] * len(methods)
    medians = [statistics.median(each) for each in times]
    return [
        {
            "network": network,
            "batch": size,
            "compiled": compiled,
            "method": method.name,
            "steps": method.steps,
            "milliseconds": 1e3 * median,
            "images_per_second": size / median,
            "speed_to_backprop": medians[0] / median,
            "peak_memory_bytes": memory,
        }
        for method, median, memory in zip(methods, medians, peaks, strict=True)
    ]


def _turns(most: int) -> Iterator[int]:
    """Count turns, until there are enough or they have taken too long."""
    start = time.monotonic()
    for number in range(most + 1):  # the first doesn't count
        if number > FEWEST and time.monotonic() - start > SECONDS:
            return
        yield number
