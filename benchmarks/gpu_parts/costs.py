"""Costs of a training step by method: time, peak memory and images per second.

The steps are those of `actrelax bench`; the most important measurements come first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from actrelax.models.network import MODULES
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
CAPTURED = (BACKPROP, EQUILIBRIUM, Method("front-door"))
"""Of networks that are captured: they have a closed form only at equilibrium."""
ROUNDS, SECONDS = 12, 15.0
"""Number of turns of each method, and time limit of a measurement in seconds."""
FEWEST = 3


def items(options: Options) -> list[Item]:
    """Return the measurements: all networks and batch sizes, and compiled networks at the larger batch size."""
    if options.tiny:
        eager, compiled = [("digits-mlp", 8), ("digits-resnet-8", 8)], [("digits-mlp", 8)]
    else:
        eager = [("cnn", 512), ("cnn", 64), ("mlp", 512), ("mlp", 64), ("vgg8", 512), ("vgg8", 64)]
        eager += [("resnet18", 512), ("resnet18", 64)]
        compiled = [("cnn", 512), ("mlp", 512), ("vgg8", 512)]
        if options.long:
            eager += [("cnn", 2048), ("mlp", 2048), ("vgg8", 2048), ("resnet18", 2048)]
            compiled += [("cnn", 2048)]
    # compiled rows follow the eager rows of the same network
    small = [(name, size, False) for name, size in eager[:2]] + [(name, size, True) for name, size in compiled[:1]]
    rest = [(name, size, False) for name, size in eager[2:]] + [(name, size, True) for name, size in compiled[1:]]
    return [_item(*row, options) for row in small + rest]


def _item(network: str, size: int, compiled: bool, options: Options) -> Item:
    name = f"{network}, batch {size}{', compiled' if compiled else ''}"
    return Item(name, lambda: measured(network, size, compiled, options))


def measured(network: str, size: int, compiled: bool, options: Options) -> Rows:
    """Return one row per method, backprop first."""
    base = Experiment(batch_size=size, model=Model(network), optimisation=Optimisation(lr=1e-6))
    # eager: AR is traced, the default of `actrelax train`, and backprop is not
    execution = Execution(options.device, compile="inductor" if compiled else "auto").resolved(base)
    methods = (BACKPROP, EQUILIBRIUM) if compiled else CAPTURED if network in MODULES else EAGER
    data = on_device(random_images(usual_shape(network), 10, 4 * size), execution.hardware(base.precision))
    trainings = [method.training(base, execution, data) for method in methods]
    times = step_times(trainings, _turns(2 if options.tiny else ROUNDS))
    peaks: list[int | None]
    if not compiled:
        peaks = [peak(m, base, execution, data.input_shape, data.classes) for m in methods]
    elif options.device.startswith("cuda"):  # reuse the trainings, since new ones would be compiled again
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
    """Yield turn numbers up to `most`, or until the time limit is reached after at least FEWEST turns."""
    start = time.monotonic()
    for number in range(most + 1):  # turn 0 is warm-up
        if number > FEWEST and time.monotonic() - start > SECONDS:
            return
        yield number
