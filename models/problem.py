"""The relaxation as an initial value problem: which ODE, from where, clamped to what (THEORY.md sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from actrelax.models.assumptions import PRESETS, Assumptions, Gain
from actrelax.models.errors import ActrelaxError
from actrelax.models.losses import Loss, LossFunction, loss_named
from actrelax.models.network import FeedforwardPass, Network
from actrelax.models.projections import Projection
from actrelax.models.registry import known, look_up

State = dict[str, Tensor]
Tau = float | Tensor


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

    Raises
    ------
    ActrelaxError
        For values out of range, unknown names, wrong shapes, or feedback weights that are missing.

    Examples
    --------
    >>> from actrelax.models.architectures import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    RelaxationProblem(64-32-10, batch 3, tau 1, start 'feedforward', clip None, assumptions 'ar')
    """

    network: Network
    feedforward: FeedforwardPass
    clamped: Tensor
    assumptions: Assumptions = PRESETS["ar"]
    tau: float | Mapping[str, Tau] = 1.0
    start: str | Mapping[str, Tensor] = "feedforward"
    clip: float | None = None

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
        passed = network.feedforward(x)
        return cls(network, passed, loss_named(loss).gradient(passed.activities[network.output], y), **fields)

    def __post_init__(self) -> None:
        object.__setattr__(self, "assumptions", look_up("assumptions", self.assumptions, PRESETS))
        for projection in self.network.projections.values():
            self.network.feedback_weight(projection, self.assumptions)
        output = self.feedforward.activities[self.network.output]
        if self.clamped.shape != output.shape:
            raise ActrelaxError(
                f"clamped must be of the output's shape {tuple(output.shape)}, got {tuple(self.clamped.shape)}."
            )
        if self.clip is not None and not self.clip > 0:
            raise ActrelaxError(f"clip must be positive, got {self.clip}.")
        self._check_tau()
        self._check_start()

    def _check_tau(self) -> None:
        named = self.tau if isinstance(self.tau, Mapping) else dict.fromkeys(self.relaxing, self.tau)
        for name, tau in named.items():
            known("hidden population in tau", name, self.relaxing)
            shape = self.network.populations[name].shape
            if not isinstance(tau, int | float | Tensor):
                raise ActrelaxError(f"tau of {name!r} must be a number or a tensor, got {tau!r}.")
            if isinstance(tau, Tensor) and tau.dim() > 0 and tau.shape != shape:
                raise ActrelaxError(f"tau of {name!r} must be a number or of shape {shape}, got {tuple(tau.shape)}.")
            if not bool((torch.as_tensor(tau) > 0).all()):
                raise ActrelaxError(f"tau of {name!r} must be positive, got {float(torch.as_tensor(tau).min()):g}.")

    def _check_start(self) -> None:
        if not isinstance(self.start, Mapping):
            known("start", self.start, ["feedforward", "zero"])
            return
        for name in self.start:
            known("hidden population in start", name, self.relaxing)
        for name in self.relaxing:
            expected = self.feedforward.activities[name].shape
            given = self.start.get(name)
            if given is None or given.shape != expected:
                raise ActrelaxError(f"start must give population {name!r} a state of shape {tuple(expected)}.")

    @cached_property
    def relaxing(self) -> list[str]:
        """The hidden populations, from the top down: the order in which feedback reaches them."""
        return self.network.hidden[::-1]

    @property
    def is_frozen(self) -> bool:
        """Whether all gains of the relaxation are constant, which makes the ODE linear (but for a clip)."""
        return all(knobs.activity_gain != "current" for knobs in self.assumptions.both)

    @property
    def is_continuous(self) -> bool:
        """Whether some weights change while the relaxation runs."""
        return self.assumptions.is_continuous

    def tau_of(self, population: str) -> Tau:
        """Return the population's time constant: a number, or one per neuron, on the batch's device."""
        return self._taus[population]

    def given_tau(self, population: str) -> Tau:
        """Return the same as the caller gave it, wherever that is: looking at it need not wait for a GPU."""
        return self.tau.get(population, 1.0) if isinstance(self.tau, Mapping) else self.tau

    def initial_state(self) -> State:
        """Hidden population -> (batch, *population.shape) at t = 0."""
        if isinstance(self.start, Mapping):
            return {name: self.start[name] for name in self.relaxing}
        activities = {name: self.feedforward.activities[name] for name in self.relaxing}
        if self.start == "zero":
            return {name: torch.zeros_like(x) for name, x in activities.items()}
        return activities

    def vector_field(self, state: State) -> State:
        """dx/dt of every hidden population."""
        return {name: self.bracket(name, state) / self.tau_of(name) for name in self.relaxing}

    def bracket(self, population: str, state: State) -> Tensor:
        """-x_v + feedback_v, clipped where the problem clips: zero at equilibrium."""
        bracket = self.feedback(population, state) - state[population]
        return bracket if self.clip is None else bracket.clamp(-self.clip, self.clip)

    def approach(self, population: str, state: State, eta: Tau) -> Tensor:
        """Return x_v after one Euler step of size eta = dt/tau, (1 - eta) x_v + eta feedback_v."""
        x = state[population]
        if self.clip is None:
            return torch.lerp(x, self.feedback(population, state), eta)  # the same in one kernel
        return x + eta * self.bracket(population, state)

    @torch.no_grad()
    def feedback(self, population: str, state: State) -> Tensor:
        """sum over v's projections of op_p^T(g_c x_c; psi_p), (batch, *population.shape)."""
        total = None
        for p in self.network.outgoing[population]:
            sent = self.amplified(p, self.network.knobs(p, self.assumptions).activity_gain, state)
            psi = self.network.feedback_weight(p, self.assumptions)
            signal = p.feedback_signal(sent, self.feedforward.routes[p.name], psi)
            total = signal if total is None else total + signal
        assert total is not None  # only the output feeds nothing
        return total

    @torch.no_grad()
    def presynaptic(self, projection: Projection, state: State) -> Tensor:
        """The presynaptic factor of the projection's plasticity at this state."""
        when = self.network.knobs(projection, self.assumptions).presynaptic
        activities = self.feedforward.activities if when == "feedforward" else self.activities(state)
        return projection.presynaptic(activities[projection.source], self.feedforward.routes[projection.name])

    @torch.no_grad()
    def postsynaptic(self, projection: Projection, state: State) -> Tensor:
        """The postsynaptic factor of the projection's plasticity at this state: gain times activity."""
        sent = self.amplified(projection, self.network.knobs(projection, self.assumptions).weight_gain, state)
        return projection.postsynaptic(sent, self.feedforward.routes[projection.name])

    def amplified(self, projection: Projection, gain: Gain, state: State) -> Tensor:
        """g_c x_c of the projection's target: the one place that knows what a gain knob means."""
        name = projection.target
        x = self.activities(state)[name]
        if gain == "none":
            return x
        if gain == "feedforward":
            return self._frozen_gains[name] * x
        drive = self.network.drive(name, self.activities(state), self.feedforward.routes)
        return self.network.populations[name].activation.derivative(drive) * x

    def activities(self, state: State) -> Mapping[str, Tensor]:
        """All populations at this moment: the input holds the stimulus, the output is clamped."""
        stimulus = self.feedforward.activities[self.network.input]
        return {self.network.input: stimulus, **state, self.network.output: self.clamped}

    @cached_property
    def _taus(self) -> dict[str, Tau]:
        given = {name: self.given_tau(name) for name in self.relaxing}
        return {name: tau.to(self.clamped) if isinstance(tau, Tensor) else tau for name, tau in given.items()}

    @cached_property
    def _frozen_gains(self) -> State:
        populations = self.network.populations
        return {name: populations[name].activation.derivative(a) for name, a in self.feedforward.drives.items()}

    def __repr__(self) -> str:
        sizes = ["x".join(map(str, p.shape)) for p in self.network.populations.values()]
        tau = f"of {', '.join(self.tau)} given" if isinstance(self.tau, Mapping) else f"{self.tau:g}"
        start = repr(self.start) if isinstance(self.start, str) else "given"
        preset = next((repr(name) for name, preset in PRESETS.items() if preset == self.assumptions), "own")
        return (
            f"RelaxationProblem({'-'.join(sizes)}, batch {len(self.clamped)}, tau {tau}, start {start}, "
            f"clip {self.clip}, assumptions {preset})"
        )
