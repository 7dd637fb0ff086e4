"""The relaxation as an initial value problem: which ODE, from where, clamped to what (THEORY.md sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from actrelax.models._names import look_up
from actrelax.models.assumptions import PRESETS, Assumptions, Gain
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import FeedforwardPass, Network, Projection
from actrelax.models.problem.delays import Delays
from actrelax.models.problem.feedback_transforms import Transform, transform_named, transformed
from actrelax.models.problem.losses import Loss, LossFunction, loss_named
from actrelax.models.problem.per_neuron import PerNeuron, Value
from actrelax.models.problem.unit_dynamics import Leaky, State, StateSpace, Unit, UnitDynamics
from actrelax.models.problem.validity import check


@dataclass(frozen=True, eq=False, repr=False)
class RelaxationProblem:
    """The ODE  tau_v dx_v/dt = -x_v + sum_p op_p^T(g_c x_c; psi_p)  of one network and one batch (THEORY.md 1).

    It knows nothing of step sizes, integrators or engines. Usually made by `from_batch`. Weights are read when it is
    solved: after an optimiser's step make a new problem, since drives and gains belong to the old weights.

    Parameters
    ----------
    network : Network
    feedforward : FeedforwardPass
        Of the stimulus; gains, presynaptic factors and pooling are frozen there unless lifted.
    clamped : torch.Tensor
        (batch, *output.shape): dLoss/dx of the output, constant in time, each sample's own.
    assumptions : str or Assumptions, default "ar"
    tau : float or mapping, default 1.0
        Time constant in the caller's unit of time, > 0: one for all, or hidden population -> a float or, one per
        neuron, a tensor of the population's shape. Populations that are not named have 1.
    start : {"feedforward", "zero"} or mapping, default "feedforward"
        Where the relaxation begins: the feedforward activities, silence, or hidden population ->
        (batch, *population.shape).
    clip : float, optional
        The bracket (-x + feedback) is clamped element by element to [-clip, clip].
    noise : float or mapping, default 0.0
        sigma, the standard deviation that a unit without input has: tau dx = (...) dt + sigma sqrt(2 tau) dW. One for
        all, or hidden population -> a float or, one per neuron, a tensor of the population's shape.
    input_noise : float, default 0.0
        sigma of an Ornstein-Uhlenbeck process around the stimulus, with the network's tau (or ``tau["input"]``),
        that starts at the stimulus. It matters where current drives are read.
    delays : float or mapping, default 0.0
        How long feedback travels, in the unit of tau: one for all projections, or projection -> time. Before t = 0
        every population had its initial value.
    feedback_transform : str or callable, optional
        What becomes of the weights that carry feedback: ``"sparse-0.5"``, ``"quantised-16"`` (`transforms`), or a
        function of a weight tensor.
    dynamics : mapping, optional
        Hidden population -> `UnitDynamics`: a state space in place of the leaky integrator. It starts at rest.

    Raises
    ------
    ActrelaxError
        For values out of range, unknown names, wrong shapes, or feedback weights that are missing.

    Examples
    --------
    >>> from actrelax.models.network import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    RelaxationProblem(64-32-10, batch 3, tau 1, start 'feedforward', clip None, assumptions 'ar')
    """

    network: Network
    feedforward: FeedforwardPass
    clamped: Tensor
    assumptions: Assumptions = PRESETS["ar"]
    tau: Value | Mapping[str, Value] = 1.0
    start: str | Mapping[str, Tensor] = "feedforward"
    clip: float | None = None
    noise: Value | Mapping[str, Value] = 0.0
    input_noise: float = 0.0
    delays: float | Mapping[str, float] = 0.0
    feedback_transform: str | Transform | None = None
    dynamics: Mapping[str, UnitDynamics] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def from_batch(
        cls,
        network: Network,
        x: Tensor,
        y: Tensor,
        *,
        loss: str | Loss | LossFunction = "cross-entropy",
        **fields: Any,
    ) -> RelaxationProblem:
        """Run the feedforward pass and clamp the output of each sample to its own loss gradient.

        Parameters
        ----------
        network : Network
        x : torch.Tensor
            Stimuli, (batch, *input shape).
        y : torch.Tensor
            Targets: integer labels (batch,) or (batch, *output shape).
        loss : str, Loss or callable, default "cross-entropy"
            A name of `losses.LOSSES`, a `Loss`, or a function (output, target) -> one loss per sample.
        **fields
            The other fields of the problem.
        """
        passed = network.feedforward(x, keep_drives=False)
        return cls(network, passed, loss_named(loss).gradient(passed.activities[network.output], y), **fields)

    def __post_init__(self) -> None:
        object.__setattr__(self, "assumptions", look_up("assumptions", self.assumptions, PRESETS))
        object.__setattr__(self, "feedback_transform", transform_named(self.feedback_transform))
        check(self)

    @cached_property
    def relaxing(self) -> list[str]:
        """The hidden populations, from the top down: the order in which feedback reaches them."""
        return self.network.hidden[::-1]

    @cached_property
    def taus(self) -> PerNeuron:
        """Time constants by population."""
        names = [*self.relaxing, self.network.input] if self.input_noise else self.relaxing
        return PerNeuron("tau", self.tau, 1.0, {name: self.network.populations[name].shape for name in names})

    @cached_property
    def sigmas(self) -> PerNeuron:
        """Noise by population, that of the input apart."""
        return PerNeuron("noise", self.noise, 0.0, {v: self.network.populations[v].shape for v in self.relaxing})

    @property
    def is_noisy(self) -> bool:
        """Whether anything is random."""
        return bool(self.noisy)

    @cached_property
    def feedback_projections(self) -> dict[str, Projection]:
        """The projections that carry feedback: all that don't come from the input."""
        return {name: p for name, p in self.network.projections.items() if p.source != self.network.input}

    @cached_property
    def delay(self) -> Delays:
        """How long feedback travels."""
        return Delays(self.delays, list(self.feedback_projections))

    @property
    def is_frozen(self) -> bool:
        """Whether all gains of the relaxation are constant, which makes the ODE linear (but for a clip)."""
        return all(knobs.activity_gain != "current" for knobs in self.assumptions.both)

    @property
    def is_continuous(self) -> bool:
        """Whether some weights change while the relaxation runs."""
        return self.assumptions.is_continuous

    @cached_property
    def units(self) -> dict[str, Unit]:
        """Dynamics of what moves: the hidden populations, from the top down, and the input where it is noisy."""
        return self.own_units()

    def own_units(self) -> dict[str, Unit]:
        """Make the units that its fields ask for."""
        return {
            name: StateSpace(name, self.dynamics[name])
            if name in self.dynamics
            else Leaky(name, self.taus.on(name, self.moving), None if name == self.network.input else self.clip)
            for name in self.taus.shapes
        }

    @torch.no_grad()
    def initial_state(self, dt: float | None = None) -> State:
        """Return all variables at t = 0; where feedback takes time, those of its delay lines, in steps of dt."""
        state = self.initial_units()
        if not self.delay.times:
            return state
        if dt is None:
            raise ActrelaxError("feedback takes time in this problem: give initial_state the dt of its steps.")
        for name, steps in self.delay.steps(dt).items():
            sent = self.sent(self.feedback_projections[name], state)
            state[_line(name)] = sent.expand(steps, *sent.shape)
        return state

    def initial_units(self) -> State:
        """Return the units' variables at t = 0: at rest, with the activities that the start gives them."""
        state: State = {}
        for name, unit in self.units.items():
            x = self.initial_activity(name).to(self.moving)
            state |= unit.fixed_point(x if unit.gain == 1 else x / unit.gain)
        return state

    def initial_activity(self, population: str) -> Tensor:
        """Return what the start gives a population, (batch, *population.shape); the output has its clamp."""
        if population == self.network.output:
            return self.clamped
        x = self.feedforward.activities[population]
        if isinstance(self.start, Mapping):
            return self.start.get(population, x)
        return torch.zeros_like(x) if self.start == "zero" and population != self.network.input else x

    def passed_on(self, state: State) -> State:
        """Return the delay lines one step later: what is sent now has entered, what arrived has left."""
        sent = {name: self.sent(self.feedback_projections[name], state)[None] for name in self.delay.times}
        return {_line(name): torch.cat([new, state[_line(name)][:-1]]) for name, new in sent.items()}

    def kicked(self, state: State, dt: float, generator: torch.Generator | None) -> State:
        """Add the noise of a step of dt: sigma sqrt(2 dt/tau) xi."""
        state = dict(state)
        for name, sigma in self.noisy.items():
            x = state[name]
            device = x.device if generator is None else generator.device
            xi = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
            state[name] = x + sigma * (2 * dt / self.taus.on(name, x)) ** 0.5 * xi
        return state

    def vector_field(self, state: State) -> State:
        """Return the time derivative of every variable of the units."""
        rates: State = {}
        for name, unit in self.units.items():
            rates |= unit.rate(state, self.received(name, state))
        return rates

    def received(self, population: str, state: State) -> Tensor:
        """Return what drives the population's units: feedback, or for a noisy input the stimulus."""
        if population == self.network.input:
            return self.feedforward.activities[population].to(self.moving)
        return self.feedback(population, state).to(self.moving)

    @torch.no_grad()
    def feedback(self, population: str, state: State) -> Tensor:
        """sum over v's projections of op_p^T(g_c x_c; psi_p), (batch, *population.shape)."""
        signals = [self._feedback_along(p, state) for p in self.network.outgoing[population]]
        total = signals[0]  # only the output feeds nothing
        for signal in signals[1:]:
            total = total + signal
        return total

    def _feedback_along(self, projection: Projection, state: State) -> Tensor:
        line = state.get(_line(projection.name))
        sent = self.sent(projection, state) if line is None else line[-1]
        return projection.feedback_signal(
            sent, self.feedforward.routes[projection.name], self.feedback_weight(projection)
        )

    def sent(self, projection: Projection, state: State) -> Tensor:
        """g_c x_c: what the projection's target sends back along it."""
        return self.amplified(projection, self.activity_gain(projection), state)

    def activity_gain(self, projection: Projection) -> Gain:
        """Return the gain that holds in the projection's feedback."""
        return self.network.knobs(projection, self.assumptions).activity_gain

    def feedback_weight(self, projection: Projection) -> Tensor | None:
        """Return the weights that carry the projection's feedback, transformed; None for a copy."""
        psi = self.network.feedback_weight(projection, self.assumptions)
        if psi is None or self.feedback_transform is None:
            return psi
        assert callable(self.feedback_transform)
        # a weight's version moves with every change, by an optimiser too
        versions = tuple(w._version for w in (projection.weight, projection.feedback) if w is not None)
        found = self._transformed.get(projection.name)
        if found is None or found[0] != versions:
            found = versions, transformed(self.feedback_transform, psi, projection.name)
            self._transformed[projection.name] = found
        return found[1]

    def presynaptic(self, projection: Projection, state: State) -> Tensor:
        """The presynaptic factor of the projection's plasticity at this state."""
        when = self.network.knobs(projection, self.assumptions).presynaptic
        activities = self.feedforward.activities if when == "feedforward" else self._products_take(state)
        return projection.presynaptic(activities[projection.source], self.feedforward.routes[projection.name])

    def read_by_plasticity(self, projection: Projection) -> set[str]:
        """Return the relaxing populations whose activity the projection's two factors read."""
        knobs = self.network.knobs(projection, self.assumptions)
        read = {projection.target}
        if knobs.presynaptic == "current":
            read.add(projection.source)
        if knobs.weight_gain == "current":  # the drive of this moment
            read |= {p.source for p in self.network.incoming[projection.target]}
        return read - {self.network.input}

    @torch.no_grad()
    def postsynaptic(
        self, projection: Projection, state: State, amplified: Mapping[Gain, Tensor] | None = None
    ) -> Tensor:
        """The postsynaptic factor of the projection's plasticity at this state: gain times activity.

        `amplified` has the product already, for some gains.
        """
        gain = self.network.knobs(projection, self.assumptions).weight_gain
        sent = (amplified or {}).get(gain)
        if sent is None:
            sent = self.amplified(projection, gain, state)
        return projection.postsynaptic(sent, self.feedforward.routes[projection.name])

    def amplified(self, projection: Projection, gain: Gain, state: State) -> Tensor:
        """g_c x_c of the projection's target: the one place that knows what a gain knob means."""
        name = projection.target
        x = self.clamped if name == self.network.output else self.units[name].activity(state).to(self.clamped)
        if gain != "current":
            return self.frozen_amplified(name, gain, x)
        drive = self.network.drive(name, self._products_take(state), self.feedforward.routes)
        return self.network.populations[name].activation.derivative(drive) * x

    def frozen_amplified(self, population: str, gain: Gain, signal: Tensor) -> Tensor:
        """A gain that is not current times a signal (..., batch, *population.shape): f'(abar), or none."""
        if gain == "none":
            return signal
        passed, activation = self.feedforward, self.network.populations[population].activation
        return activation.amplified(signal, passed.drives.get(population), passed.activities[population])

    def activities(self, state: State) -> Mapping[str, Tensor]:
        """All populations at this moment: the input holds the stimulus unless it is noisy, the output is clamped."""
        ends = {
            self.network.input: self.feedforward.activities[self.network.input],
            self.network.output: self.clamped,
        }
        return ends | {name: unit.activity(state) for name, unit in self.units.items() if unit.variables[0] in state}

    def _products_take(self, state: State) -> Mapping[str, Tensor]:
        """The activities of this moment in the type of the weights."""
        return {name: x.to(self.clamped) for name, x in self.activities(state).items()}

    @cached_property
    def moving(self) -> Tensor:
        """What has the type and the device of states: single precision at least.

        In bfloat16 a step of eta = 0.1 would round to nothing once a neuron is within 4 % of its goal.
        """
        return self.clamped.to(torch.promote_types(self.clamped.dtype, torch.float32))

    @cached_property
    def noisy(self) -> dict[str, Value]:
        """Sigma of each population that has noise."""
        noisy = {v: self.sigmas.on(v, self.clamped) for v in self.relaxing if self.sigmas.extremes(v)[1] > 0}
        return noisy | ({self.network.input: self.input_noise} if self.input_noise else {})

    @cached_property
    def _transformed(self) -> dict[str, tuple[tuple[int, ...], Tensor]]:
        return {}

    @cached_property
    def frozen_gains(self) -> State:
        """f'(abar) of every population but the input."""
        activities, names = self.feedforward.activities, [*self.network.hidden, self.network.output]
        return {name: self.frozen_amplified(name, "feedforward", torch.ones_like(activities[name])) for name in names}

    def __repr__(self) -> str:
        sizes = ["x".join(map(str, p.shape)) for p in self.network.populations.values()]
        start = repr(self.start) if isinstance(self.start, str) else "given"
        preset = self.assumptions.preset
        return (
            f"RelaxationProblem({'-'.join(sizes)}, batch {len(self.clamped)}, tau {_brief(self.tau)}, start {start}, "
            f"clip {self.clip}, assumptions {repr(preset) if preset else 'own'}{''.join(self._biology())})"
        )

    def _biology(self) -> Iterator[str]:
        if self.is_noisy:
            yield f", noise {_brief(self.noise)}, input noise {self.input_noise:g}"
        if self.delay.times:
            yield f", delays {_brief(self.delays)}"
        if self.feedback_transform is not None:
            yield f", feedback transform {getattr(self.feedback_transform, '__name__', self.feedback_transform)}"
        if self.dynamics:
            yield f", dynamics of {', '.join(self.dynamics)}"


def _brief(value: Value | Mapping[str, Value]) -> str:
    if isinstance(value, Mapping):
        return f"of {', '.join(value)} given"
    return "given" if isinstance(value, Tensor) and value.dim() > 0 else f"{float(value):g}"


def _line(projection: str) -> str:
    """Name the variable that holds what a projection's target has sent back: (steps, batch, ...), the newest first."""
    return f"{projection}.sent"
