"""A captured network in words: its populations, what their pieces are made of, and how much of it is projections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

ACROSS_BATCH = ("BatchNorm",)
"""Names of autograd's functions whose derivative mixes the samples of a batch, in training."""
ACROSS_UNITS = (
    "LayerNorm",
    "GroupNorm",
    "InstanceNorm",
    "Softmax",
    "Attention",
    "Mm",
    "Bmm",
    "Mean",
    "Sum",
    "Rnn",
    "Lstm",
)
"""Names, or parts of them, of functions whose derivative mixes the units of a population."""
_PLAIN = ("View", "Reshape", "T", "Transpose", "Permute", "Unsqueeze", "Squeeze", "Expand", "Clone", "Alias", "Slice",
          "Select", "Split", "Unbind", "UnsafeView", "AsStrided", "CopySlices", "ToCopy", "Unsafe")  # fmt: skip


def described(network: Any, parameters: Mapping[str, Tensor]) -> str:
    """Return a table of the populations, and the share of the parameters that projections hold."""
    by_identity = {id(p): p for p in parameters.values()}
    total = sum(p.numel() for p in by_identity.values())
    listed = list(parameters.values())
    own = {id(listed[n]) for numbers in network.path.parameters for n in numbers if isinstance(n, int) and n >= 0}
    share = sum(p.numel() for key, p in by_identity.items() if key not in own) / max(total, 1)
    rows = [["population", "shape", "units", "hops", "local to", "phi"]]
    pieces = dict(zip(network.path.names, network.path.pieces, strict=True))
    units = dict(zip(network.path.names, network.path.units, strict=True))
    for name in [network.input, *reversed(pieces)]:
        if name == network.input:
            shape: Sequence[int] = network.populations[name].shape
            rows.append([name, str(tuple(shape)), f"{math.prod(shape):,}", "", "", ""])
            continue
        relay = name in network.relays
        shape = network.relays[name] if relay else network.populations[name].shape
        hops = "relay" if relay else str(network.graph.above[name])
        kinds = pieces[name].kinds
        phi = ", ".join(functions_of(kinds)) or "identity"
        rows.append([name, str(tuple(shape)), f"{units[name]:,}", hops, locality(kinds), phi])
    weighted = sum(p.number is not None for p in network.projections.values())
    parts = ((len(network.populations) - 1, "population"), (len(network.relays), "relay"), (weighted, "projection"))
    populations, relays, projections = (f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in parts)
    title = (
        f"CapturedNetwork of {type(network.module).__name__}: {populations} besides the input, {relays}, {projections} "
        f"with {share:.0%} of {total:,} parameters"
    )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, *lines])


def functions_of(kinds: Sequence[str]) -> list[str]:
    """Return the functions of a piece in the order in which they are applied, without views, each once."""
    names = [kind.rstrip("0123456789").removesuffix("Backward") for kind in reversed(kinds)]
    return [name for name in dict.fromkeys(names) if name not in _PLAIN]


def locality(kinds: Sequence[str]) -> str:
    """Return whether a piece's derivative stays within the unit, the population, or the batch."""
    if any(part in kind for kind in kinds for part in ACROSS_BATCH):
        return "batch"
    return "population" if any(part in kind for kind in kinds for part in ACROSS_UNITS) else "unit"
