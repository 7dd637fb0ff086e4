"""The forward phase as an initial value problem: units that settle to their rates (docs/theory.md, section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import (
    CapturedNetwork,
    FeedforwardPass,
    Network,
    Projection,
    ProjectionRoute,
    check_network,
    sum_in_order,
)
from actrelax.models.problem.delays import delay_line_key
from actrelax.models.problem.field_checks import check_start
from actrelax.models.problem.initial_value_problem import InitialValueProblem
from actrelax.models.problem.per_neuron import Value
from actrelax.models.problem.unit_dynamics import State, UnitDynamics


@dataclass(frozen=True, eq=False, repr=False)
class ForwardProblem(InitialValueProblem):
    """The ODE  tau_v dr_v/dt = -r_v + f_v(a_v(r))  of one network and one batch, with the input at the stimulus.

    It rests at the network's rates: on a network without cycles those of the feedforward pass. The units are those of
    a `RelaxationProblem`, and the same `solve` runs them. A sweep of "sequential" goes upwards.

    Parameters
    ----------
    network : Network
    stimulus : torch.Tensor
        (batch, *input shape), constant in time.
    tau : float or mapping, default 1.0
        Time constant > 0: one for all, or population -> a float or, one per neuron, a tensor or NumPy array. Hidden
        populations and the output have one.
    start : "zero" or mapping, default "zero"
        Initial rates: zero, or population -> (batch, *population.shape) for all hidden populations and the output.
    noise, input_noise, delays, dynamics, time_unit
        As for `RelaxationProblem`: noise of the units, an Ornstein-Uhlenbeck process around the stimulus, transmission
        delays of the projections between populations, unit dynamics in place of leaky integration.

    Raises
    ------
    ActrelaxError
        For values out of range, unknown names or wrong shapes, and for a captured network.

    Examples
    --------
    >>> from actrelax.models.engines import Steps, solve
    >>> from actrelax.models.network import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = ForwardProblem(network, torch.rand(3, 64))
    >>> settled = solve(problem, "euler", Steps.until(1e-6, eta=0.5))
    >>> bool((settled.final["output"] - network(problem.stimulus)).abs().max() < 1e-5)
    True
    """

    network: Network
    stimulus: Tensor
    tau: Value | Mapping[str, Value] = 1.0
    start: str | Mapping[str, Tensor] = "zero"
    noise: Value | Mapping[str, Value] = 0.0
    input_noise: float = 0.0
    delays: float | Mapping[str, float] = 0.0
    dynamics: Mapping[str, UnitDynamics] = field(default_factory=dict)
    time_unit: Literal["ms"] | None = None

    def __post_init__(self) -> None:
        check_network(self.network)
        if isinstance(self.network, CapturedNetwork):
            raise ActrelaxError("a captured network's module computes its rates: call its feedforward method.")
        self.network.check_stimuli(self.stimulus)
        self._take_plain_values()
        self._check_shared_fields()
        shapes = {name: self._shape(name) for name in self.relaxing}
        check_start(self.start, shapes, self.state_like.dtype, names=["zero"])

    def _shape(self, population: str) -> torch.Size:
        return torch.Size((len(self.stimulus), *self.network.populations[population].shape))

    @property
    def like(self) -> Tensor:
        """The stimulus, (batch, *input shape)."""
        return self.stimulus

    @cached_property
    def relaxing(self) -> list[str]:
        """The hidden populations and the output, from the lowest up."""
        return [*self.network.hidden, self.network.output]

    @property
    def held(self) -> Mapping[str, Tensor]:
        """Population -> its constant rate: the input without noise holds the stimulus."""
        return {} if self.input_noise else {self.network.input: self.stimulus}

    def initial_activity(self, population: str) -> Tensor:
        """Return a population's rate at t = 0, (batch, *population.shape)."""
        if population == self.network.input:
            return self.stimulus
        if isinstance(self.start, Mapping):
            return self.start[population]
        return self.state_like.new_zeros(self._shape(population))

    def unit_input(self, population: str, state: State) -> Tensor:
        """Return f_v(a_v(r)), or the stimulus for a noisy input population."""
        if population == self.network.input:
            return self.stimulus.to(self.state_like)
        return self.network.populations[population].activation(self.drive(population, state)).to(self.state_like)

    @torch.no_grad()
    def drive(self, population: str, state: State) -> Tensor:
        """Return the drive a_v(r), (batch, *population.shape), along the routes of the rates r."""
        return sum_in_order([self._drive_along(p, state) for p in self.network.incoming[population]])

    def _drive_along(self, projection: Projection, state: State) -> Tensor:
        if projection.name in self._constant:
            return self._constant[projection.name][0]
        line = state.get(delay_line_key(projection.name))
        return projection.find(self.sent(projection, state) if line is None else line[-1])[0]

    @cached_property
    @torch.no_grad()
    def _constant(self) -> dict[str, tuple[Tensor, ProjectionRoute]]:
        """Drive and route of each projection from a population that is held to one that moves."""
        between = [p for name in self.relaxing for p in self.network.incoming[name] if p.source in self.held]
        return {p.name: p.find(self.held[p.source]) for p in between}

    def sent(self, projection: Projection, state: State) -> Tensor:
        """Return the rate of a projection's source, in the dtype of the weights."""
        return self.activities(state)[projection.source].to(self.like)

    def activities(self, state: State) -> Mapping[str, Tensor]:
        """Return the rates of all populations."""
        moving = {name: unit.activity(state) for name, unit in self.units.items() if unit.variables[0] in state}
        return {**self.held, **moving}

    @torch.no_grad()
    def feedforward_pass(self, state: State) -> FeedforwardPass:
        """Return what a relaxation reads at a state: rates r, drives a(r), routes at r, and the output f(a(r)).

        A population that is not in the state has the rate f(a(r)).

        Gains are f'(a(r)): they are computed from the drives, or from `FeedforwardPass.responses`, f(a(r)), which
        differ from r until the phase has settled. Drives have no delays.
        """
        network, rates = self.network, {name: r.to(self.like) for name, r in self.activities(state).items()}
        drives, routes, responses = dict[str, Tensor](), dict[str, ProjectionRoute](), dict[str, Tensor]()
        for name in self.relaxing:
            parts = []
            for p in network.incoming[name]:
                part, routes[p.name] = self._constant.get(p.name) or p.find(rates[p.source])
                parts.append(part)
            drives[name] = sum_in_order(parts)
            response = network.populations[name].activation(drives[name])
            (responses if name in rates and name != network.output else rates)[name] = response
        ordered = {name: rates[name] for name in network.populations if name in rates}
        return FeedforwardPass(drives, ordered, routes, responses=responses)

    def __repr__(self) -> str:
        return self._in_words()
