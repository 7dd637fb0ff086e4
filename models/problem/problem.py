"""The relaxation as an initial value problem: its ODE, initial state and clamped output (docs/theory.md)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from actrelax.models._names import is_number, known, look_up
from actrelax.models._values import MS, as_number, as_values, without_unit
from actrelax.models.assumptions import PRESETS, Assumptions, Gain
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import CapturedPass, FeedforwardPass, Network, Projection, check_network
from actrelax.models.problem.delays import Delays, delay_line_key
from actrelax.models.problem.feedback_transforms import Transform, TransformedFeedback, transform_named
from actrelax.models.problem.given import check_captured, check_complete, check_start, check_unit, warn_of_default_tau
from actrelax.models.problem.losses import Loss, LossFunction, loss_named
from actrelax.models.problem.per_neuron import PerNeuron, Value, brief
from actrelax.models.problem.unit_dynamics import Leaky, State, StateSpace, Unit, UnitDynamics, check_dynamics


class ProblemFields(TypedDict, total=False):
    """Keywords for the optional fields of a `RelaxationProblem`, without the assumptions."""

    tau: Value | Mapping[str, Value]
    start: str | Mapping[str, Tensor]
    clip: float | None
    noise: Value | Mapping[str, Value]
    input_noise: float
    delays: float | Mapping[str, float]
    feedback_transform: str | Transform | None
    dynamics: Mapping[str, UnitDynamics]
    time_unit: Literal["ms"] | None


@dataclass(frozen=True, eq=False, repr=False)
class RelaxationProblem:
    """The ODE  tau_v dx_v/dt = -x_v + sum_p op_p^T(g_c x_c; psi_p)  of one network and one batch (docs/theory.md).

    Usually made by `from_batch`. It holds no step size, integrator or engine. Solvers read the network's current
    weights, but the feedforward pass has used the earlier ones: make a new problem after each optimiser step.

    Parameters
    ----------
    network : Network
    feedforward : FeedforwardPass
        Feedforward pass of the stimuli. It fixes gains, presynaptic factors and pooling, unless `assumptions` differ.
    clamped : torch.Tensor
        (batch, *output.shape): dLoss/dx of the output, separately for each sample; constant in time.
    assumptions : str or Assumptions, default "ar"
    tau : float or mapping, default 1.0
        Time constant > 0, in any unit of time: one for all, or hidden population -> a float or, one per neuron, a
        tensor or NumPy array of the population's shape. Populations left out get 1, with a warning. Times may be
        Brian2 quantities (``tau=10 * ms``): then all times must be, and the problem's unit is ms.
    start : {"feedforward", "zero"} or mapping, default "feedforward"
        Initial state: the feedforward activities, zero, or hidden population -> (batch, *population.shape).
    clip : float, optional
        Bound on -x + feedback: each element is clipped to [-clip, clip].
    noise : float or mapping, default 0.0
        sigma, the standard deviation of a unit without input: tau dx = (...) dt + sigma sqrt(2 tau) dW. One for
        all, or hidden population -> a float or, one per neuron, a tensor or array of the population's shape. In units
        with dynamics noise enters as feedback does.
    input_noise : float, default 0.0
        sigma of an Ornstein-Uhlenbeck process around the stimulus, with the network's tau (or ``tau["input"]``),
        that starts at the stimulus. It matters only to current gains and presynaptic factors.
    delays : float or mapping, default 0.0
        Transmission delay of feedback, in the unit of tau: one for all projections, or projection -> time. Before
        t = 0 every population has its initial value.
    feedback_transform : str or callable, optional
        Transform of the feedback weights: ``"sparse-0.5"``, ``"quantised-16"``, or a function of a weight tensor.
    dynamics : mapping, optional
        Hidden population -> `UnitDynamics`: a state space in place of the leaky integrator. Its variables start at
        the fixed point that has the initial activity.
    target : torch.Tensor, optional
        Targets from which the clamp was computed; stored in files.
    time_unit : {"ms"}, optional
        Unit of tau, delays and `Steps.dt` in files and figures. Brian2 quantities set it.

    Raises
    ------
    ActrelaxError
        For values out of range, unknown names, wrong shapes or missing feedback weights.

    Examples
    --------
    >>> from actrelax import build
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
    target: Tensor | None = None
    time_unit: Literal["ms"] | None = None

    @classmethod
    @torch.no_grad()
    def from_batch(
        cls,
        network: Network,
        x: Tensor,
        y: Tensor,
        *,
        loss: str | Loss | LossFunction = "cross-entropy",
        assumptions: str | Assumptions = "ar",
        **fields: Unpack[ProblemFields],
    ) -> RelaxationProblem:
        """Run the feedforward pass, and clamp the output of each sample to its loss gradient.

        Parameters
        ----------
        network : Network
        x : torch.Tensor
            Stimuli, (batch, *input shape).
        y : torch.Tensor
            Targets: integer labels (batch,) or (batch, *output shape).
        loss : str, Loss or callable, default "cross-entropy"
            A key of `losses.LOSSES`, a `Loss`, or a function (output, target) -> one loss per sample.
        assumptions, **fields
            The other fields of the problem.
        """
        check_network(network)
        passed = network.feedforward(x, keep_drives=False)
        clamped = loss_named(loss).gradient(passed.activities[network.output], y)
        return cls(network, passed, clamped, look_up("assumptions", assumptions, PRESETS), target=y, **fields)

    def of_batch(self, network: Network, feedforward: FeedforwardPass, clamped: Tensor) -> RelaxationProblem:
        """Return the same problem for another batch, without repeating the checks (`start` must not be a mapping)."""
        other = object.__new__(RelaxationProblem)
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        other.__dict__.update(own, network=network, feedforward=feedforward, clamped=clamped, target=None)
        return other

    def __post_init__(self) -> None:
        object.__setattr__(self, "assumptions", look_up("assumptions", self.assumptions, PRESETS))
        object.__setattr__(self, "feedback_transform", transform_named(self.feedback_transform))
        self._take_plain_values()
        if isinstance(self.feedforward, CapturedPass):
            object.__setattr__(self, "network", self.feedforward.network)  # as the module ran on this batch
            given = {name: getattr(self, name) for name in ("tau", "noise", "start", "dynamics")}
            check_captured(given, self.feedforward.network.relays, self.feedback_transform)
        for projection in self.network.projections.values():
            self.network.feedback_weight(projection, self.assumptions)  # raises if it is missing
        output = self.feedforward.activities[self.network.output]
        if self.clamped.shape != output.shape:
            raise ActrelaxError(
                f"clamped must be of the output's shape {tuple(output.shape)}, got {tuple(self.clamped.shape)}."
            )
        if self.clip is not None and not (is_number(self.clip) and self.clip > 0):
            raise ActrelaxError(f"clip must be positive, got {self.clip!r}.")
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
        shapes = {name: self.feedforward.activities[name].shape for name in self.relaxing}
        check_start(self.start, shapes, self.state_like.dtype)

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
    def relaxing(self) -> list[str]:
        """The hidden populations from the top down, the order in which feedback reaches them."""
        return self.network.hidden[::-1]

    @cached_property
    def feedback_projections(self) -> dict[str, Projection]:
        """The projections that carry feedback: all but those from the input."""
        return {name: p for name, p in self.network.projections.items() if p.source != self.network.input}

    @cached_property
    def taus(self) -> PerNeuron:
        """Time constants by population."""
        names = [*self.relaxing, self.network.input] if self.input_noise else self.relaxing
        return PerNeuron("tau", self.tau, 1.0, {name: self.network.populations[name].shape for name in names})

    @cached_property
    def sigmas(self) -> PerNeuron:
        """Noise by hidden population."""
        return PerNeuron("noise", self.noise, 0.0, {v: self.network.populations[v].shape for v in self.relaxing})

    @cached_property
    def noise_levels(self) -> dict[str, Value]:
        """Sigma of each noisy population, a noisy input included: a number, or one per neuron."""
        levels = {v: self.sigmas.on(v, self.clamped) for v in self.relaxing if self.sigmas.extremes(v)[1] > 0}
        return levels | ({self.network.input: self.input_noise} if self.input_noise else {})

    @property
    def is_noisy(self) -> bool:
        """Return whether the hidden populations or the input have noise."""
        return bool(self.noise_levels)

    @cached_property
    def delay(self) -> Delays:
        """Transmission delays by projection."""
        return Delays(self.delays, list(self.feedback_projections))

    @cached_property
    def own_variables(self) -> dict[str, str]:
        """Variable -> population, for the variables NAME.0, NAME.1, ... of units with dynamics."""
        own = [name for name in self.relaxing if name in self.dynamics]
        return {f"{name}.{i}": name for name in own for i in range(self.dynamics[name].order)}

    @property
    def is_frozen(self) -> bool:
        """Return whether all gains of the relaxation are constant: the ODE is linear, except for a clip."""
        return all(knobs.activity_gain != "current" for knobs in self.assumptions.both)

    @cached_property
    def units(self) -> dict[str, Unit]:
        """Dynamics of each hidden population, from the top down, and of a noisy input."""
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
            if x.is_complex() and not self.state_like.is_complex():
                raise ActrelaxError(
                    f'population {name!r} is complex, and has no real state to step: pass integrator="equilibrium".'
                )
            x = x.to(self.state_like)
            state |= unit.fixed_point(x if unit.gain == 1 else x / unit.gain)
        return state

    def initial_activity(self, population: str) -> Tensor:
        """Return a population's activity at t = 0, (batch, *population.shape); for the output, its clamp."""
        if population == self.network.output:
            return self.clamped
        x = self.feedforward.activities[population]
        if isinstance(self.start, Mapping):
            return self.start.get(population, x)
        return torch.zeros_like(x) if self.start == "zero" and population != self.network.input else x

    def vector_field(self, state: State) -> State:
        """Return the time derivative of every variable of the units."""
        rates: State = {}
        for name, unit in self.units.items():
            rates |= unit.rate(state, self.unit_input(name, state))
        return rates

    def unit_input(self, population: str, state: State) -> Tensor:
        """Return the input u of a population's units: feedback, or the stimulus for a noisy input population."""
        if population == self.network.input:
            return self.feedforward.activities[population].to(self.state_like)
        return self.feedback(population, state).to(self.state_like)

    @torch.no_grad()
    def feedback(self, population: str, state: State) -> Tensor:
        """Return sum_p op_p^T(g_c x_c; psi_p) over the population's projections, (batch, *population.shape)."""
        signals = [self.feedback_along(p, state) for p in self.network.outgoing[population]]
        total = signals[0]  # hidden populations have at least one outgoing projection
        for signal in signals[1:]:
            total = total + signal
        return total

    def feedback_along(self, projection: Projection, state: State) -> Tensor:
        """Return op_p^T(g_c x_c; psi_p), the feedback along one projection."""
        line = state.get(delay_line_key(projection.name))
        sent = self.feedback_source(projection, state) if line is None else line[-1]
        route = self.feedforward.routes[projection.name]
        return projection.feedback_signal(sent, route, self.feedback_weight(projection))

    def feedback_source(self, projection: Projection, state: State) -> Tensor:
        """Return g_c x_c, the signal that the projection's target sends back."""
        return self.gain_times_activity(projection, self.activity_gain(projection), state)

    def activity_gain(self, projection: Projection) -> Gain:
        """Return the gain knob of the projection's feedback."""
        return self.network.knobs(projection, self.assumptions).activity_gain

    def feedback_weight(self, projection: Projection) -> Tensor | None:
        """Return the projection's feedback weights, transformed; None for a copy."""
        psi = self.network.feedback_weight(projection, self.assumptions)
        if psi is None or self.feedback_transform is None:
            return psi
        return self._transformed.of(projection, psi)

    @cached_property
    def _transformed(self) -> TransformedFeedback:
        assert callable(self.feedback_transform)
        return TransformedFeedback(self.feedback_transform)

    def gain_times_activity(self, projection: Projection, gain: Gain, state: State) -> Tensor:
        """Return g_c x_c, the activity of a projection's target times the gain that a knob selects."""
        name = projection.target
        x = self.activity_of(name, state)
        if isinstance(self.feedforward, CapturedPass):
            return self.feedforward.sent(projection, x)  # type: ignore[arg-type]
        if gain != "current":
            return self.apply_gain(name, gain, x)
        drive = self.network.drive(name, self.activities_like_weights(state), self.feedforward.routes)
        return self.network.populations[name].activation.derivative(drive) * x

    def activity_of(self, name: str, state: State) -> Tensor:
        """Return the activity of a hidden population or the output, or of a relay, which is its feedback."""
        if name == self.network.output:
            return self.clamped
        if name in self.units:
            return self.units[name].activity(state).to(self.clamped)
        assert isinstance(self.feedforward, CapturedPass)
        above = self.network.outgoing[name]
        read = [self.activity_of(p.target, state) for p in above] + [state.get(delay_line_key(p.name)) for p in above]
        return self.feedforward.relayed(name, read, lambda: self.feedback(name, state))

    def apply_gain(self, population: str, gain: Gain, signal: Tensor) -> Tensor:
        """Multiply a signal (..., batch, *population.shape) by a frozen gain: f'(abar), or 1 for "none"."""
        if gain == "none":
            return signal
        passed, activation = self.feedforward, self.network.populations[population].activation
        return activation.times_gain(signal, passed.drives.get(population), passed.activities[population])

    def activities(self, state: State) -> Mapping[str, Tensor]:
        """Return every population's activity: the output's is its clamp, a noiseless input's the stimulus."""
        ends = {
            self.network.input: self.feedforward.activities[self.network.input],
            self.network.output: self.clamped,
        }
        return ends | {name: unit.activity(state) for name, unit in self.units.items() if unit.variables[0] in state}

    def activities_like_weights(self, state: State) -> Mapping[str, Tensor]:
        """Return `activities` in the dtype of the weights."""
        return {name: x.to(self.clamped) for name, x in self.activities(state).items()}

    @cached_property
    def state_like(self) -> Tensor:
        """A tensor with the dtype and device of states (float32 or wider).

        In bfloat16 a step of eta = 0.1 would round to zero once a neuron is within 4 % of its fixed point.
        """
        return self.clamped.to(torch.promote_types(self.clamped.dtype, torch.float32))

    def __repr__(self) -> str:
        sizes = ["x".join(map(str, p.shape)) for p in self.network.populations.values()]
        start = repr(self.start) if isinstance(self.start, str) else "given"
        preset = self.assumptions.preset
        return (
            f"RelaxationProblem({'-'.join(sizes)}, batch {len(self.clamped)}, tau {brief(self.tau)}, start {start}, "
            f"clip {self.clip}, assumptions {repr(preset) if preset else 'custom'}{''.join(self._biology())})"
        )

    def _biology(self) -> Iterator[str]:
        if self.is_noisy:
            yield f", noise {brief(self.noise)}, input noise {self.input_noise:g}"
        if self.delay.times:
            yield f", delays {brief(self.delays)}"
        if self.feedback_transform is not None:
            yield f", feedback transform {getattr(self.feedback_transform, '__name__', self.feedback_transform)}"
        if self.dynamics:
            yield f", dynamics of {', '.join(self.dynamics)}"
