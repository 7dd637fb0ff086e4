"""What a unit does with the feedback it receives: leaky integration, or a small linear system of its own.

Written with operators only, so that the same lines move PyTorch's tensors and NumPy's arrays. A state is a mapping
from variables to arrays; a leaky population has one variable, called like the population.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import expm

from actrelax.models._names import is_number, known
from actrelax.models.errors import ActrelaxError

Array = Any
"""A torch.Tensor or a numpy.ndarray; all arrays of one state are of one kind."""
Variables = dict[str, Array]


class Unit(Protocol):
    """The dynamics of one population's units; u is what they receive."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of its variables in a state."""

    @property
    def gain(self) -> float:
        """What the activity settles at when u is held at 1."""

    def activity(self, state: Mapping[str, Array]) -> Array:
        """Return x."""

    def resting(self, u: Array) -> Variables:
        """Return the state that doesn't change while u is held."""

    def rate(self, state: Mapping[str, Array], u: Array) -> Variables:
        """Return the time derivative of each variable."""

    def euler(self, state: Mapping[str, Array], u: Array, dt: float) -> Variables:
        """Return the variables after an explicit Euler step."""

    def held(self, state: Mapping[str, Array], u: Array, dt: float) -> Variables:
        """Return the variables after dt with u held: exact then."""


@dataclass(frozen=True, eq=False)
class Leaky:
    """tau dx/dt = -x + u, the bracket -x + u clamped to [-clip, clip] where there is a clip.

    name  of the population and of its one variable; tau  a number or one per neuron
    """

    name: str
    tau: Array
    clip: float | None = None
    gain = 1.0

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.name,)

    def activity(self, state: Mapping[str, Array]) -> Array:
        return state[self.name]

    def resting(self, u: Array) -> Variables:
        return {self.name: u}

    def bracket(self, x: Array, u: Array) -> Array:
        """-x + u, clipped: zero at equilibrium."""
        return u - x if self.clip is None else (u - x).clip(-self.clip, self.clip)

    def rate(self, state: Mapping[str, Array], u: Array) -> Variables:
        return {self.name: self.bracket(state[self.name], u) / self.tau}

    def euler(self, state: Mapping[str, Array], u: Array, dt: float) -> Variables:
        return self._towards(state[self.name], u, dt / self.tau)

    def held(self, state: Mapping[str, Array], u: Array, dt: float) -> Variables:
        return self._towards(state[self.name], u, _decayed(dt / self.tau))

    def _towards(self, x: Array, u: Array, eta: Array) -> Variables:
        """(1 - eta) x + eta u."""
        if self.clip is None and isinstance(x, torch.Tensor):
            return {self.name: torch.lerp(x, u, eta)}  # the same in one kernel
        return {self.name: x + eta * self.bracket(x, u)}


@dataclass(frozen=True)
class UnitDynamics:
    """A linear state space per unit in place of the leaky integrator: ds/dt = A s + b u, x = c s.

    u is the feedback that the unit receives, x its activity. Where the gain -c A^-1 b is 1, the equilibrium of the
    network is that of leaky units: backprop's gradient.

    Parameters
    ----------
    A : sequence of sequences of float
        (order, order), in 1 / unit of time; stable: all eigenvalues have a negative real part.
    b, c : sequence of float
        (order,)

    Raises
    ------
    ActrelaxError
        For shapes that don't fit, values that are not finite, an unstable A, or a gain of zero.

    Examples
    --------
    >>> UnitDynamics.second_order(tau=10.0, damping=0.5).gain
    1.0
    >>> UnitDynamics.adapting(tau=10.0, tau_adaptation=100.0, strength=2.0).order
    2
    """

    A: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]

    def __post_init__(self) -> None:
        matrix, b, c = (_numbers(name, getattr(self, name)) for name in ("A", "b", "c"))
        if len(b.shape) != 1 or b.size == 0 or matrix.shape != (len(b), len(b)) or c.shape != b.shape:
            raise ActrelaxError(
                f"unit dynamics take A (order, order) with b and c (order,), got {matrix.shape}, {b.shape}, {c.shape}."
            )
        slowest = np.linalg.eigvals(matrix).real.max()
        if not slowest < 0:
            raise ActrelaxError(
                f"unit dynamics must be stable: A has an eigenvalue of real part {slowest:.3g}, it must be negative."
            )
        for name, value in (
            ("A", tuple(map(tuple, matrix.tolist()))),
            ("b", tuple(b.tolist())),
            ("c", tuple(c.tolist())),
        ):
            object.__setattr__(self, name, value)
        if abs(self.gain) < 1e-12:
            raise ActrelaxError("unit dynamics must pass a constant input on: -c A^-1 b is zero.")

    @classmethod
    def second_order(cls, tau: float, damping: float) -> UnitDynamics:
        """tau^2 x'' + 2 damping tau x' + x = u: rings where damping is below 1."""
        _positive(tau=tau, damping=damping)
        return cls(((0, 1 / tau), (-1 / tau, -2 * damping / tau)), (0, 1 / tau), (1, 0))

    @classmethod
    def synaptic_filter(cls, tau: float, tau_synapse: float) -> UnitDynamics:
        """tau x' = -x + s, tau_synapse s' = -s + u: an exponential synapse before the leaky unit."""
        _positive(tau=tau, tau_synapse=tau_synapse)
        return cls(((-1 / tau, 1 / tau), (0, -1 / tau_synapse)), (0, 1 / tau_synapse), (1, 0))

    @classmethod
    def adapting(cls, tau: float, tau_adaptation: float, strength: float) -> UnitDynamics:
        """tau x' = -x - strength w + (1 + strength) u, tau_adaptation w' = x - w: an adaptation current w.

        The input is scaled so that the unit still settles at u: it overshoots first, and adapts to it.
        """
        _positive(tau=tau, tau_adaptation=tau_adaptation)
        slow = 1 / tau_adaptation
        return cls(((-1 / tau, -strength / tau), (slow, -slow)), ((1 + strength) / tau, 0), (1, 0))

    @property
    def order(self) -> int:
        """Variables a unit."""
        return len(self.b)

    @property
    def settled(self) -> tuple[float, ...]:
        """-A^-1 b, the state under a constant input of 1."""
        return tuple((-np.linalg.solve(np.asarray(self.A), np.asarray(self.b))).tolist())

    @property
    def gain(self) -> float:
        """-c A^-1 b, the activity under a constant input of 1."""
        return math.fsum(c * s for c, s in zip(self.c, self.settled, strict=True))


def check_dynamics(dynamics: object, populations: Sequence[str]) -> None:
    """Refuse anything but a mapping from some of the populations to `UnitDynamics`.

    Raises
    ------
    ActrelaxError
        For the first entry that is something else.
    """
    if not isinstance(dynamics, Mapping):
        raise ActrelaxError(f"dynamics must map populations to UnitDynamics, got {type(dynamics).__name__}.")
    for name, given in dynamics.items():
        known("population", name, populations, where="dynamics")
        if not isinstance(given, UnitDynamics):
            raise ActrelaxError(f"dynamics of {name!r} must be UnitDynamics, got {type(given).__name__}.")


@dataclass(frozen=True)
class StateSpace:
    """The units of a population with dynamics of their own; its variables are called NAME.0, NAME.1, ..."""

    name: str
    dynamics: UnitDynamics

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{i}" for i in range(self.dynamics.order))

    @property
    def gain(self) -> float:
        return self.dynamics.gain

    def activity(self, state: Mapping[str, Array]) -> Array:
        return _combined(self.dynamics.c, self._of(state))

    def resting(self, u: Array) -> Variables:
        return {v: s * u for v, s in zip(self.variables, self.dynamics.settled, strict=True)}

    def rate(self, state: Mapping[str, Array], u: Array) -> Variables:
        return self._mapped(self.dynamics.A, self.dynamics.b, state, u)

    def euler(self, state: Mapping[str, Array], u: Array, dt: float) -> Variables:
        return {v: state[v] + dt * rate for v, rate in self.rate(state, u).items()}

    def held(self, state: Mapping[str, Array], u: Array, dt: float) -> Variables:
        return self._mapped(*_flow(self.dynamics, dt), state, u)

    def _of(self, state: Mapping[str, Array]) -> list[Array]:
        return [state[v] for v in self.variables]

    def _mapped(
        self, rows: Sequence[Sequence[float]], column: Sequence[float], state: Mapping[str, Array], u: Array
    ) -> Variables:
        values = [*self._of(state), u]
        return {v: _combined((*row, b), values) for v, row, b in zip(self.variables, rows, column, strict=True)}


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (is_number(value) and 0 < value < math.inf):
            raise ActrelaxError(f"{name} of unit dynamics must be positive, got {value!r}.")


def _numbers(name: str, given: object) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.asarray(np.nan)
    if not np.isfinite(numbers).all():
        raise ActrelaxError(f"{name} of unit dynamics must hold finite numbers, got {given!r}.")
    return numbers


def _combined(weights: Sequence[float], arrays: Sequence[Array]) -> Array:
    """Return the sum of weight times array, without the terms that are zero."""
    terms = [weight * array for weight, array in zip(weights, arrays, strict=True) if weight != 0]
    return functools.reduce(operator.add, terms)


@functools.lru_cache(maxsize=64)
def _flow(dynamics: UnitDynamics, dt: float) -> tuple[list[list[float]], list[float]]:
    """Return E and f of s(dt) = E s + f u with u held."""
    order = dynamics.order
    augmented = np.zeros((order + 1, order + 1))
    augmented[:order, :order], augmented[:order, order] = dynamics.A, dynamics.b
    flow = expm(dt * augmented)
    return flow[:order, :order].tolist(), flow[:order, order].tolist()


def _decayed(ratio: Array) -> Array:
    """1 - exp(-ratio)."""
    if isinstance(ratio, torch.Tensor):
        return -torch.expm1(-ratio)
    return -math.expm1(-ratio) if isinstance(ratio, float) else -np.expm1(-ratio)
