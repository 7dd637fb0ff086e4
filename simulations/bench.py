"""What a step of training costs by backprop, by AR's closed form and by stepping, side by side in one run.

Timed is the whole step as `actrelax train` does it: the next batch is gathered from the stored images and preprocessed,
gradients are cleared, the rule makes new ones, the optimiser and the schedule of the learning rate step, and loss and
correct answers are counted. Methods take turns of three steps; reported are the median turn and its ratio to backprop:

    backprop     this package's baseline, autograd through the network
    autograd     F.cross_entropy(network(x), y).backward(), as anybody writes it, in the same step
    closed-form  AR, sequential, eta 0.1: so many steps at once, by their law; "auto": as many as leave 1e-6 of the way
    equilibrium  AR, where its relaxation ends
    stepped      AR, step by step
    front-door   AR at equilibrium, by F.cross_entropy(ActivationRelaxation(network)(x), y).backward(); never compiled

Peak memory is measured in a process of its own for each method: the most that one step's tensors take beyond weights
and images. Prints a table, or with --json

    {"machine": {...}, "rows": [{"network", "method", "steps", "ratio_to_backprop", "peak_memory_ratio", ...}, ...]}

With --out, a figure of the costs against the steps and, where MLPs of several depths were measured, against depth.
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
"""Steps that are taken one by one unless more are asked for."""
LR = 1e-6
"""So small that networks stay what they are: all methods have the same work to do, whatever their updates are worth."""


@dataclass(frozen=True)
class Config:
    """Options of the measurement."""

    networks: tuple[str, ...] = ("mlp", "cnn")
    """Networks by name: mlp, cnn, vgg8, mlp-DEPTHxWIDTH ..."""
    methods: tuple[str, ...] = NAMES
    """backprop (always measured), autograd, closed-form, equilibrium, stepped, front-door."""
    steps: tuple[int, ...] = (10, 100, 1000)
    """Numbers of steps of the closed form."""
    stepped: tuple[int, ...] | None = None
    """Numbers of steps that are taken one by one; those of --steps up to 100 unless given."""
    batch_size: int = 64
    """Images per batch."""
    rounds: int = 20
    """How often each method has its turn of three steps that count; 5 or more."""
    memory: bool = True
    """Measure peak memory too, some seconds a method."""
    dataset: str | None = None
    """Any that `actrelax train` takes; MNIST, CIFAR-10 or the digits, as a network takes them, where the file is at
    hand, else random numbers."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Of a .npz of images with channels, as `actrelax train` takes it."""
    data_dir: Path | None = None
    """Where NAME.npz files are; $ACTRELAX_DATA unless given, or else ./data."""
    compile: Literal["auto", "no", "trace", "inductor"] = "auto"
    """As in `actrelax train`: auto traces AR but not backprop. autograd and front-door are never compiled."""
    hardware: Hardware = field(default_factory=Hardware)
    out: Path | None = None
    """Folder for the figure; none is drawn unless given."""
    json: bool = False
    """Print JSON, and nothing else, on standard output."""


def main(config: Config) -> None:
    """Measure, draw, and print the results."""
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
    if config.out is None:  # a figure comes last: what was measured is not lost with it
        return
    if not (by_steps(rows) or by_depth(rows)):
        remark("no figure: it takes a method with a number of steps, or MLPs of several depths.")
        return
    draw(config.out / FIGURE, rows)
    if not config.json:
        print(f"\nfigure: {config.out / FIGURE}")


def networks(config: Config) -> list[str]:
    """Return the networks, once each; an unknown one is refused before the first is measured."""
    if not config.networks:
        raise ActrelaxError("there is no network to measure: name one or more after --networks.")
    for name in config.networks:
        if ":" not in name:
            build(name)
    return list(dict.fromkeys(config.networks))


def resolved(config: Config) -> tuple[Experiment, Execution, list[Method]]:
    """Return the options that all methods share, and the methods.

    Raises
    ------
    ActrelaxError
        For options that can't be met.
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
    return experiment, execution.resolved(experiment), chosen(config.methods, config.steps, stepped)


def idle(config: Config) -> Iterator[str]:
    """Yield a sentence on each option without an effect."""
    takes_steps = "closed-form" in config.methods or ("stepped" in config.methods and config.stepped is None)
    if config.steps != Config.steps and not takes_steps:
        yield "--steps has no effect: none of the methods takes its numbers of steps."
    if config.stepped is not None and "stepped" not in config.methods:
        yield "--stepped has no effect: stepped is not among --methods."


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
    """Draw costs against steps and, where there are MLPs of several depths, against depth; one step makes no line."""
    against_steps, against_depth = by_steps(rows), by_depth(rows)
    panels = [(against_depth, "weight layers")] if against_depth else []
    if not panels or any(len(steps) > 1 for steps, _ in against_steps.values()):
        panels.insert(0, (against_steps, "relaxation steps"))
    with figures.saved(path, columns=len(panels)) as (_, axes):
        for ax, (lines, label) in zip(axes, panels, strict=True):
            figures.costs(ax, lines, label)


Lines = dict[str, tuple[list[int], list[float]]]


def by_steps(rows: Sequence[Row]) -> Lines:
    """Return network and method -> numbers of steps and their costs, of the methods that have several."""
    return _lines(
        (f"{row.network}, {row.method}", row.steps, row.ratio_to_backprop)
        for row in rows
        if row.steps is not None and not row.auto
    )


def by_depth(rows: Sequence[Row]) -> Lines:
    """Return method -> depths and their costs, of the MLPs of one width; empty with less than two depths."""
    compared = [row for row in rows if row.method not in ("backprop", "autograd")]  # with these
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
    """Gather (label, x, y) by label, from left to right."""
    lines: Lines = {}
    for label, x, y in sorted(points, key=lambda point: point[1]):
        xs, ys = lines.setdefault(label, ([], []))
        xs.append(x)
        ys.append(y)
    return lines


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("bench", sys.argv[1:]))
