"""The tables of docs/ledger.md, which `make numbers` writes: `<!-- ledger: NETWORK -->` ... `<!-- end -->`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import torch

from actrelax.analysis.ledger import Ledger, ledger_of
from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import ARCHITECTURES, FeedforwardPass, Network, build, build_module

IMAGES = (4, 1, 8, 8)
"""Random images for captured networks: the ledger depends on the graph of a batch, not on its values."""


@cache
def network_named(name: str) -> tuple[Network, FeedforwardPass | None]:
    """Return a network and, if it is captured, a forward pass; the same whenever it is made."""
    if name in ARCHITECTURES:
        return build(name, generator=0), None
    x = torch.rand(IMAGES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = Network.from_module(build_module(name, generator=0).double(), x)
    return network, network.feedforward(x)


@cache
def ledger(name: str, preset: str) -> Ledger:
    """Return the ledger of a network under a preset."""
    network, passed = network_named(name)
    return ledger_of(network, preset, passed)


def tables(place: str) -> str:
    """Return the table of "NETWORK", one row per preset, or of "NETWORK under PRESET", one row per projection."""
    name, under, preset = place.partition(" under ")
    return _of_projections(ledger(name, preset)) if under else _of_presets(name)


def _of_presets(name: str) -> str:
    rows = [_HEAD]
    for preset in PRESETS:
        try:
            rows.append((f"`{preset}`", *_summary(ledger(name, preset))))
        except ActrelaxError:
            rows.append((f"`{preset}`", "refused", *[""] * 6))
    return _markdown(rows)


_HEAD = (
    "preset",
    "local",
    "not local",
    "feedback",
    "slope in feedback",
    "slope in update",
    "remembers",
    "weights change",
)


def _summary(found: Ledger) -> Iterator[str]:
    """Yield the cells of a preset, each with all values that some projection has."""
    entries = found.entries
    local = sum(not entry.not_local for entry in entries)
    yield f"**all {local}**" if local == len(entries) else f"{local} of {len(entries)}"
    yield ", ".join(found.not_local) or "**nothing**"
    yield _each(entry.feedback for entry in entries if entry.feedback != "copy")
    yield _each(entry.feedback_slope for entry in entries)
    yield _each(entry.update_slope for entry in entries)
    remembered = {value for entry in entries for value in entry.remembered}
    yield _each(sorted(remembered, key=lambda value: (not value.islower(), value)))
    yield "after the relaxation" if found.phases[-1] == "weights change" else "during the relaxation"


def _each(values: Iterable[str]) -> str:
    """Return the values that are present, each once."""
    return "; ".join(value for value in dict.fromkeys(values) if value not in ("", "constant")) or "-"


def _of_projections(found: Ledger) -> str:
    """Return the projections as a table, in which those with the same cells share a row, and the facts below."""
    table = found.table()
    alike: dict[tuple[str, ...], list[str]] = {}
    for first, *others in table.rows:
        alike.setdefault(tuple(others), []).append(first)
    rows = [tuple(table.head)]
    for cells, (first, *more) in alike.items():
        is_local, *others = cells
        shown = is_local if is_local == "yes" else f"**{is_local.partition(':')[0]}**{is_local.partition('no')[2]}"
        rows.append((f"`{first}`" + (f" and {len(more)} more" if more else ""), shown, *others))
    facts = [f"- {name or ' '}: {text}" for name, text in _joined(found.facts)]
    return "\n".join([_markdown(rows), "", *facts])


def _joined(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join the lines of one fact by semicolons."""
    found: list[tuple[str, str]] = []
    for name, text in facts:
        if name:
            found.append((name, text))
        else:
            found[-1] = found[-1][0], f"{found[-1][1]}; {text}"
    return found


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])
