"""Checks of arguments: names, which are keys of dicts, and numbers."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import SupportsIndex, TypeVar

from actrelax.models.errors import ActrelaxError

T = TypeVar("T")


def known(kind: str, name: object, names: Iterable[str], also: str = "", where: str = "") -> str:
    """Return `name` if it is one of `names`.

    Parameters
    ----------
    kind : str
        Kind of thing that has the names, for the message.
    name : object
        The name to check.
    names : iterable of str
        All valid names.
    also : str, optional
        A further entry of the message's list, such as a pattern of names.
    where : str, optional
        The argument in which the name occurs.

    Raises
    ------
    ActrelaxError
        If it is not; the message lists the valid names.

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
    """
    names = list(names)
    if not isinstance(name, str) or name not in names:
        listed = ", ".join([*names, also] if also else names)
        sentence = f"unknown {kind} {name!r}; known: {listed}."
        raise ActrelaxError(f"{where} names an {sentence}" if where else sentence)
    return name


def is_number(value: object) -> bool:
    """Return whether a value is a real number, of Python or NumPy."""
    return isinstance(value, Real)


def whole_number(name: str, value: SupportsIndex, least: int) -> int:
    """Return a count as an int; NumPy integers are accepted.

    Raises
    ------
    ActrelaxError
        If the value is not a whole number or is below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ActrelaxError(f"{name} must be a whole number, {least} or more, got {value!r}.")
    return number


def look_up(kind: str, given: str | T, registry: Mapping[str, T], also: str = "") -> T:
    """Return the registry's entry of a name; an object of the entries' type passes through.

    Parameters
    ----------
    kind : str
        Kind of the entries, for the message.
    given : str or an object of the entries' type
    registry : mapping
        Name -> entry.
    also : str, optional
        A further entry of the message's list.

    Raises
    ------
    ActrelaxError
        For an unknown name or another type; the message lists the known names.
    """
    entry_types = tuple(type(entry) for entry in registry.values())
    if isinstance(given, entry_types):
        return given
    return registry[known(kind, given, registry, also)]
