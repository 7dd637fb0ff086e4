"""Integrators by name: the package's schemes, and methods of a single engine, named ENGINE:METHOD.

SciPy's adaptive methods approximate the exact flow to their tolerances. Brian2's state updaters hold the summed input
constant within a step, so an updater with stability function R is Euler's scheme with eta_l = 1 - R(-dt/tau_l)
(docs/theory.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import numpy as np

from actrelax.models._names import known, look_up
from actrelax.models.closed_form import EXACT
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import (
    EQUILIBRIUM,
    EULER,
    EXPONENTIAL,
    HEUN,
    RK4,
    SEQUENTIAL,
    Integrator,
    Matrix,
    flow,
    holding,
)
from actrelax.models.problem import State

INTEGRATORS: dict[str, Integrator] = {
    integrator.name: integrator for integrator in (EULER, SEQUENTIAL, HEUN, RK4, EXPONENTIAL, EXACT, EQUILIBRIUM)
}
"""The package's schemes, by name."""

SCIPY = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")
"""Methods of `scipy.integrate.solve_ivp`."""

BRIAN2: dict[str, tuple[Callable[[Matrix], Matrix], float]] = {
    "linear": (np.exp, math.inf),
    "exact": (np.exp, math.inf),
    "independent": (np.exp, math.inf),
    "exponential_euler": (np.exp, math.inf),
    "euler": (lambda z: 1 + z, 2.0),
    "milstein": (lambda z: 1 + z, 2.0),
    "heun": (lambda z: 1 + z, 2.0),
    "rk2": (lambda z: 1 + z + z**2 / 2, 2.0),
    "rk4": (lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24, RK4.stability_limit),
    "gsl_rk2": (np.exp, math.inf),
    "gsl_rk4": (np.exp, math.inf),
    "gsl_rkf45": (np.exp, math.inf),
    "gsl_rkck": (np.exp, math.inf),
    "gsl_rk8pd": (np.exp, math.inf),
    "gsl": (np.exp, math.inf),
}
"""Brian2's state updaters: stability function R of the decay with constant input, and the stability limit.

"heun" and "milstein" treat the drift as Euler does: their further terms matter only for noise that depends on the
state. The GSL updaters follow exp(z) to their own tolerance.
"""
NOISY = ("euler", "heun", "milstein")
"""Brian2's state updaters that accept noise."""


def integrator_named(given: str | Integrator) -> Integrator:
    """Return an integrator by name: a key of `INTEGRATORS`, a SciPy method or ENGINE:METHOD.

    An `Integrator` passes through.

    Raises
    ------
    ActrelaxError
        For an unknown name.

    Examples
    --------
    >>> integrator_named("brian2:rk4").engine
    'brian2'
    >>> integrator_named("RK45").name
    'scipy:RK45'
    """
    if isinstance(given, str) and given in SCIPY:
        given = f"scipy:{given}"
    if not isinstance(given, str) or ":" not in given:
        return look_up("integrator", given, INTEGRATORS, also=f"{', '.join(SCIPY)}, brian2:METHOD")
    engine, method = given.split(":", 1)
    where = f"integrator {given!r}"
    known("engine", engine, ["scipy", "brian2"], where=where)
    if engine == "scipy":
        known("SciPy method", method, SCIPY, where=where)
        return Integrator(given, partial(_no_step, given), flow, None, None, math.inf, engine=engine)
    stability, limit = BRIAN2[known("Brian2 state updater", method, BRIAN2, where=where)]
    return Integrator(
        given,
        partial(_no_step, given),
        holding(lambda ratio: 1 - stability(-ratio)),
        order=1,
        stages=1,
        stability_limit=limit,
        takes_noise=method in NOISY,
        takes_delays=True,
        engine=engine,
    )


def _no_step(name: str, problem: Any, state: State, dt: float) -> NoReturn:
    raise ActrelaxError(f'"{name}" can\'t take single steps outside its engine: use solve.')
