"""Costs of a relaxation by engine: number of synapses, time to build, and time per step.

    python benchmarks/simulators.py [--network NAME ...] [--targets numpy cython cpp_standalone]

Prints the tables of docs/performance.md. The time per step is the difference between a long and a short run, which
excludes building, code generation and compilation; a standalone program reports its own run time.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import brian2 as b2
import numpy as np
import torch
from handwritten import handwritten

from actrelax.models.engines import SparseProblem, solve, vector
from actrelax.models.engines.brian2 import UNIT, build, generating
from actrelax.models.network import build as build_network
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

NETWORKS = {
    "mlp": ("mlp", (784,)),
    "cnn": ("cnn", (3, 32, 32)),
    "3072-1000-1000-300-10": ([1000, 1000, 300], (3072,)),
}
DT = 0.1


def problem_of(name: str, batch: int = 1) -> RelaxationProblem:
    """Return a relaxation of a network for random stimuli, in float64."""
    kind, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    network = (
        wide(kind, shape) if isinstance(kind, list) else build_network(kind, input_shape=shape, generator=generator)
    )
    x = torch.randn(batch, *shape, generator=generator)
    y = torch.randint(10, (batch,), generator=generator)
    return RelaxationProblem.from_batch(network.double(), x.double(), y)


def wide(widths: list[int], shape: tuple[int, ...]) -> torch.nn.Module:
    """Return a tanh MLP with the given hidden widths."""
    from actrelax.models.network import Network

    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    sizes = [*shape, *widths, 10]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
    return Network.from_sequential(torch.nn.Sequential(*layers[:-1]), shape)


def per_step(*runs: Callable[[int], object], repeats: int = 5) -> list[float]:
    """Return milliseconds per step of each run, a function of the number of steps; the runs take turns."""
    short, lengths = 10, []
    for run in runs:
        run(short)  # compile
        beginning, long = seconds(run, short), 100
        while seconds(run, long) - beginning < 1:
            long *= 3
        lengths.append(long)
    rounds = [
        [seconds(run, long) - seconds(run, short) for run, long in zip(runs, lengths, strict=True)]
        for _ in range(repeats)
    ]
    return [1000 * min(times) / (long - short) for times, long in zip(zip(*rounds, strict=True), lengths, strict=True)]


def seconds(run: Callable[[int], object], steps: int) -> float:
    """Return the time of a run of `steps` steps in seconds, including its overhead."""
    begin = time.perf_counter()
    run(steps)
    return time.perf_counter() - begin


def brian2_step(problem: RelaxationProblem, target: str) -> float:
    """Return milliseconds per step in Brian2."""
    with generating(target):
        return per_step(running(build(problem, dt=DT).network))[0]


def running(network: Any) -> Callable[[int], object]:
    """Return a function that runs a `brian2.Network` for a number of steps."""
    return lambda n: network.run(n * DT * UNIT, namespace={})


def standalone_step(name: str, steps: int = 2000) -> float:
    """Return milliseconds per step of the standalone program, built and run in a separate process."""
    command = [sys.executable, __file__, "--standalone", str(steps), "--network", name]
    return 1000 * float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) / steps


def run_standalone(problem: RelaxationProblem, steps: int) -> float:
    """Build and run the standalone program, and return its run time in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        b2.set_device("cpp_standalone", directory=folder, build_on_run=False)
        build(problem, dt=DT).network.run(steps * DT * UNIT, namespace={})
        b2.device.build(directory=folder, compile=True, run=True)
        return float(b2.device._last_run_time)


def by_hand(problem: RelaxationProblem) -> tuple[Any, float]:
    """Return the handwritten network for a problem, and its relative difference from PyTorch's result."""
    names = [*problem.network.hidden, problem.network.output]
    activities = problem.activities(problem.initial_state())
    weights = [vector(p.weight).reshape(p.weight.shape) for p in problem.feedback_projections.values()]
    gains = [SparseProblem(problem).gains[name] for name in names]
    network = handwritten(weights, gains, [vector(activities[name]) for name in names], DT)
    network.run(12 * DT * UNIT)
    lowest = np.array(min((o for o in network.objects if hasattr(o, "x")), key=lambda o: o.name).x)
    final = solve(problem, "euler", dt=DT, steps=12).final[names[0]]
    return network, relative_error(torch.as_tensor(lowest).reshape(final.shape), final)


def sizes_and_speeds(names: list[str], targets: list[str]) -> Iterator[str]:
    """Yield the rows of the first table: synapses, time to build and time per step by network."""
    columns = ["network", "synapses", "build (s)", *(f"Brian2 {t} (ms)" for t in targets), "PyTorch (ms)"]
    yield row(columns)
    yield row(["---"] * len(columns))
    for name in names:
        problem = problem_of(name)
        synapses = sum(f.matrix.nnz for f in SparseProblem(problem).feedback.values())
        built = min(seconds(lambda _, p=problem: build(p, dt=DT), 0) for _ in range(3))
        steps = [standalone_step(name) if t == "cpp_standalone" else brian2_step(problem, t) for t in targets]
        steps.append(torch_step(problem))
        yield row([name, f"{synapses:,}", f"{built:.2f}", *(f"{step:.3g}" for step in steps)])


def torch_step(problem: RelaxationProblem) -> float:
    """Return milliseconds per step of Euler's method in PyTorch."""
    return per_step(lambda n: solve(problem, "euler", dt=DT, steps=n, evaluation="stepped"))[0]


def against_handwritten(targets: list[str]) -> Iterator[str]:
    """Yield the rows of the second table: time per step against the handwritten network."""
    yield row(["target", "ours (ms)", "by hand (ms)", "ratio", "largest difference"])
    yield row(["---"] * 5)
    problem = problem_of("mlp")
    for target in targets:
        if target != "cpp_standalone":
            with generating(target):
                network, gap = by_hand(problem)
                ours, theirs = per_step(running(build(problem, dt=DT).network), running(network))
            yield row([target, f"{ours:.3g}", f"{theirs:.3g}", f"{ours / theirs:.2f}", f"{gap:.1e}"])


def batches(targets: list[str]) -> Iterator[str]:
    """Yield the rows of the third table: time per step by batch size."""
    counts = (1, 2, 4, 8, 16)
    yield row(["target", *(f"{n} samples (ms)" for n in counts), "16 against 1"])
    yield row(["---"] * (len(counts) + 2))
    for target in targets:
        if target != "cpp_standalone":
            steps = [brian2_step(problem_of("mlp", n), target) for n in counts]
            yield row([target, *(f"{step:.3g}" for step in steps), f"{steps[-1] / steps[0]:.1f}"])


def row(cells: list[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the costs, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--targets", nargs="+", default=["numpy", "cython", "cpp_standalone"])
    parser.add_argument(
        "--standalone", type=int, metavar="STEPS", help="only time one standalone program, for this many steps"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    b2.BrianLogger.suppress_name("unused_brian_object")  # objects built only to time the construction
    if options.standalone is not None:
        print(run_standalone(problem_of(options.network[0]), options.standalone))
        return
    for table in (
        sizes_and_speeds(options.network, options.targets),
        against_handwritten(options.targets),
        batches(options.targets),
    ):
        for line in table:
            print(line, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
