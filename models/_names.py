"""Checks of names and numbers given as arguments."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import SupportsIndex, TypeVar

from actrelax.models.errors import ActrelaxError

T = TypeVar("T")


def known(kind: str, name: object, names: Iterable[str], also: str = "", where: str = "") -> str:
    """Return `name` if it is one of `names`, or refuse it.

    In the message, `also` adds an entry to the list of names and `where` says which argument it was.

    Examples
    --------
    >>> known("integrator", "rk5", ["euler", "rk4"])
    Traceback (most recent call last):
        ...
    actrelax.models.errors.ActrelaxError: unknown integrator 'rk5'; known: euler, rk4.
    >>> known("population", "hidden", ["hidden1", "hidden2"], where="tau")
    Traceback (most recent call last):
        ...
    actrelax.models.errors.ActrelaxError: tau names an unknown population 'hidden'; known: hidden1, hidden2.
    >>> known("condition", "AR, freed", ["AR", "AR, frozen"])
    Traceback (most recent call last):
        ...
    actrelax.models.errors.ActrelaxError: unknown condition 'AR, freed'; known: AR, "AR, frozen".
    """
    names = list(names)
    if not isinstance(name, str) or name not in names:
        quoted = [f'"{each}"' if ", " in each else each for each in names]
        listed = ", ".join([*quoted, also] if also else quoted)
        sentence = f"unknown {kind} {name!r}; known: {listed}."
        raise ActrelaxError(f"{where} names an {sentence}" if where else sentence)
    return name


def nearest(name: str, names: Iterable[str], most: int = 5) -> str:
    """Return a list of names in words: the `most` that are most like one name, and the number of the others.

    Examples
    --------
    >>> nearest("conv3", ["input", "conv1", "conv2", "head"], most=2)
    'conv1, conv2 and 2 more'
    """
    names = list(names)
    alike = sorted(names, key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())
    more = len(names) - most
    return ", ".join(alike[:most]) + (f" and {more} more" if more > 0 else "")


def is_number(value: object) -> bool:
    """Return whether a value is a real number, of Python or NumPy; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def whole_number(name: str, value: SupportsIndex, least: int) -> int:
    """Return an integer, NumPy's included, as an int; refuse anything else and numbers below `least`."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ActrelaxError(f"{name} must be a whole number, {least} or more, got {value!r}.")
    return number


MOST_STEPS = 2**53
"""The largest number of steps that a float counts exactly."""


def whole_steps(name: str, time: float, dt: float) -> int:
    """Return a time as a number of steps of dt; refuse a time that is not a whole number of dt.

    >>> whole_steps("duration", 0.3, 0.1)
    3
    """
    if not time / dt <= MOST_STEPS:
        raise ActrelaxError(f"{name} must be at most 2**53 dt, got {time:g} with dt {dt:g}.")
    steps = round(time / dt)
    if not math.isclose(steps * dt, time, rel_tol=1e-9):
        raise ActrelaxError(f"{name} must be a whole number of dt, got {time:g} with dt {dt:g}.")
    return steps


def look_up(kind: str, given: str | T, registry: Mapping[str, T], also: str = "") -> T:
    """Return the registry's entry for a name, or refuse the name; an object of the entries' type passes through."""
    entry_types = tuple(type(entry) for entry in registry.values())
    if isinstance(given, entry_types):
        return given
    return registry[known(kind, given, registry, also)]
