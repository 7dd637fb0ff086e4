"""Ledger of a learning rule: what each projection reads (`reads`, `captured`, `pieces`), as a table (`ledger`)."""

from actrelax.analysis.ledger.ledger import Ledger, ledger_of
from actrelax.analysis.ledger.reads import Entry, Read, Reads

__all__ = ["Entry", "Ledger", "Read", "Reads", "ledger_of"]
