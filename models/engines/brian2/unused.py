"""Brian2 objects that are never run: Brian2 warns of each when it is deleted, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brian2.core.base import BrianObject


@contextmanager
def forgotten_on_error() -> Iterator[None]:
    """Keep Brian2 from warning of objects that were made in a `with` block or function that raises an error."""
    before = set(BrianObject.__instances__())
    try:
        yield
    except BaseException:
        for reference in set(BrianObject.__instances__()) - before:
            made = reference()
            if made is not None:
                object.__setattr__(made, "_network", "none")  # groups may not be ready to set attributes
        raise


def own(network: Any) -> None:
    """Let a network's objects belong to it from now on, as if it had run, so that it may be deleted unused."""
    for each in network.objects:
        each._network = network.id
