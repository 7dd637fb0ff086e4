"""Which of Brian2's targets exist, and choosing one without leaving a global preference behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import brian2 as b2
from brian2.codegen.targets import codegen_targets

from actrelax.models.registry import known


def targets() -> list[str]:
    """Return the names of Brian2's targets that compute here and now."""
    names = []
    for target in codegen_targets:
        try:
            works = target.is_available()
        except NotImplementedError:  # those that write a program of its own instead
            works = False
        if works:
            names.append(target.class_name)
    return sorted(names)


def target_named(name: str) -> str:
    """Return `name` if Brian2 has a target of that name that works here.

    Raises
    ------
    ActrelaxError
        If not; the message lists those that do.
    """
    # whether a compiler works takes seconds to find out, and numpy needs none
    return name if name == "numpy" else known("target of Brian2", name, targets())


@contextmanager
def generating(target: str) -> Iterator[None]:
    """Let Brian2 compute with a target, which is a global preference, inside the block."""
    before = b2.prefs.codegen.target
    b2.prefs.codegen.target = target
    try:
        yield
    finally:
        b2.prefs.codegen.target = before
