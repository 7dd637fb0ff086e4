"""Brian2's code generation targets: a list of those that work, and a context manager that sets one."""

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
    """Return the names of the targets that work on this machine."""
    names = []
    for target in codegen_targets:
        try:
            works = target.is_available()
        except NotImplementedError:  # targets of standalone programs
            works = False
        if works:
            names.append(target.class_name)
    return sorted(names)


def target_named(name: str) -> str:
    """Return `name` if the target works on this machine, or refuse it with a list of working targets."""
    # the test for a compiler takes seconds, and numpy needs none
    return name if name == "numpy" else known("Brian2 target", name, targets())


def is_runtime() -> bool:
    """Return whether Brian2 runs simulations directly, not as standalone programs."""
    return isinstance(b2.get_device(), RuntimeDevice)


def require_runtime() -> None:
    """Refuse a standalone device."""
    if not is_runtime():
        raise ActrelaxError(
            "Brian2 is set to write a standalone program: call brian2.set_device('runtime') first, "
            "or use actrelax.brian2.build, which supports standalone programs."
        )


@contextmanager
def generating(target: str) -> Iterator[None]:
    """Set Brian2's global preferences for target and dtype (float64) inside a block.

    Examples
    --------
    >>> with generating("numpy"):
    ...     b2.prefs.codegen.target
    'numpy'
    """
    before = b2.prefs.codegen.target, b2.prefs.core.default_float_dtype
    b2.prefs.codegen.target, b2.prefs.core.default_float_dtype = target, np.float64
    try:
        yield
    finally:
        b2.prefs.codegen.target, b2.prefs.core.default_float_dtype = before
