"""Costs of learning on a network with cycles: time, memory and products, against autograd through the same steps.

    python benchmarks/recurrent.py [THREADS]          # default: 2

Prints three tables.

Time: a step of SGD on `conv-rec`, 64 random images, fp32. Both phases of AR by Euler's scheme, eta 0.5, until a
residual; or the rates by Euler and the equilibrium by GMRES; each against autograd through as many forward steps. The
two take turns, and the table has the median of their ratios, with quartiles.

Memory: the peak of a step beyond network and images, for several numbers of steps.

Products: how often the feedback is applied until all of 8 samples have a relative residual of 1e-6, in matrices W^T D
of 300 units with gains D of 0.5 to 1, scaled to an abscissa; by Euler at eta 0.5, by Euler at the best of several
constant eta, and by GMRES.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from actrelax.models.engines import Settle, Steps
from actrelax.models.integrators import gmres
from actrelax.models.learning import BackwardOptions, relax_backward
from actrelax.models.network import Network, build
from actrelax.simulations.costs.memory import peak_on_cpu

BATCH, ETA, ROUNDS, TURN = 64, 0.5, 15, 1
TOLERANCES = (1e-2, 1e-3, 1e-6)
COUNTS = (15, 30, 60)
UNITS, SAMPLES, MOST = 300, 8, 5000
ETAS = (0.2, 0.3, 0.5, 0.7, 1.0)


def unrolled(network: Network, x: Tensor, y: Tensor, steps: int) -> None:
    """Backpropagate through forward Euler steps of the rates from zero; the input's drive is computed once."""
    hidden, output = network.hidden, network.output
    constant = {p.name: p.find(x)[0] for p in network.outgoing[network.input]}

    def response(name: str, rates: dict[str, Tensor]) -> Tensor:
        parts = [constant[p.name] if p.name in constant else p.find(rates[p.source])[0] for p in network.incoming[name]]
        return network.populations[name].activation.function(sum(parts[1:], parts[0]))

    rates = {name: x.new_zeros(len(x), *network.populations[name].shape) for name in hidden}
    for _ in range(steps):
        rates = {name: torch.lerp(r, response(name, rates), ETA) for name, r in rates.items()}
    F.cross_entropy(response(output, rates), y).backward()


def relaxed(network: Network, x: Tensor, y: Tensor, *, forward: Steps, backward: Steps, integrator: str) -> None:
    """Settle and relax."""
    options = BackwardOptions(settle=Settle(forward, "euler"), check_finite=False)
    relax_backward(network, x, y, backward, integrator=integrator, options=options)


def step(network: Network, gradients: Callable[[], None]) -> None:
    """Take a step of SGD, too small to change the work."""
    network.zero_grad()
    gradients()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad, alpha=1e-9)


def ratios(network: Network, ours: Callable[[], None], theirs: Callable[[], None]) -> list[float]:
    """Return ours / theirs, turn by turn."""
    found = []
    for turn in range(ROUNDS + 2):  # the first two are warm-up
        spent = []
        for gradients in (ours, theirs) if turn % 2 else (theirs, ours):
            step(network, gradients)
            start = time.perf_counter()
            for _ in range(TURN):
                step(network, gradients)
            spent.append(time.perf_counter() - start)
        mine, other = spent if turn % 2 else spent[::-1]
        found.append(mine / other)
    return found[2:]


def steps_to(network: Network, x: Tensor, y: Tensor, tolerance: float) -> tuple[int, int]:
    """Return the numbers of steps of both phases."""
    until = Steps.until(tolerance, eta=ETA)
    report = relax_backward(
        network, x, y, until, integrator="euler", options=BackwardOptions(settle=Settle(until))
    ).report
    assert report is not None
    return report.steps["forward"], report.steps["backward"]


def print_times(network: Network, x: Tensor, y: Tensor) -> None:
    """Measure and print whole steps."""
    print("| residual | backward phase | steps forward, backward | time over autograd's | quartiles |")
    print("| --- | --- | --- | --- | --- |")
    for tolerance in TOLERANCES:
        until = Steps.until(tolerance, eta=ETA)
        forward, backward = steps_to(network, x, y, tolerance)
        theirs = partial(unrolled, network, x, y, forward)
        for integrator in ("euler", "equilibrium"):
            ours = partial(relaxed, network, x, y, forward=until, backward=until, integrator=integrator)
            first, median, third = statistics.quantiles(ratios(network, ours, theirs), n=4)
            taken = f"{forward}, {backward if integrator == 'euler' else 'GMRES'}"
            print(f"| {tolerance:g} | {integrator} | {taken} | {median:.2f} | {first:.2f} to {third:.2f} |", flush=True)


def print_memory(network: Network, x: Tensor, y: Tensor) -> None:
    """Measure and print peaks."""
    print("\n| steps in each phase | AR, MiB | autograd, MiB |\n| --- | --- | --- |")
    for count in COUNTS:
        steps = Steps(count, eta=ETA)
        ours = partial(relaxed, network, x, y, forward=steps, backward=steps, integrator="euler")
        peaks = []
        for gradients in (ours, partial(unrolled, network, x, y, count)):
            network.zero_grad()
            gradients()
            network.zero_grad()
            peaks.append(peak_on_cpu(gradients) / 2**20)
        print(f"| {count} | {peaks[0]:.1f} | {peaks[1]:.1f} |", flush=True)


def feedback(symmetric: bool, abscissa: float, generator: torch.Generator) -> Tensor:
    """Return W^T D of each sample, (samples, units, units), float64."""
    W = torch.randn(UNITS, UNITS, generator=generator, dtype=torch.float64)
    gains = 0.5 + 0.5 * torch.rand(SAMPLES, UNITS, generator=generator, dtype=torch.float64)
    A = (W + W.T if symmetric else W.T) * gains[:, None, :]
    found = torch.linalg.eigvals(A).real.amax(1)
    return A * (abscissa / found)[:, None, None]


def euler_products(apply: Callable[[Tensor], Tensor], b: Tensor, eta: float, tolerance: float) -> int:
    """Return the products until every residual is within the tolerance; `MOST` if they are not by then."""
    x, bound = torch.zeros_like(b), tolerance * b.norm(dim=1)
    for n in range(1, MOST):
        residual = b + apply(x) - x
        if bool((residual.norm(dim=1) <= bound).all()):
            return n
        if not bool(residual.isfinite().all()):
            break
        x = x + eta * residual
    return MOST


def print_products() -> None:
    """Count and print products."""
    print("\n| W | abscissa | Euler, eta 0.5 | Euler, best eta | GMRES |\n| --- | --- | --- | --- | --- |")
    for symmetric in (False, True):
        for abscissa in (0.9, 0.99):
            generator = torch.Generator().manual_seed(0)
            apply = partial(torch.einsum, "bij,bj->bi", feedback(symmetric, abscissa, generator))
            b = torch.randn(SAMPLES, UNITS, generator=generator, dtype=torch.float64)
            counts = {eta: euler_products(apply, b, eta, 1e-6) for eta in ETAS}
            best = min(counts, key=lambda eta: counts[eta])
            found = gmres(apply, b, tolerance=1e-6, most=UNITS + 2)
            kind = "symmetric" if symmetric else "random"
            print(f"| {kind} | {abscissa} | {counts[0.5]} | {counts[best]} ({best}) | {found.products} |", flush=True)


def main(threads: int) -> None:
    """Measure, and print the tables."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    network = build("conv-rec", generator=generator)
    x, y = torch.rand(BATCH, 1, 28, 28, generator=generator), torch.randint(10, (BATCH,), generator=generator)
    print_times(network, x, y)
    print_memory(network, x, y)
    print_products()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2] or ["2"]))
