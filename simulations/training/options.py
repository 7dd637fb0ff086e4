"""Numbers in range, and options that decide the defaults of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from actrelax.models.errors import ActrelaxError

Number = float | int | None


def require(**ranges: tuple[Number, float, float]) -> None:
    """Refuse a number that is not finite or outside its range; None passes.

    Parameters
    ----------
    **ranges
        Option -> (value, least, most), both included; least `POSITIVE` excludes 0.

    Raises
    ------
    ActrelaxError
        For the first value out of range.
    """
    for name, (value, least, most) in ranges.items():
        if value is None or (least <= value <= most and value < math.inf):
            continue
        if value == math.inf:
            said = "a finite number"
        elif most == math.inf:
            said = "positive" if least == POSITIVE else f"{least:g} or more"
        else:
            said = f"positive and at most {most:g}" if least == POSITIVE else f"between {least:g} and {most:g}"
        raise ActrelaxError(f"--{name.replace('_', '-')} must be {said}, got {value:g}.")


POSITIVE = math.ulp(0.0)
"""The least positive number, as a bound for `require`."""


T = TypeVar("T")


def given_in(arguments: Sequence[str], kind: type[T]) -> T:
    """Return these options among those of a command line, which decide the defaults of the others."""
    import tyro  # here: benchmarks/gpu.py runs without it

    found, _ = tyro.cli(kind, args=arguments, return_unknown_args=True, add_help=False)
    return found
