"""Options of the engines."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from actrelax.models._names import is_number, whole_number
from actrelax.models._values import as_number
from actrelax.models.errors import ActrelaxError

SMALLEST_RTOL = 100 * np.finfo(float).eps
"""Smallest rtol; SciPy would raise smaller values to it."""


@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """Options of the PyTorch engine, which all engines share.

    Parameters
    ----------
    check_finite : bool, default True
        Raise a `DivergenceError` if the final state has nan or inf. On a GPU the check waits for the device; in a
        loop, turn it off and check less often.
    """

    check_finite: bool = True

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True, kw_only=True)
class SciPyOptions(TorchOptions):
    """Options of SciPy's methods, besides `check_finite`.

    Parameters
    ----------
    rtol, atol : float, default 1e-8 and 1e-12
        Relative and absolute tolerance of the local error; choose atol well below the smallest gradients.
    max_evaluations : int, default 100,000
        Limit on evaluations of the vector field. All methods stall at the jumps of relu's current gain, and explicit
        methods are slow for widely different time constants.
    dense : bool, default False
        Keep the interpolants of all steps in memory, for `Trajectory.at`.

    Raises
    ------
    ActrelaxError
        For values out of range.
    """

    rtol: float = 1e-8
    atol: float = 1e-12
    max_evaluations: int = 100_000
    dense: bool = False

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            object.__setattr__(self, name, as_number(getattr(self, name)))
        if not (is_number(self.rtol) and SMALLEST_RTOL <= self.rtol < 1):
            raise ActrelaxError(f"rtol must lie between {SMALLEST_RTOL:.3g} and 1, got {self.rtol!r}.")
        if not (is_number(self.atol) and 0 <= self.atol < np.inf):
            raise ActrelaxError(f"atol must be 0 or positive, got {self.atol!r}.")
        object.__setattr__(self, "max_evaluations", whole_number("max_evaluations", self.max_evaluations, least=1))


@dataclass(frozen=True, kw_only=True)
class Brian2Options(TorchOptions):
    """Options of Brian2, besides `check_finite`.

    Parameters
    ----------
    codegen : str, default "numpy"
        Brian2's code generation target. "numpy" needs no compiler; "cython" compiles for up to a minute the first
        time, and Brian2 caches the compiled code.
    """

    codegen: str = "numpy"


Options = TorchOptions | SciPyOptions | Brian2Options
