"""Networks and problems in words: what `print` shows of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from actrelax.models.network.network import Network
    from actrelax.models.network.projection import Projection
    from actrelax.models.problem.per_neuron import Value
    from actrelax.models.problem.problem import RelaxationProblem


def describe(network: Network) -> str:
    """Return the table of populations and the table of projections."""
    sizes = [f"{math.prod(p.shape):,}" for p in network.populations.values()]
    rows = [["population", "shape", "units", "activation"]]
    for (name, p), units in zip(network.populations.items(), sizes, strict=True):
        rows.append([name, str(p.shape), units, "-" if name == network.input else p.activation.name])
    projections = [["projection", "kind", "pipeline", "parameters", "feedback"]]
    for projection in network.projections.values():
        count = sum(p.numel() for p in (projection.weight, projection.bias) if p is not None)
        projections.append(
            [
                projection.name,
                network.kind(projection),
                projection.pipeline,
                f"{count:,}",
                _feedback(network, projection),
            ]
        )
    total = sum(p.numel() for p in network.parameters())
    title = (
        f"Network: {len(network.populations) - 1} populations besides the input, "
        f"{len(projections) - 1} projections, {total:,} parameters"
    )
    return "\n".join([title, *_table(rows, right={2}), *_table(projections, right={3})])


def _feedback(network: Network, projection: Projection) -> str:
    if not network.carries_feedback(projection):
        return "-" if projection.source == network.input else "copy"
    if projection.feedback is None:
        return "transpose"
    if projection.feedback.dim() == 0:
        return "sign of W"
    return "own, learned" if isinstance(projection.feedback, nn.Parameter) else "own, fixed"


def _table(rows: Sequence[Sequence[str]], right: set[int]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def describe_problem(problem: RelaxationProblem) -> str:
    """Return a problem in one line, to paste into an issue."""
    sizes = ["x".join(map(str, p.shape)) for p in problem.network.populations.values()]
    start = repr(problem.start) if isinstance(problem.start, str) else "given"
    preset = problem.assumptions.preset
    return (
        f"RelaxationProblem({'-'.join(sizes)}, batch {len(problem.clamped)}, tau {_brief(problem.tau)}, start {start}, "
        f"clip {problem.clip}, assumptions {repr(preset) if preset else 'own'}{''.join(_biology(problem))})"
    )


def _biology(problem: RelaxationProblem) -> Iterator[str]:
    if problem.is_noisy:
        yield f", noise {_brief(problem.noise)}, input noise {problem.input_noise:g}"
    if problem.delay.times:
        yield f", delays {_brief(problem.delays)}"
    transform = problem.feedback_transform
    if transform is not None:
        yield f", feedback transform {getattr(transform, '__name__', transform)}"
    if problem.dynamics:
        yield f", dynamics of {', '.join(problem.dynamics)}"


def _brief(value: Value | Mapping[str, Value]) -> str:
    if isinstance(value, Mapping):
        return f"of {', '.join(value)} given"
    return "given" if isinstance(value, Tensor) and value.dim() > 0 else f"{float(value):g}"
