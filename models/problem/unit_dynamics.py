"""The dynamics of single units that receive feedback u: leaky integration or a linear state space.

A state maps variables to tensors; a leaky population has one variable, with the population's name.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import expm, solve_continuous_lyapunov
from torch import Tensor

from actrelax.models._names import is_number, known
from actrelax.models._values import is_quantity
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem.per_neuron import Value

State = dict[str, Tensor]
"""Variable -> (batch, *population.shape); the only variable of a leaky population has the population's name."""


@dataclass(frozen=True, eq=False)
class Leaky:
    """tau dx/dt = -x + u; with a clip the residual -x + u is clamped to [-clip, clip].

    name  the name of the population and of its only variable
    tau   a number, or a tensor with one value per neuron
    """

    name: str
    tau: Value
    clip: float | None = None
    gain = 1.0
    """Activity at the fixed point for u = 1."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables in a state."""
        return (self.name,)

    def activity(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return x."""
        return state[self.name]

    def fixed_point(self, u: Tensor) -> State:
        """Return the variables at which all rates are zero."""
        return {self.name: u}

    def residual(self, x: Tensor, u: Tensor) -> Tensor:
        """Return -x + u, clipped: zero at the fixed point."""
        return u - x if self.clip is None else (u - x).clip(-self.clip, self.clip)

    def rate(self, state: Mapping[str, Tensor], u: Tensor) -> State:
        """Return the time derivative of each variable."""
        return {self.name: self.residual(state[self.name], u) / self.tau}

    def noise_scales(self, sigma: Value, dt: float) -> dict[str, Value]:
        """Return the standard deviation of one step's noise per noisy variable; a unit's variables share one draw."""
        return {self.name: sigma * (2 * dt / self.tau) ** 0.5}

    def euler(self, state: Mapping[str, Tensor], u: Tensor, dt: float) -> State:
        """Return the variables after an explicit Euler step."""
        return self._approach(state[self.name], u, dt / self.tau)

    def exact_step(self, state: Mapping[str, Tensor], u: Tensor, dt: float) -> State:
        """Return the exact solution after dt for constant u."""
        ratio = dt / self.tau
        eta = -torch.expm1(-ratio) if isinstance(ratio, Tensor) else -math.expm1(-ratio)
        return self._approach(state[self.name], u, eta)

    def _approach(self, x: Tensor, u: Tensor, eta: Value) -> State:
        """Return (1 - eta) x + eta u."""
        if self.clip is None:
            return {self.name: torch.lerp(x, u, eta)}
        return {self.name: x + eta * self.residual(x, u)}


@dataclass(frozen=True)
class UnitDynamics:
    """A linear state space per unit in place of the leaky integrator: ds/dt = A s + b u, x = c s.

    u is the feedback, x the activity. If the gain -c A^-1 b is 1, the network's equilibrium is the same as with leaky
    units: backprop's gradient.

    Parameters
    ----------
    A : sequence of sequences of float
        (order, order), in 1 / unit of time; stable: all eigenvalues have a negative real part.
    b, c : sequence of float
        (order,)

    Raises
    ------
    ActrelaxError
        For wrong shapes, values that are not finite, an unstable A, or a gain of zero.

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
                f"unit dynamics must be stable: eigenvalues of A need negative real parts, got {slowest:.3g}."
            )
        object.__setattr__(self, "A", tuple(map(tuple, matrix.tolist())))
        object.__setattr__(self, "b", tuple(b.tolist()))
        object.__setattr__(self, "c", tuple(c.tolist()))
        if abs(self.gain) < 1e-12:
            raise ActrelaxError("unit dynamics must have a gain -c A^-1 b other than 0.")

    @classmethod
    def second_order(cls, tau: float, damping: float) -> UnitDynamics:
        """Return second-order units, tau^2 x'' + 2 damping tau x' + x = u, which oscillate if damping is below 1."""
        _positive(tau=tau, damping=damping)
        return cls(((0, 1 / tau), (-1 / tau, -2 * damping / tau)), (0, 1 / tau), (1, 0))

    @classmethod
    def synaptic_filter(cls, tau: float, tau_synapse: float) -> UnitDynamics:
        """Return leaky units with exponential synapses: tau x' = -x + s, tau_synapse s' = -s + u."""
        _positive(tau=tau, tau_synapse=tau_synapse)
        return cls(((-1 / tau, 1 / tau), (0, -1 / tau_synapse)), (0, 1 / tau_synapse), (1, 0))

    @classmethod
    def adapting(cls, tau: float, tau_adaptation: float, strength: float) -> UnitDynamics:
        """Return adapting units: tau x' = -x - strength w + (1 + strength) u, tau_adaptation w' = x - w.

        w is the adaptation current. The input is scaled so that x overshoots, adapts and settles at u.
        """
        _positive(tau=tau, tau_adaptation=tau_adaptation)
        slow = 1 / tau_adaptation
        return cls(((-1 / tau, -strength / tau), (slow, -slow)), ((1 + strength) / tau, 0), (1, 0))

    @property
    def order(self) -> int:
        """Number of variables per unit."""
        return len(self.b)

    @property
    def fixed_point(self) -> tuple[float, ...]:
        """-A^-1 b, the variables at the fixed point for u = 1."""
        return tuple((-np.linalg.solve(np.asarray(self.A), np.asarray(self.b))).tolist())

    @property
    def gain(self) -> float:
        """-c A^-1 b, the activity at the fixed point for u = 1."""
        return math.fsum(c * s for c, s in zip(self.c, self.fixed_point, strict=True))

    @property
    def noise(self) -> tuple[float, ...]:
        """Noise of each variable, per square root of time, that gives a unit without input standard deviation 1.

        Noise enters as the feedback does: ds = (A s + b u) dt + sigma noise dW, one dW per unit. For a leaky unit this
        is sqrt(2 / tau).
        """
        b = np.asarray(self.b)
        covariance = solve_continuous_lyapunov(np.asarray(self.A), -np.outer(b, b))
        return tuple((b / math.sqrt(np.asarray(self.c) @ covariance @ np.asarray(self.c))).tolist())


def check_dynamics(dynamics: object, populations: Sequence[str], *, tau: object, clip: float | None) -> None:
    """Refuse dynamics that don't map populations to `UnitDynamics`, and options that need leaky units."""
    if not isinstance(dynamics, Mapping):
        raise ActrelaxError(f"dynamics must map populations to UnitDynamics, got {type(dynamics).__name__}.")
    for name, given in dynamics.items():
        known("population", name, populations, where="dynamics")
        if not isinstance(given, UnitDynamics):
            raise ActrelaxError(f"dynamics of {name!r} must be UnitDynamics, got {type(given).__name__}.")
        if isinstance(tau, Mapping) and name in tau:
            raise ActrelaxError(f"population {name!r} has dynamics in place of a tau: leave its tau out.")
    if dynamics and clip is not None:
        raise ActrelaxError("a clip needs leaky units: leave clip or dynamics out.")


@dataclass(frozen=True)
class StateSpace:
    """Units of one population with `UnitDynamics`, used like `Leaky`; their variables are NAME.0, NAME.1, ..."""

    name: str
    dynamics: UnitDynamics

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{i}" for i in range(self.dynamics.order))

    @property
    def gain(self) -> float:
        return self.dynamics.gain

    def activity(self, state: Mapping[str, Tensor]) -> Tensor:
        return _weighted_sum(self.dynamics.c, [state[v] for v in self.variables])

    def fixed_point(self, u: Tensor) -> State:
        return {v: s * u for v, s in zip(self.variables, self.dynamics.fixed_point, strict=True)}

    def rate(self, state: Mapping[str, Tensor], u: Tensor) -> State:
        return self._apply(self.dynamics.A, self.dynamics.b, state, u)

    def noise_scales(self, sigma: Value, dt: float) -> dict[str, Value]:
        scales = {v: scale * dt**0.5 for v, scale in zip(self.variables, self.dynamics.noise, strict=True)}
        return {v: sigma * scale for v, scale in scales.items() if scale}

    def euler(self, state: Mapping[str, Tensor], u: Tensor, dt: float) -> State:
        return {v: state[v] + dt * rate for v, rate in self.rate(state, u).items()}

    def exact_step(self, state: Mapping[str, Tensor], u: Tensor, dt: float) -> State:
        return self._apply(*_flow(self.dynamics, dt), state, u)

    def _apply(
        self, rows: Sequence[Sequence[float]], column: Sequence[float], state: Mapping[str, Tensor], u: Tensor
    ) -> State:
        values = [*(state[v] for v in self.variables), u]
        return {v: _weighted_sum((*row, b), values) for v, row, b in zip(self.variables, rows, column, strict=True)}


Unit = Leaky | StateSpace
"""The dynamics of one population's units, which receive feedback u."""


def _positive(**values: float) -> None:
    for name, value in values.items():
        _refuse_units(name, value)
        if not (is_number(value) and 0 < value < math.inf):
            raise ActrelaxError(f"{name} of unit dynamics must be positive, got {value!r}.")


def _refuse_units(name: str, given: object) -> None:
    """Refuse Brian2 quantities, at any depth: NumPy would drop their units."""
    if is_quantity(given):
        raise ActrelaxError(f"{name} of unit dynamics takes numbers, in the problem's unit of time, got {given!r}.")
    if isinstance(given, Sequence) and not isinstance(given, str):
        for each in given:
            _refuse_units(name, each)


def _numbers(name: str, given: object) -> NDArray[np.float64]:
    _refuse_units(name, given)
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.asarray(np.nan)
    if not np.isfinite(numbers).all():
        raise ActrelaxError(f"{name} of unit dynamics must hold finite numbers, got {given!r}.")
    return numbers


def _weighted_sum(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum of tensors, without the terms of weight 0."""
    terms = [weight * x for weight, x in zip(weights, tensors, strict=True) if weight != 0]
    return functools.reduce(operator.add, terms)


@functools.lru_cache(maxsize=64)
def _flow(dynamics: UnitDynamics, dt: float) -> tuple[list[list[float]], list[float]]:
    """Return E and f in s(dt) = E s(0) + f u, the exact solution for constant u."""
    order = dynamics.order
    augmented = np.zeros((order + 1, order + 1))
    augmented[:order, :order], augmented[:order, order] = dynamics.A, dynamics.b
    flow = expm(dt * augmented)
    return flow[:order, :order].tolist(), flow[:order, order].tolist()
