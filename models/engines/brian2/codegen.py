"""Which of Brian2's targets exist, and choosing one without leaving a global preference behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import brian2 as b2
import numpy as np
from brian2.codegen.targets import codegen_targets
from brian2.devices.device import RuntimeDevice

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError


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
    return name if name == "numpy" else known("Brian2 target", name, targets())


def is_at_runtime() -> bool:
    """Whether Brian2 runs what it is given, in place of writing a program."""
    return isinstance(b2.get_device(), RuntimeDevice)


def at_runtime() -> None:
    """Refuse to go on if Brian2 is set to write a program instead of running.

    Raises
    ------
    ActrelaxError
        If another device than Brian2's own is active.
    """
    if not is_at_runtime():
        raise ActrelaxError(
            "Brian2 is set to write a standalone program: call brian2.set_device('runtime') first, "
            'or solve with codegen="cpp_standalone", in a process of its own.'
        )


@contextmanager
def generating(target: str) -> Iterator[None]:
    """Let Brian2 compute with a target and in float64, which are global preferences, inside the block."""
    before = b2.prefs.codegen.target, b2.prefs.core.default_float_dtype
    b2.prefs.codegen.target, b2.prefs.core.default_float_dtype = target, np.float64
    try:
        yield
    finally:
        b2.prefs.codegen.target, b2.prefs.core.default_float_dtype = before
