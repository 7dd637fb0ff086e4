"""Ways to the gradient of networks with cycles: error of the updates against products with the weights.

Far from the onset of instability all ways are cheap; near it AR needs thousands of steps, and GMRES at most a hundred
products in these small networks. A single step, Jacobian-free backprop, leaves all weights below the population that is
read without an update. The last k steps of backprop through time are k steps of AR. Equilibrium propagation keeps an
error of the second order in its nudge.

Each panel is one network of tanh units with random weights, four digits, and recurrent weights scaled to an abscissa:
the largest real part of an eigenvalue, over the digits, which must be below 1. Euler's eta is half its largest one, or
0.5. Columns: one population; three with
bottom-up, top-down and lateral connections; maps with lateral and upsampled top-down convolutions.

It takes 5 minutes.

The last line on screen:  products to 0.001 at abscissa 0.99: dense AR -, GMRES 20
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actrelax import Network, Projection, RelaxationProblem, Settle, Steps, settle
from actrelax.analysis.recurrent_gradients import Row, compare
from actrelax.analysis.spectra import rightmost_eigenvalue
from actrelax.analysis.stability import loop_matrix, stability
from actrelax.analysis.style import written
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.common import OUT, report

ABSCISSAE = (0.3, 0.9, 0.99)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
SAMPLES = 4
TOLERANCE = 1e-3
STYLES: dict[str, dict[str, Any]] = {
    "k steps": {"linestyle": "--"},
    "one step": {"linestyle": "none", "marker": "o", "fillstyle": "none", "markersize": 8, "zorder": 3},
}
METHODS = ("AR", "second order", "one step", "k steps", "GMRES", "BPTT", "EP")


def dense() -> tuple[Sequence[int], list[Projection]]:
    """Return the input's shape and the projections of one population."""
    layers = nn.Linear(64, 40), nn.Linear(40, 40, bias=False), nn.Linear(40, 10)
    ends = ("input", "a"), ("a", "a"), ("a", "output")
    return (64,), [Projection(*pair, layer) for pair, layer in zip(ends, layers, strict=True)]


def hierarchy() -> tuple[Sequence[int], list[Projection]]:
    """Return those of three populations with bottom-up, top-down and lateral connections."""
    ends = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "a"), ("b", "c"), ("c", "c"), ("c", "b")]
    inside = [Projection(*pair, nn.Linear(20, 20, bias=False)) for pair in ends]
    return (64,), [Projection("input", "a", nn.Linear(64, 20)), *inside, Projection("c", "output", nn.Linear(20, 10))]


def convolutional() -> tuple[Sequence[int], list[Projection]]:
    """Return those of maps at two sizes with lateral and upsampled top-down convolutions."""
    return (1, 8, 8), [
        Projection("input", "a", nn.Conv2d(1, 2, 3, padding=1)),
        Projection("a", "a", nn.Conv2d(2, 2, 3, padding=1, bias=False)),
        Projection("a", "b", nn.Conv2d(2, 4, 3, stride=2, padding=1)),
        Projection("b", "b", nn.Conv2d(4, 4, 3, padding=1, bias=False)),
        Projection("b", "a", nn.Conv2d(4, 2, 3, padding=1, bias=False), nn.Upsample(scale_factor=2)),
        Projection("b", "output", nn.Flatten(), nn.Linear(64, 10)),
    ]


FAMILIES: dict[str, Callable[[], tuple[Sequence[int], list[Projection]]]] = {
    "dense": dense,
    "hierarchy": hierarchy,
    "convolutional": convolutional,
}


def main(
    out: Path = OUT,
    families: Sequence[str] = tuple(FAMILIES),
    abscissae: Sequence[float] = ABSCISSAE,
    counts: Sequence[int] = COUNTS,
) -> dict[str, dict[float, list[Row]]]:
    """Compare the methods on each network, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    families : sequence of str
        Keys of `FAMILIES`.
    abscissae, counts
        Largest real parts of the eigenvalues, and numbers of steps.

    Returns
    -------
    dict
        Family -> abscissa -> rows.
    """
    found: dict[str, dict[float, list[Row]]] = {family: {} for family in families}
    for family in families:
        for abscissa in abscissae:
            network, x, y, eta = scaled(family, abscissa)
            found[family][abscissa] = compare(network, x, y, counts, eta=eta)
    with written(out / "recurrent_methods.png", (4.2 * len(families), 2.8 * len(abscissae))) as figure:
        axes = figure.subplots(len(abscissae), len(families), squeeze=False, sharex=True, sharey=True)
        for column, family in enumerate(families):
            for row, abscissa in enumerate(abscissae):
                ax = axes[row][column]
                for number, method in enumerate(METHODS):
                    points = [(r.products, max(r.error, 1e-16)) for r in found[family][abscissa] if r.method == method]
                    if points:
                        how = {"color": f"C{number}", "linestyle": "-", "marker": ".", **STYLES.get(method, {})}
                        ax.loglog(*zip(*points, strict=True), label=method, **how)
                ax.set(title=f"{family}, abscissa {abscissa:g}", ylim=(1e-13, 3))
        for ax in axes[-1]:
            ax.set_xlabel("products")
        for ax in axes[:, 0]:
            ax.set_ylabel("relative error of the updates")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    needed = {f: {a: {m: products(rows, m) for m in METHODS} for a, rows in of.items()} for f, of in found.items()}
    ends = {f: {a: {m: error(rows, m) for m in METHODS} for a, rows in of.items()} for f, of in found.items()}
    last, first = max(abscissae), families[0]
    report(
        out / "recurrent_methods.json",
        {"products": needed, "errors": ends},
        *(f"{f}, abscissa {a:g}: {_listed(needs)}" for f, of in needed.items() for a, needs in of.items()),
        f"products to {TOLERANCE:g} at abscissa {last:g}: {first} AR {needed[first][last]['AR'] or '-'}, "
        f"GMRES {needed[first][last]['GMRES'] or '-'}",
    )
    return found


def products(rows: Sequence[Row], method: str) -> int | None:
    """Return the fewest products from which on the error stays below `TOLERANCE`; None if it does not."""
    mine = [row for row in rows if row.method == method]
    above = [row.products for row in mine if row.error > TOLERANCE]
    below = [row.products for row in mine if not above or row.products > max(above)]
    return min(below, default=None)


def error(rows: Sequence[Row], method: str) -> float | None:
    """Return the error after the largest number of steps."""
    mine = [row.error for row in rows if row.method == method]
    return mine[-1] if mine else None


def _listed(needed: dict[str, int | None]) -> str:
    return ", ".join(f"{method} {'-' if count is None else count}" for method, count in needed.items())


def scaled(family: str, abscissa: float) -> tuple[Network, Tensor, Tensor, float]:
    """Return a network whose recurrent weights are scaled to an abscissa, images, labels, and Euler's eta."""
    shape, projections = FAMILIES[family]()
    generator = random_stream(0, "weights")
    names = dict.fromkeys(p.target for p in projections)
    network = Network(shape, {name: "identity" if name == "output" else "tanh" for name in names}, projections).double()
    recurrent = [p for p in projections if {p.source, p.target} <= {name for c in network.graph.cycles for name in c}]
    with torch.no_grad():
        for p in projections:
            assert p.weight is not None
            size = 0.3 if p in recurrent else 0.5
            p.weight.normal_(0, size / p.weight[0].numel() ** 0.5, generator=generator)
            if p.bias is not None:
                p.bias.zero_()
    images, labels = digits().test
    x, y = images[:SAMPLES].double().reshape(-1, *shape), labels[:SAMPLES]

    low, high, at = 1.0, 1.0, 1.0  # relative to the first weights; `at` is the present factor
    while _abscissa(_problems(network, recurrent, x, y, high / at)) < abscissa:
        low, at, high = high, high, high * 1.1
    at = high
    while high - low > 1e-5 * high:
        middle = (low + high) / 2
        above = _abscissa(_problems(network, recurrent, x, y, middle / at)) >= abscissa
        low, high, at = (low, middle, middle) if above else (middle, high, middle)
    problems = _problems(network, recurrent, x, y, low / at)
    return network, x, y, min(0.5, *(0.5 * stability(problem, "forward").largest_eta for problem in problems))


def _problems(
    network: Network, recurrent: Sequence[Projection], x: Tensor, y: Tensor, factor: float
) -> list[RelaxationProblem]:
    """Multiply the recurrent weights, and return the relaxation of each sample; none if the rates do not settle."""
    for p in recurrent:
        assert p.weight is not None
        p.weight.data.mul_(factor)
    with warnings.catch_warnings(action="ignore"):  # of rates that have not settled
        passed = settle(network, x, Settle(Steps.until(1e-8, eta=0.5, most=10_000), "rk4"))
    problem = RelaxationProblem.from_batch(network, passed, y)
    parts = [slice(i, i + 1) for i in range(len(x))] if passed.reached else []
    return [problem.of_batch(network, passed.of_samples(i), problem.clamped[i]) for i in parts]


def _abscissa(problems: Sequence[RelaxationProblem]) -> float:
    """Return the largest abscissa, infinite for rates that do not settle."""
    found = [rightmost_eigenvalue(loop_matrix(problem, "forward")).real for problem in problems]
    return max(found, default=math.inf)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
