"""What the relaxation and the forward phase share: units, time constants, noise, delays and their validation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from actrelax.models._names import is_number, known
from actrelax.models._values import MS, as_number, as_values, without_unit
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, Projection
from actrelax.models.problem.delays import Delays
from actrelax.models.problem.field_checks import check_complete, check_unit, refuse_complex, warn_of_default_tau
from actrelax.models.problem.per_neuron import PerNeuron, Value, brief
from actrelax.models.problem.unit_dynamics import Leaky, State, StateSpace, Unit, UnitDynamics, check_dynamics


class InitialValueProblem(ABC):
    """An ODE of one network and one batch, in which units receive an input u: tau dx/dt = -x + u.

    `RelaxationProblem` and `ForwardProblem` say which populations move, what their units receive and where they start;
    integrators and engines need nothing else.
    """

    network: Network
    tau: Value | Mapping[str, Value]
    start: str | Mapping[str, Tensor]
    noise: Value | Mapping[str, Value]
    input_noise: float
    delays: float | Mapping[str, float]
    dynamics: Mapping[str, UnitDynamics]
    time_unit: Literal["ms"] | None
    clip: float | None = None

    @cached_property
    @abstractmethod
    def relaxing(self) -> list[str]:
        """The populations that move, in the order of a sweep."""

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor (batch, ...) with the dtype and device of the weights."""

    @abstractmethod
    def unit_input(self, population: str, state: State) -> Tensor:
        """Return the input u of a population's units, (batch, *population.shape)."""

    @abstractmethod
    def sent(self, projection: Projection, state: State) -> Tensor:
        """Return the signal that enters a projection, before its delay."""

    @abstractmethod
    def initial_activity(self, population: str) -> Tensor:
        """Return a population's activity at t = 0, (batch, *population.shape)."""

    @abstractmethod
    def activities(self, state: State) -> Mapping[str, Tensor]:
        """Return the activity of each population that the problem knows, in a given state."""

    def _check_shared_fields(self) -> None:
        """Check the fields of this class, except `start`."""
        self.taus.check(zero=False)
        self.sigmas.check(zero=True)
        check_dynamics(self.dynamics, self.relaxing, tau=self.tau, clip=self.clip)
        for variable in self.own_variables:
            if variable in self.network.populations:
                raise ActrelaxError(f"{variable!r} names a population and a variable of another: rename the first.")
        warn_of_default_tau(self.tau, [name for name in self.taus.shapes if name not in self.dynamics])
        if not is_number(self.input_noise) or not 0 <= self.input_noise < math.inf:
            raise ActrelaxError(f"input_noise must be a number, 0 or positive, got {self.input_noise!r}.")
        self.delay.check()

    def _take_plain_values(self) -> None:
        """Convert NumPy and Brian2 values to numbers and tensors, and set the unit of time."""
        values, unit = without_unit(tau=self.tau, delays=self.delays)
        if unit is not None:
            check_complete(self.tau, [name for name in self.relaxing if name not in self.dynamics])
        if self.time_unit is not None:
            known("time_unit", self.time_unit, [MS])
        values |= {name: as_values(getattr(self, name)) for name in ("start", "noise")}
        values |= {name: as_number(getattr(self, name)) for name in ("clip", "input_noise")}
        for name, value in (values | {"time_unit": unit or self.time_unit}).items():
            object.__setattr__(self, name, value)

    def time(self, name: str, value: float) -> float:
        """Convert a time to a number in the problem's unit; plain numbers are in that unit already."""
        values, unit = without_unit(**{name: value})
        self.check_unit(name, unit)
        number: float = values[name]
        return number

    def check_unit(self, name: str, unit: str | None) -> None:
        """Refuse a time with a unit if the problem has none."""
        check_unit(name, unit, self.time_unit)

    @cached_property
    def carriers(self) -> dict[str, Projection]:
        """The projections that carry changing signals, possibly with delays: all but those from the input."""
        return {name: p for name, p in self.network.projections.items() if p.source != self.network.input}

    @cached_property
    def taus(self) -> PerNeuron:
        """Time constants by population."""
        names = [*self.relaxing, self.network.input] if self.input_noise else self.relaxing
        return PerNeuron("tau", self.tau, 1.0, {name: self.network.populations[name].shape for name in names})

    @cached_property
    def sigmas(self) -> PerNeuron:
        """Noise by population that moves."""
        return PerNeuron("noise", self.noise, 0.0, {v: self.network.populations[v].shape for v in self.relaxing})

    @cached_property
    def noise_levels(self) -> dict[str, Value]:
        """Sigma of each noisy population, a noisy input included: a number, or one per neuron."""
        levels = {v: self.sigmas.on(v, self.like) for v in self.relaxing if self.sigmas.extremes(v)[1] > 0}
        return levels | ({self.network.input: self.input_noise} if self.input_noise else {})

    @property
    def is_noisy(self) -> bool:
        """Return whether the populations that move or the input have noise."""
        return bool(self.noise_levels)

    @cached_property
    def delay(self) -> Delays:
        """Transmission delays by projection."""
        return Delays(self.delays, list(self.carriers))

    @cached_property
    def own_variables(self) -> dict[str, str]:
        """Variable -> population, for the variables NAME.0, NAME.1, ... of units with dynamics."""
        own = [name for name in self.relaxing if name in self.dynamics]
        return {f"{name}.{i}": name for name in own for i in range(self.dynamics[name].order)}

    @cached_property
    def units(self) -> dict[str, Unit]:
        """Dynamics of each population that moves, in the order of a sweep, and of a noisy input."""
        return {
            name: StateSpace(name, self.dynamics[name])
            if name in self.dynamics
            else Leaky(name, self.taus.on(name, self.state_like), None if name == self.network.input else self.clip)
            for name in self.taus.shapes
        }

    def initial_state(self) -> State:
        """Return the units' variables at t = 0: the fixed points that have the activities given by `start`."""
        state: State = {}
        for name, unit in self.units.items():
            x = self.initial_activity(name)
            refuse_complex(name, x, self.state_like)
            x = x.to(self.state_like)
            state |= unit.fixed_point(x if unit.gain == 1 else x / unit.gain)
        return state

    def vector_field(self, state: State) -> State:
        """Return the time derivative of every variable of the units."""
        rates: State = {}
        for name, unit in self.units.items():
            rates |= unit.rate(state, self.unit_input(name, state))
        return rates

    def activities_like_weights(self, state: State) -> Mapping[str, Tensor]:
        """Return `activities` in the dtype of the weights."""
        return {name: x.to(self.like) for name, x in self.activities(state).items()}

    @cached_property
    def state_like(self) -> Tensor:
        """A tensor with the dtype and device of states (float32 or wider).

        In bfloat16 a step of eta = 0.1 would round to zero once a neuron is within 4 % of its fixed point.
        """
        return self.like.to(torch.promote_types(self.like.dtype, torch.float32))

    def _in_words(self, *details: str) -> str:
        """Return the problem in one line, with details after the start."""
        sizes = ["x".join(map(str, p.shape)) for p in self.network.populations.values()]
        start = repr(self.start) if isinstance(self.start, str) else "given"
        shared = f"{'-'.join(sizes)}, batch {len(self.like)}, tau {brief(self.tau)}, start {start}"
        return f"{type(self).__name__}({', '.join([shared, *details, *self._biology()])})"

    def _biology(self) -> Iterator[str]:
        if self.is_noisy:
            yield f"noise {brief(self.noise)}, input noise {self.input_noise:g}"
        if self.delay.times:
            yield f"delays {brief(self.delays)}"
        if self.dynamics:
            yield f"dynamics of {', '.join(self.dynamics)}"
