"""The ledger of a learning rule: what each weight update used, derived from the network and its assumptions.

Papers assert which parts of a rule are local. `ledger_of` derives it: which weights carry feedback, which derivatives
are read and when, what is remembered from the forward pass, whether samples or units mix, how many synapses share a
weight; and for the network as a whole phases, hops, time and global signals (docs/ledger.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from scipy import stats
from torch import Tensor

from actrelax.analysis.ledger.captured import captured_entries
from actrelax.analysis.ledger.reads import Entry, Read, Reads, entries, has_weights
from actrelax.analysis.tables import Table
from actrelax.models._names import look_up
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import CapturedNetwork, CapturedPass, FeedforwardPass, Network, check_network

SHARE = 0.99
"""Share of the error signal that has arrived at the lowest population after `Ledger.time`."""


@dataclass(frozen=True)
class Ledger:
    """What learning in a network used; `print` shows it.

    network         the network in words
    assumptions     the preset, or "custom"
    entries         one per projection
    phases          the phases of one stimulus, in order
    hops            hops of the error signal from the output to the lowest population; None in a cycle
    time            time, in time constants, until 99 % of the error signal has arrived there; None if no law says so
    lowest          the population with the most hops; "" without hidden populations
    global_signals  what all neurons or synapses must be told
    """

    network: str
    assumptions: str
    entries: tuple[Entry, ...]
    phases: tuple[str, ...]
    hops: int | None
    time: float | None
    lowest: str
    global_signals: tuple[str, ...]

    def __getitem__(self, projection: str) -> Entry:
        return look_up("projection", projection, self._by_name)

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {entry.projection: entry for entry in self.entries}

    @property
    def not_local(self) -> list[str]:
        """All that some projection needs beyond its synapses and their neurons, each once."""
        return list(dict.fromkeys(reason for entry in self.entries for reason in entry.not_local))

    def reads(self, projection: str) -> Reads:
        """Return all that a weight update depends on: its own reads, and those of the activities among them.

        Activities follow from the feedback that arrives; the initial state is left out.
        """
        found, todo = set[Read](), set(self[projection].update_reads)
        while todo:
            read = todo.pop()
            found.add(read)
            if read.what == "activity":
                arriving = (entry.feedback_reads for entry in self.entries if entry.source == read.of)
                todo |= frozenset[Read]().union(*arriving) - found
        return frozenset(found)

    def table(self) -> Table:
        """Return the table of the projections."""
        columns = [(name, "") for name in _COLUMNS]
        return Table.of(f"What learning uses: assumptions {self.assumptions}", columns, map(_cells, self.entries))

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Name and text of what holds for the network as a whole."""
        hops = "without end, in a cycle" if self.hops is None else f"{self.hops}, from the output to {self.lowest}"
        arrival = f"until {100 * SHARE:.0f} % of the error signal is at {self.lowest}"
        time = "no law" if self.time is None else f"{self.time:.1f} time constants {arrival}"
        return [
            ("phases", ", then ".join(self.phases)),
            *([("hops", hops), ("time", time)] if self.lowest else []),
            *zip(["global signals", *[""] * len(self.global_signals)], self.global_signals, strict=False),
            ("not local", ", ".join(self.not_local) or "nothing"),
        ]

    @property
    def summary(self) -> dict[str, Any]:
        """The ledger as JSON has it, with what each projection reads."""
        shown = [field.name for field in fields(Entry) if not field.name.endswith("reads")]
        rows = [{name: getattr(entry, name) for name in shown} for entry in self.entries]
        for row, entry in zip(rows, self.entries, strict=True):
            row |= {name: sorted(getattr(entry, name)) for name in ("feedback_reads", "update_reads")}
            row["not_local"] = entry.not_local
        named = {field.name: getattr(self, field.name) for field in fields(Ledger)}
        return named | {"entries": rows, "not_local": self.not_local}

    def __str__(self) -> str:
        rows = [list(_COLUMNS), *(_cells(entry) for entry in self.entries)]
        title = f"ledger of {self.network}, assumptions {self.assumptions}"
        return "\n".join([title, *_aligned(rows), "", *_aligned(list(map(list, self.facts)))])


def ledger_of(
    network: Network, assumptions: str | Assumptions = "ar", x: Tensor | FeedforwardPass | None = None
) -> Ledger:
    """Derive what learning in a network uses under some assumptions.

    The graph of the network and the knobs of each projection decide, not the name of a preset. Feedback weights need
    not exist yet.

    Parameters
    ----------
    network : Network
    assumptions : str or Assumptions, default "ar"
    x : torch.Tensor or FeedforwardPass, optional
        For a captured network, a batch or its forward pass: what autograd's graph of this batch contains is what
        learning uses. Two samples show whether samples mix. The module's buffers and random generators are restored.

    Returns
    -------
    Ledger

    Raises
    ------
    ActrelaxError
        For unknown assumptions, names of unknown projections in them, and a captured network without a batch.

    Examples
    --------
    >>> from actrelax import build
    >>> print(ledger_of(build("digits-mlp"), "random-feedback"))
    ledger of 64-32-10, assumptions 'random-feedback'
      projection       local  feedback   slope in feedback  slope in update  remembers  synapses/weight  adjoint
      input->hidden1   yes    -          -                  forward pass     slope      1                formula
      hidden1->output  yes    fixed psi  constant           constant         activity   1                formula
    <BLANKLINE>
      phases          forward pass, then relaxation, then weights change
      hops            1, from the output to hidden1
      time            4.6 time constants until 99 % of the error signal is at hidden1
      global signals  the output holds the gradient of its loss
                      all neurons begin to relax together
                      synapses learn when the relaxation has ended
                      nothing is learned from a sample without a loss gradient
      not local       nothing
    """
    check_network(network)
    given = look_up("assumptions", assumptions, PRESETS)
    network, found = _derived(network, given, x)
    hops, lowest = _hops(network)
    is_lawful = hops and "now" not in {entry.feedback_slope for entry in found}
    return Ledger(
        _in_words(network),
        repr(given.preset) if given.preset else "custom",
        found,
        tuple(_phases(network, given)),
        hops,
        # P(K >= hops) of Poisson's law (docs/theory.md, section 4) is the distribution function of a gamma variable
        float(stats.gamma.ppf(SHARE, hops)) if is_lawful else None,
        lowest,
        tuple(_global_signals(network, given)),
    )


def _derived(
    network: Network, assumptions: Assumptions, x: Tensor | FeedforwardPass | None
) -> tuple[Network, tuple[Entry, ...]]:
    """Return the network, with the populations of this batch, and its entries."""
    if not isinstance(network, CapturedNetwork):
        assumptions.check_names(network.projections)
        return network, tuple(entries(network, assumptions))
    if isinstance(x, Tensor):
        with network.fork_state(x):
            x = network.feedforward(x)
    if not isinstance(x, CapturedPass):
        raise ActrelaxError(
            "the ledger of a captured network is derived from the graph of a batch: pass ledger_of(network, "
            "assumptions, images)."
        )
    assumptions.check_names(x.network.projections)
    return x.network, tuple(captured_entries(x, assumptions))


def _in_words(network: Network) -> str:
    if isinstance(network, CapturedNetwork):
        return f"a captured {type(network.module).__name__}"
    return "-".join("x".join(map(str, population.shape)) for population in network.populations.values())


def _hops(network: Network) -> tuple[int | None, str]:
    """Return the hops from the output to the lowest hidden population, and its name."""
    if network.is_recurrent:
        return None, network.hidden[0]
    above = network.graph.above
    lowest = max(network.hidden, key=lambda name: above[name], default="")
    return (above[lowest], lowest) if lowest else (0, "")


def _phases(network: Network, assumptions: Assumptions) -> Iterator[str]:
    """Yield the phases of one stimulus."""
    yield "rates settle" if network.is_recurrent else "forward pass"
    during, learning = _during(network, assumptions)
    all_of = "weights" if len(during) == learning else f"weights of {', '.join(during)}"
    yield f"relaxation, in which {all_of} change" if during else "relaxation"
    if len(during) < learning:
        yield "other weights change" if during else "weights change"


def _during(network: Network, assumptions: Assumptions) -> tuple[list[str], int]:
    """Return the projections whose weights change during the relaxation, and the number of all with weights."""
    learning = [p for p in network.projections.values() if has_weights(p)]
    timing = {p.name: network.knobs(p, assumptions).plasticity for p in learning}
    return [name for name, when in timing.items() if when == "continuous"], len(learning)


def _global_signals(network: Network, assumptions: Assumptions) -> Iterator[str]:
    """Yield what all neurons or synapses must be told."""
    yield "the output holds the gradient of its loss"
    yield "all neurons begin to relax together"
    during, learning = _during(network, assumptions)
    if len(during) < learning:
        yield "synapses learn when the relaxation has ended"
    yield "nothing is learned from a sample without a loss gradient"


_COLUMNS = (
    "projection",
    "local",
    "feedback",
    "slope in feedback",
    "slope in update",
    "remembers",
    "synapses/weight",
    "adjoint",
)


def _cells(entry: Entry) -> list[str]:
    """Return the row of one projection."""
    return [
        entry.projection,
        f"no: {', '.join(entry.not_local)}" if entry.not_local else "yes",
        entry.feedback or "-",
        entry.feedback_slope or "-",
        entry.update_slope or "-",
        ", ".join(entry.remembered) or "-",
        f"{entry.synapses:,}" if entry.synapses else "-",
        "autograd" if entry.by_autograd else "formula",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, in columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
