"""Choice by name: activations, losses, integrators, presets and networks are entries of a dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TypeVar

from actrelax.models.errors import ActrelaxError

T = TypeVar("T")


def known(kind: str, name: object, names: Iterable[str], also: str = "") -> str:
    """Return `name` if it is one of `names`.

    Raises
    ------
    ActrelaxError
        If it isn't; the message lists the known names of that `kind`.

    Examples
    --------
    >>> known("integrator", "rk5", ["euler", "rk4"])
    Traceback (most recent call last):
        ...
    actrelax.models.errors.ActrelaxError: unknown integrator 'rk5'; known: euler, rk4.
    """
    names = list(names)
    if not isinstance(name, str) or name not in names:
        listed = ", ".join([*names, also] if also else names)
        raise ActrelaxError(f"unknown {kind} {name!r}; known: {listed}.")
    return name


def is_number(value: object) -> bool:
    """Whether it is a real number, NumPy's included."""
    return isinstance(value, Real)


def look_up(kind: str, given: str | T, registry: Mapping[str, T], also: str = "") -> T:
    """Return the entry of that name; something of the entries' type, a user's own, passes through.

    `also` says what else is known, without being an entry.

    Raises
    ------
    ActrelaxError
        If it is neither; the message lists the known names.
    """
    if isinstance(given, type(next(iter(registry.values())))):
        return given
    return registry[known(kind, given, registry, also)]
