"""Measure the cost of a training step by backprop, by AR's closed form and by stepping, side by side in one run.

The measured time is a complete step of `actrelax train`: gather and preprocess a batch of stored images, compute
gradients, update weights and learning rate, and count loss and correct answers. Methods take turns of three steps; the
table has the median time per step and its ratio to backprop:

    backprop     this package's baseline, autograd through the network
    autograd     F.cross_entropy(network(x), y).backward() in plain PyTorch
    closed-form  AR, sequential, eta 0.1: all steps at once; "auto": as many steps as settle to a tolerance of 1e-6
    equilibrium  AR at equilibrium
    stepped      AR, step by step
    front-door   AR at equilibrium, by F.cross_entropy(ActivationRelaxation(network)(x), y).backward(); never compiled
    unrolled     networks with cycles: autograd through the steps of the forward phase

On networks with cycles backprop is implicit differentiation of settled rates; stepped and unrolled take the same number
of forward steps, stepped as many again for its relaxation.

Peak memory is measured in a separate process for each method, beyond weights and images. Prints a table, or with
--json

    {"machine": {...}, "rows": [{"network", "method", "steps", "ratio_to_backprop", "peak_memory_ratio", ...}, ...]}

With --out, draws the costs against the number of steps and, for MLPs of several depths, against depth.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from actrelax.analysis import figures
from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import build
from actrelax.simulations.costs.images import Source
from actrelax.simulations.costs.measure import Row, machine, measured, remark
from actrelax.simulations.costs.methods import NAMES, Method, chosen
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Optimisation
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.options import require

FIGURE = "costs.png"
STEPPED_UP_TO = 100
"""Largest default number of steps for the method "stepped"."""
LR = 1e-6
"""Learning rate so small that weights hardly change, so that all methods do the same work."""


@dataclass(frozen=True)
class Config:
    """Options of the measurement."""

    networks: tuple[str, ...] = ("mlp", "cnn")
    """Networks by name, such as mlp, cnn, vgg8, mlp-DEPTHxWIDTH."""
    methods: tuple[str, ...] = NAMES
    """Methods: backprop (always measured), autograd, closed-form, equilibrium, stepped, front-door,
    unrolled."""
    steps: tuple[int, ...] = (10, 100, 1000)
    """Numbers of steps for closed-form."""
    stepped: tuple[int, ...] | None = None
    """Numbers of steps for stepped and unrolled. Default: the values of --steps up to 100."""
    start: Literal["feedforward", "zero"] = "feedforward"
    """Initial state for closed-form and stepped."""
    batch_size: int = 64
    """Number of images per batch."""
    rounds: int = 20
    """Number of turns of each method, with three measured steps per turn; 5 or more."""
    memory: bool = True
    """Also measure peak memory, which takes some seconds per method."""
    dataset: str | None = None
    """Data set, as for `actrelax train`. Default: MNIST, CIFAR-10 or the digits, by the network's input size, if the
    file is found; otherwise random images."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Order of dimensions in a .npz of images with channels, as for `actrelax train`. Default: inferred."""
    data_dir: Path | None = None
    """Folder of NAME.npz files. Default: $ACTRELAX_DATA, or else ./data."""
    compile: Literal["auto", "no", "trace", "inductor"] = "auto"
    """Compilation, as for `actrelax train`: auto traces AR but not backprop. autograd and front-door are never
    compiled."""
    hardware: Hardware = field(default_factory=Hardware)
    out: Path | None = None
    """Folder for the figure. Default: no figure."""
    json: bool = False
    """Print only JSON on standard output."""


def main(config: Config) -> None:
    """Measure the costs, print them, and draw them if --out is given."""
    base, execution, methods = resolved(config)
    for sentence in idle(config):
        remark(sentence)
    how = config.rounds, config.memory, Source(config.dataset, config.data_dir, config.layout)
    rows = [row for network in networks(config) for row in measured(network, base, execution, methods, *how)]
    if config.json:
        used = machine(execution.hardware(base.precision), execution.compile)
        print(json.dumps({"machine": used, "rows": [asdict(row) for row in rows]}))
    else:
        print_table(rows)
    if config.out is None:  # the figure comes last, so that results are printed even if drawing fails
        return
    if not (by_steps(rows) or by_depth(rows)):
        remark("no figure was drawn: it needs a method with a number of steps, or MLPs of several depths.")
        return
    draw(config.out / FIGURE, rows)
    if not config.json:
        print(f"\nfigure: {config.out / FIGURE}")


def networks(config: Config) -> list[str]:
    """Return the distinct networks, after checking all names."""
    if not config.networks:
        raise ActrelaxError("--networks needs one or more names, got none.")
    for name in config.networks:
        if ":" not in name:
            build(name)
    return list(dict.fromkeys(config.networks))


def resolved(config: Config) -> tuple[Experiment, Execution, list[Method]]:
    """Return the options shared by all methods, and the methods.

    Raises
    ------
    ActrelaxError
        If the options are not possible.
    """
    stepped = config.stepped
    if stepped is None:
        stepped = tuple(count for count in config.steps if count <= STEPPED_UP_TO)
    require(rounds=(config.rounds, 5, math.inf))
    for option, counts in {"steps": config.steps, "stepped": stepped}.items():
        for count in counts:
            require(**{option: (count, 1, math.inf)})
    for name in config.methods:
        known("method", name, NAMES)
    hardware = config.hardware
    experiment = Experiment(
        batch_size=config.batch_size, precision=hardware.precision, optimisation=Optimisation(lr=LR)
    )
    experiment.check()
    execution = Execution(hardware.device, hardware.threads, hardware.channels_last, compile=config.compile)
    return experiment, execution.resolved(experiment), chosen(config.methods, config.steps, stepped, config.start)


def idle(config: Config) -> Iterator[str]:
    """Yield a sentence on each option without an effect."""
    stepping = {"stepped", "unrolled"} & set(config.methods)
    takes_steps = "closed-form" in config.methods or (stepping and config.stepped is None)
    if config.steps != Config.steps and not takes_steps:
        yield "--steps has no effect: none of the methods takes its numbers of steps."
    if config.start != Config.start and not {"closed-form", "stepped"} & {*config.methods}:
        yield "--start has no effect: none of the methods starts there."
    if config.stepped is not None and not stepping:
        yield "--stepped has no effect: neither stepped nor unrolled is among --methods."


def print_table(rows: Sequence[Row]) -> None:
    """Print one line per method."""
    width = max(len("network"), *(len(row.network) for row in rows))
    titles = ["ms", "ratio", "peak MB", "ratio", "images/s"]
    print(f"{'network':{width}}  {'method':11}  {'steps':>11}  " + "  ".join(f"{title:>8}" for title in titles))
    for row in rows:
        steps = "" if row.steps is None else f"{row.steps} (auto)" if row.auto else f"{row.steps}"
        peak = "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.2f}"
        ratio = "" if row.peak_memory_ratio is None else f"{row.peak_memory_ratio:.2f}"
        print(
            f"{row.network:{width}}  {row.method:11}  {steps:>11}  {row.milliseconds:8.3f}  "
            f"{row.ratio_to_backprop:8.2f}  {peak:>8}  {ratio:>8}  {row.images_per_second:8,.0f}"
        )


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draw costs against the number of steps, if there are several, and against the depth of MLPs."""
    against_steps, against_depth = by_steps(rows), by_depth(rows)
    panels = [(against_depth, "weight layers")] if against_depth else []
    if not panels or any(len(steps) > 1 for steps, _ in against_steps.values()):
        panels.insert(0, (against_steps, "relaxation steps"))
    with figures.saved(path, columns=len(panels)) as (_, axes):
        for ax, (lines, label) in zip(axes, panels, strict=True):
            figures.costs(ax, lines, label)


Lines = dict[str, tuple[list[int], list[float]]]


def by_steps(rows: Sequence[Row]) -> Lines:
    """Return "NETWORK, METHOD" -> numbers of steps and costs, for methods with a given number of steps."""
    return _lines(
        (f"{row.network}, {row.method}", row.steps, row.ratio_to_backprop)
        for row in rows
        if row.steps is not None and not row.auto
    )


def by_depth(rows: Sequence[Row]) -> Lines:
    """Return method -> depths and costs of MLPs, by width if there are several; {} for fewer than two depths."""
    compared = [row for row in rows if row.method not in ("backprop", "autograd")]  # the references
    found = [(row, re.fullmatch(r"mlp-(\d+)x(\d+)", row.network)) for row in compared]
    mlps = [(row, int(match[1]), int(match[2])) for row, match in found if match]
    if len({depth for _, depth, _ in mlps}) < 2:
        return {}
    several = len({width for *_, width in mlps}) > 1
    points = []
    for row, depth, width in mlps:
        steps = "" if row.steps is None else ", auto" if row.auto else f", {row.steps} steps"
        label = f"{row.method}{steps}" + (f" ({width} wide)" if several else "")
        points.append((label, depth, row.ratio_to_backprop))
    return _lines(points)


def _lines(points: Iterable[tuple[str, int, float]]) -> Lines:
    """Group points (label, x, y) by label, in order of x."""
    lines: Lines = {}
    for label, x, y in sorted(points, key=lambda point: point[1]):
        xs, ys = lines.setdefault(label, ([], []))
        xs.append(x)
        ys.append(y)
    return lines


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("bench", sys.argv[1:]))
