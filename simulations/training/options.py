"""Ranges of numeric options, and options that determine the defaults of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

from actrelax.models.errors import ActrelaxError

try:
    from tyro.conf import UseAppendAction
except ModuleNotFoundError:  # benchmarks/gpu.py runs without it
    UseAppendAction = None  # type: ignore[misc]

Number = float | int | None
Repeated = Annotated[tuple[str, ...], UseAppendAction]
"""Names, each given by repeating the option."""


def require(**ranges: tuple[Number, float, float]) -> None:
    """Raise an error for a number that is not finite or out of range; None is accepted.

    Parameters
    ----------
    **ranges
        Option -> (value, minimum, maximum), both inclusive; a maximum of infinity means `LARGEST`.

    Raises
    ------
    ActrelaxError
        If a value is out of range.
    """
    for name, (value, least, most) in ranges.items():
        if value is None or least <= value <= (LARGEST if most == math.inf else most):
            continue
        if value == math.inf:
            said = "a finite number"
        elif value > LARGEST and most == math.inf:
            said = f"at most {LARGEST:g}"
        elif 0 < value < least == POSITIVE:
            said = f"{POSITIVE:g} or more"
        elif most == math.inf:
            said = "positive" if least == POSITIVE else f"{least:g} or more"
        else:
            said = f"positive and at most {most:g}" if least == POSITIVE else f"between {least:g} and {most:g}"
        raise ActrelaxError(f"--{name.replace('_', '-')} must be {said}, got {_short(value)}.")


def _short(value: float) -> str:
    """Format a number, which may be an integer beyond all floats."""
    return f"{value:g}" if abs(value) < 1e300 or not isinstance(value, int) else f"{str(value)[:12]}..."


LARGEST, POSITIVE = 1e30, 1e-30
"""Bounds of finite and of positive numbers: products and quotients of two such numbers stay within single precision's
range, or overflow where divergence is checked. `POSITIVE` as a minimum excludes 0."""


T = TypeVar("T")


def given_in(arguments: Sequence[str], kind: type[T]) -> T:
    """Parse the options of one dataclass from a command line, ignoring all others."""
    import tyro  # here: benchmarks/gpu.py runs without it

    found, _ = tyro.cli(kind, args=arguments, return_unknown_args=True, add_help=False)
    return found
