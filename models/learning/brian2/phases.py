"""Number and size of the steps of a stimulus in Brian2, and the time constants of both phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from actrelax.models._names import is_number, whole_number
from actrelax.models._values import as_number
from actrelax.models.engines.brian2.support import check_steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.problem import Value
from actrelax.models.problem.per_neuron import PerNeuron


@dataclass(frozen=True)
class Phases:
    """Number and size of the steps per stimulus, in both phases.

    Parameters
    ----------
    steps : int, default 100
        Relaxation steps per stimulus.
    eta : float, default 0.1
        dt / tau of the relaxation: the size of an explicit Euler step.
    feedforward_steps : int, optional
        Steps of the feedforward phase; by default the depth of the network, after which the rates of a network without
        cycles are exact if dt / tau is 1 everywhere. All else needs it: the rates should have settled by then.
    feedforward_eta : float, default 1.0
        dt / tau of the feedforward phase. With 1 each step computes one layer, and the phase is exactly the
        feedforward pass; below 1 it approaches the feedforward pass exponentially with the number of steps. Networks
        with cycles often need less than 1.
    tau : float or mapping, default 1.0
        Time constant in ms, where the step is `eta` ms: one for all, or population -> a float or, one per neuron, a
        tensor. The feedforward phase's are proportional to them.

    Raises
    ------
    ActrelaxError
        For values out of range.
    """

    steps: int = 100
    eta: float = 0.1
    feedforward_steps: int | None = None
    feedforward_eta: float = 1.0
    tau: Value | Mapping[str, Value] = 1.0

    def __post_init__(self) -> None:
        for name in ("eta", "feedforward_eta"):
            eta = as_number(getattr(self, name))
            object.__setattr__(self, name, eta)
            if not (is_number(eta) and 0 < eta < 2):
                raise ActrelaxError(f"{name} must lie between 0 and 2, got {eta}: take more and smaller steps.")
        for name, count in (("steps", self.steps), ("feedforward_steps", self.feedforward_steps)):
            if count is not None:
                check_steps(whole_number(name, count, least=1))

    def check(self, network: Network) -> None:
        """Refuse to guess how long rates take to settle."""
        taus = self.taus(network)
        if self.feedforward_steps is not None:
            return
        if network.is_recurrent:
            raise ActrelaxError(
                f"rates must settle in {network.graph.cycles_in_words}: pass Phases(feedforward_steps=...), and a "
                "feedforward_eta below 1."
            )
        slow = [name for name in network.hidden if _differs(taus[name], self.feedforward_eta)]
        if slow:
            raise ActrelaxError(
                f"the rates of {slow[0]!r} need many steps to settle, since its tau is not feedforward_eta: give "
                "feedforward_steps."
            )

    def taus(self, network: Network) -> dict[str, Value]:
        """Return the time constants of the hidden populations and the output, in ms."""
        names = [*network.hidden, network.output]
        taus = PerNeuron("tau", self.tau, 1.0, {name: network.populations[name].shape for name in names})
        taus.check(zero=False)
        for name in names:
            fastest = taus.extremes(name)[0]
            if not max(self.eta, self.feedforward_eta) < 2 * fastest:
                raise ActrelaxError(
                    f"eta and feedforward_eta must be below twice the tau of {name!r}, {fastest:g}: take smaller steps."
                )
        return {name: taus.of(name) for name in names}


def _differs(tau: Value, value: float) -> bool:
    """Return whether any neuron's time constant is not `value`."""
    return bool((tau != value).any()) if isinstance(tau, Tensor) else tau != value
