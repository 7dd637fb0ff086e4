"""What integrators step: units that move by what they receive, whatever arrays a problem is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from actrelax.models.problem.unit_dynamics import Array, Unit, Variables


class Steppable(ABC):
    """A state maps variables to arrays; the units of a population move by what this population receives."""

    @property
    @abstractmethod
    def units(self) -> Mapping[str, Unit]:
        """Dynamics of what moves, by population, from the top down."""

    @abstractmethod
    def received(self, population: str, state: Variables) -> Array:
        """Return what drives the population's units at this moment."""

    @abstractmethod
    def passed_on(self, state: Variables) -> Variables:
        """Return the delay lines one step later; nothing where there are none."""

    def vector_field(self, state: Variables) -> Variables:
        """Return the time derivative of every variable of the units."""
        rates: Variables = {}
        for name, unit in self.units.items():
            rates |= unit.rate(state, self.received(name, state))
        return rates

    def euler(self, population: str, state: Variables, dt: float) -> Variables:
        """Return the population's variables after an explicit Euler step."""
        return self.units[population].euler(state, self.received(population, state), dt)

    def held(self, population: str, state: Variables, dt: float) -> Variables:
        """Return the population's variables after dt, with what it receives held."""
        return self.units[population].held(state, self.received(population, state), dt)

    def settled(self, population: str, state: Variables) -> Variables:
        """Return the population's variables when it has settled at what it receives."""
        return self.units[population].resting(self.received(population, state))
