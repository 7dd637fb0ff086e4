"""The relaxation as an initial value problem: its ODE, initial state and clamped output (docs/theory.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from actrelax.models._names import is_number, look_up
from actrelax.models.assumptions import PRESETS, Assumptions, Gain
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import CapturedPass, FeedforwardPass, Network, Projection, check_network
from actrelax.models.problem.delays import delay_line_key
from actrelax.models.problem.feedback_transforms import Transform, TransformedFeedback, transform_named
from actrelax.models.problem.field_checks import check_captured, check_start
from actrelax.models.problem.initial_value_problem import InitialValueProblem
from actrelax.models.problem.losses import Loss, LossFunction, loss_named
from actrelax.models.problem.per_neuron import Value
from actrelax.models.problem.unit_dynamics import State, UnitDynamics


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
class RelaxationProblem(InitialValueProblem):
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
        x: Tensor | FeedforwardPass,
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
        x : torch.Tensor or FeedforwardPass
            Stimuli, (batch, *input shape), or a forward pass: with cycles what `settle` returns.
        y : torch.Tensor
            Targets: integer labels (batch,) or (batch, *output shape).
        loss : str, Loss or callable, default "cross-entropy"
            A key of `losses.LOSSES`, a `Loss`, or a function (output, target) -> one loss per sample.
        assumptions, **fields
            The other fields of the problem.
        """
        check_network(network)
        passed = x if isinstance(x, FeedforwardPass) else network.feedforward(x, keep_drives=False)
        clamped = loss_named(loss).gradient(passed.activities[network.output], y)
        return cls(network, passed, clamped, look_up("assumptions", assumptions, PRESETS), target=y, **fields)

    def of_batch(self, network: Network, feedforward: FeedforwardPass, clamped: Tensor) -> RelaxationProblem:
        """Return the same problem for another batch, without repeating the checks (`start` must not be a mapping)."""
        other = object.__new__(RelaxationProblem)
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if isinstance(feedforward, CapturedPass):
            feedforward = feedforward.under(self.assumptions)
        other.__dict__.update(own, network=network, feedforward=feedforward, clamped=clamped, target=None)
        return other

    def __post_init__(self) -> None:
        object.__setattr__(self, "assumptions", look_up("assumptions", self.assumptions, PRESETS))
        object.__setattr__(self, "feedback_transform", transform_named(self.feedback_transform))
        self._take_plain_values()
        if isinstance(self.feedforward, CapturedPass):
            object.__setattr__(self, "network", self.feedforward.network)  # as the module ran on this batch
            object.__setattr__(self, "feedforward", self.feedforward.under(self.assumptions))
            given = {name: getattr(self, name) for name in ("tau", "noise", "start", "dynamics")}
            check_captured(given, self.feedforward.network.relays, self.assumptions, self.input_noise)
            self.feedforward.check_current()
        self.assumptions.check_names(self.network.projections)
        for projection in self.network.projections.values():
            self.network.feedback_weight(projection, self.assumptions)  # raises if it is missing
        output = self.feedforward.activities[self.network.output]
        if self.clamped.shape != output.shape:
            raise ActrelaxError(
                f"clamped must be of the output's shape {tuple(output.shape)}, got {tuple(self.clamped.shape)}."
            )
        if self.clip is not None and not (is_number(self.clip) and self.clip > 0):
            raise ActrelaxError(f"clip must be positive, got {self.clip!r}.")
        self._check_shared_fields()
        shapes = {name: self.feedforward.activities[name].shape for name in self.relaxing}
        check_start(self.start, shapes, self.state_like.dtype)

    @cached_property
    def relaxing(self) -> list[str]:
        """The hidden populations from the top down, the order in which feedback reaches them."""
        return self.network.hidden[::-1]

    @property
    def feedback_projections(self) -> dict[str, Projection]:
        """The projections that carry feedback: all but those from the input."""
        return self.carriers

    @property
    def like(self) -> Tensor:
        """The clamped output, (batch, *output.shape)."""
        return self.clamped

    @property
    def is_frozen(self) -> bool:
        """Return whether all gains of the relaxation are constant: the ODE is linear, except for a clip."""
        return all(knobs.activity_gain != "current" for knobs in self.assumptions.all_knobs) or all(
            self.activity_gain(projection) != "current" for projection in self.feedback_projections.values()
        )

    def initial_activity(self, population: str) -> Tensor:
        """Return a population's activity at t = 0, (batch, *population.shape); for the output, its clamp."""
        if population == self.network.output:
            return self.clamped
        if isinstance(self.start, Mapping) and population in self.start:
            return self.start[population]
        if self.start == "zero" and population != self.network.input:
            return torch.zeros_like(self.feedforward.activities[population])
        return self.feedforward.activity(population)

    def unit_input(self, population: str, state: State) -> Tensor:
        """Return the input u of a population's units: feedback, or the stimulus for a noisy input population."""
        if population == self.network.input:
            return self.feedforward.activities[population].to(self.state_like)
        return self.feedback(population, state).to(self.state_like)

    @torch.no_grad()
    def feedback(self, population: str, state: State) -> Tensor:
        """Return sum_p op_p^T(g_c x_c; psi_p) over the population's projections, (batch, *population.shape)."""
        # hidden populations have at least one outgoing projection
        first, *others = [self.feedback_along(p, state) for p in self.network.outgoing[population]]
        return sum(others, first)

    def feedback_along(self, projection: Projection, state: State) -> Tensor:
        """Return op_p^T(g_c x_c; psi_p), the feedback along one projection."""
        line = state.get(delay_line_key(projection.name))
        y = self.sent(projection, state) if line is None else line[-1]
        route = self.feedforward.routes[projection.name]
        return projection.feedback_signal(y, route, self.feedback_weight(projection))

    def sent(self, projection: Projection, state: State) -> Tensor:
        """Return g_c x_c, the signal that the projection's target sends back."""
        return self.gain_times_activity(projection, self.activity_gain(projection), state)

    def activity_gain(self, projection: Projection) -> Gain:
        """Return the gain knob of the projection's feedback."""
        return self.network.knobs(projection, self.assumptions).activity_gain

    def feedback_weight(self, projection: Projection) -> Tensor | None:
        """Return the projection's feedback weights, transformed; None for a copy."""
        passed = self.feedforward
        if isinstance(passed, CapturedPass):
            psi, reads = passed.feedback_of(projection, explicit=self.feedback_transform is not None)  # type: ignore[arg-type]
        else:
            psi = self.network.feedback_weight(projection, self.assumptions)
            reads = (projection.weight, projection.feedback)
        if psi is None or self.feedback_transform is None:
            return psi
        return self._transformed.of(projection.name, psi, reads)

    @cached_property
    def _transformed(self) -> TransformedFeedback:
        assert callable(self.feedback_transform)
        return TransformedFeedback(self.feedback_transform)

    def gain_times_activity(self, projection: Projection, gain: Gain, state: State) -> Tensor:
        """Return g_c x_c, the activity of a projection's target times the gain that a knob selects."""
        name = projection.target
        x = self.activity_of(name, state)
        if isinstance(self.feedforward, CapturedPass):
            read = partial(self.activity_of, state=state)
            return self.feedforward.sent(projection, x, read)  # type: ignore[arg-type]
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
        weights = [self.feedforward.network.feedback.find(p.psi) for p in above]
        read = [
            *(self.activity_of(p.target, state) for p in above),
            *(state.get(delay_line_key(p.name)) for p in above),
            *weights,
            self.feedback_transform,
        ]
        version = sum(w._version for w in weights if w is not None)
        return self.feedforward.relayed(name, read, version, lambda: self.feedback(name, state))

    def apply_gain(self, population: str, gain: Gain, signal: Tensor) -> Tensor:
        """Multiply a signal (..., batch, *population.shape) by a frozen gain: f'(abar), or 1 for "none"."""
        if gain == "none":
            return signal
        passed, activation = self.feedforward, self.network.populations[population].activation
        return activation.times_gain(signal, passed.drives.get(population), passed.response(population))

    def activities(self, state: State) -> Mapping[str, Tensor]:
        """Return every population's activity: the output's is its clamp, a noiseless input's the stimulus."""
        ends = {
            self.network.input: self.feedforward.activities[self.network.input],
            self.network.output: self.clamped,
        }
        return ends | {name: unit.activity(state) for name, unit in self.units.items() if unit.variables[0] in state}

    def __repr__(self) -> str:
        preset = self.assumptions.preset
        return self._in_words(f"clip {self.clip}", f"assumptions {repr(preset) if preset else 'custom'}")

    def _biology(self) -> Iterator[str]:
        yield from super()._biology()
        if self.feedback_transform is not None:
            yield f"feedback transform {getattr(self.feedback_transform, '__name__', self.feedback_transform)}"
