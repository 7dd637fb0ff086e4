"""The repr of a network: a table of populations and a table of projections."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from actrelax.models.network.population import Population
from actrelax.models.network.projection import Projection


def overview(
    populations: Mapping[str, Population],
    projections: Mapping[str, Projection],
    kinds: Mapping[str, str],
    parameters: int,
    cycles: Sequence[Sequence[str]],
) -> str:
    """Return a title, tables of populations, the first of which is the input, and projections, and the cycles."""
    source = next(iter(populations))
    sizes = [["population", "shape", "units", "activation"]]
    for name, population in populations.items():
        activation = "-" if name == source else population.activation.name
        sizes.append([name, str(population.shape), f"{math.prod(population.shape):,}", activation])
    wiring = [["projection", "kind", "pipeline", "parameters", "feedback"]]
    for p in projections.values():
        count = sum(w.numel() for w in (p.weight, p.bias) if w is not None)
        feedback = "-" if p.source == source else _feedback_in_words(p)
        wiring.append([p.name, kinds[p.name], p.pipeline, f"{count:,}", feedback])
    title = (
        f"Network: {len(populations) - 1} populations besides the input, "
        f"{len(projections)} projections, {parameters:,} parameters"
    )
    closed = [f"  cycle: {', '.join(names)}" for names in cycles]
    return "\n".join([title, *_aligned(sizes, right=2), *_aligned(wiring, right=3), *closed])


def _feedback_in_words(projection: Projection) -> str:
    if projection.map is None:
        return "copy"
    if projection.feedback is None:
        return "transpose"
    if projection.feedback.dim() == 0:
        return "sign of W"
    return "learned psi" if projection.feedback_is_learned else "fixed psi"


def _aligned(rows: Sequence[Sequence[str]], right: int) -> Iterator[str]:
    """Yield one line per row, in columns as wide as their widest cell; the column `right` is flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[right] = row[right].rjust(widths[right])
        yield "  " + "  ".join(cells).rstrip()
