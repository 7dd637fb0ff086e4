"""Options of a relaxation, and the corresponding arguments of the models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from actrelax.models._names import known
from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import INTEGRATORS, PAPERS, Steps, integrator_named
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import SETTLE, SOLVE
from actrelax.models.network import Network
from actrelax.models.problem import ProblemFields, Scaled, Transform, Value, transform_named
from actrelax.simulations.data import random_stream
from actrelax.simulations.training.assumption_names import assumptions_named
from actrelax.simulations.training.options import POSITIVE, Repeated, require


@dataclass(frozen=True)
class Relaxation:
    """Options of the relaxation."""

    assumptions: str = "ar"
    """Preset of assumptions, optionally with changes, such as ar,conv.activity-gain=none."""
    integrator: str = "sequential"
    """Integration scheme, such as sequential, euler, rk4 or equilibrium."""
    steps: int | Literal["auto"] | None = None
    """Number of relaxation steps, or auto: as many as it takes to settle. Default: 100, unless --duration is given; on
    networks with cycles until the residual is 0.01, at most 100 of --eta 0.5."""
    tolerance: float | None = None
    """With --steps auto: remaining share of the distance to equilibrium at which a relaxation has settled. Default:
    1e-6."""
    tolerance_of: Literal["activity", "gradient"] | None = None
    """Reference of --tolerance: the initial activity, or the gradient at the end. Default: activity."""
    max_steps: int | None = None
    """With --steps auto: largest number of steps. Default: 10,000."""
    eta: float | None = None
    """Step size dt / tau. Default: 0.1, unless --dt is given."""
    dt: float | None = None
    """Step size in the unit of tau, instead of --eta."""
    duration: float | None = None
    """Duration of a relaxation in the unit of tau, instead of --steps."""
    tau: float = 1.0
    """Time constant of the neurons; all times are in its unit."""
    tau_spread: float = 0.0
    """Standard deviation of log-normal time constants, relative to their mean tau; needs --dt."""
    tau_spread_over: Literal["neurons", "populations"] = "neurons"
    """With --tau-spread: draw one time constant per neuron, or one per population."""
    start: Literal["feedforward", "zero"] | None = None
    """Initial state of relaxations: feedforward activities, or zero. Default: feedforward; zero with continuous
    plasticity, and on networks with cycles."""
    clip: float | None = None
    """Bound on |-x + feedback| of each neuron. Default: no bound."""
    noise: float = 0.0
    """Noise of hidden neurons, as the standard deviation of a neuron without input; needs --integrator euler."""
    input_noise: float = 0.0
    """Noise of the input around the stimulus, as a standard deviation; affects only current gains and presynaptic
    factors."""
    delay: float = 0.0
    """Delay of all feedback in the unit of tau, a whole multiple of dt; needs --integrator euler."""
    feedback_transform: str | None = None
    """Transform of feedback weights: sparse-SHARE (such as sparse-0.5) or quantised-LEVELS (such as quantised-16).
    Default: none."""
    feedback_strength: float | None = None
    """Factor of all feedback weights, below 1 to stabilise the feedback around cycles. Default: 1."""
    lift: Repeated = ()
    """Change of one projection, NAME.KNOB=VALUE, such as layer1.0.conv1.weight-gain=none; may be repeated."""

    def check(self) -> None:
        """Raise an error for unknown names, values out of range and incompatible options."""
        self.check_problem()
        known("integrator", self.integrator, INTEGRATORS)

    def check_problem(self) -> None:
        """Check all options but the integrator, which may belong to an engine."""
        require(
            steps=(None if self.steps == "auto" else self.steps, 0, math.inf),
            tolerance=(self.tolerance, POSITIVE, 1),
            max_steps=(self.max_steps, 1, math.inf),
            eta=(self.eta, POSITIVE, math.inf),
            dt=(self.dt, POSITIVE, math.inf),
            duration=(self.duration, 0, math.inf),
            tau=(self.tau, POSITIVE, math.inf),
            tau_spread=(self.tau_spread, 0, math.inf),
            clip=(self.clip, POSITIVE, math.inf),
            noise=(self.noise, 0, math.inf),
            input_noise=(self.input_noise, 0, math.inf),
            delay=(self.delay, 0, math.inf),
            feedback_strength=(self.feedback_strength, POSITIVE, math.inf),
        )
        _ = self.knobs  # raises
        only_auto = {"tolerance": self.tolerance, "tolerance-of": self.tolerance_of, "max-steps": self.max_steps}
        unused = " and ".join(f"--{name}" for name, value in only_auto.items() if value is not None)
        if unused and self.steps != "auto":
            raise ActrelaxError(f"--steps auto is needed for {unused}: give it, or leave {unused} out.")
        for one, other in (("steps", "duration"), ("dt", "eta")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ActrelaxError(f"--{one} and --{other} exclude each other: give one of them.")
        if self.feedback_transform is not None and self.feedback_strength is not None:
            raise ActrelaxError("--feedback-transform and --feedback-strength exclude each other: give one of them.")
        transform_named(self.feedback_transform)

    @property
    def knobs(self) -> Assumptions:
        """Assumptions of the preset with its changes, and those of single projections."""
        return assumptions_named(self.assumptions, self.lift)

    @property
    def condition(self) -> str:
        """The assumptions in one word."""
        return ",".join([self.assumptions, *self.lift])

    @property
    def is_continuous(self) -> bool:
        """True if weights change during the relaxation."""
        return self.knobs.is_continuous

    @property
    def as_steps(self) -> Steps:
        """Step options as an argument of `solve`."""
        if self.steps == "auto":
            return Steps.until(
                1e-6 if self.tolerance is None else self.tolerance,
                of=self.tolerance_of or "activity",
                eta=self.eta,
                dt=self.dt,
                most=10_000 if self.max_steps is None else self.max_steps,
            )
        if self.steps is self.eta is self.dt is self.duration is None:
            return PAPERS
        return Steps(self.steps, eta=self.eta, dt=self.dt, duration=self.duration)

    def steps_of(self, network: Network) -> Steps:
        """Return the steps on a network, whose default depends on cycles."""
        if not network.is_recurrent or self.steps is not None or self.duration is not None:
            return self.as_steps
        if not integrator_named(self.integrator).takes_time:
            return SOLVE
        given = self.eta is not None or self.dt is not None
        return replace(SETTLE, eta=self.eta, dt=self.dt) if given else SETTLE

    def problem_fields(self, network: Network, seed: int) -> ProblemFields:
        """Return keyword arguments of `RelaxationProblem.from_batch`, without the assumptions."""
        return {
            "tau": self.time_constants(network, seed),
            "start": self.start or ("zero" if self.is_continuous or network.is_recurrent else "feedforward"),
            "clip": self.clip,
            "noise": self.noise,
            "input_noise": self.input_noise,
            "delays": self.delay,
            "feedback_transform": self.transform(seed),
        }

    def transform(self, seed: int) -> Transform | None:
        """Return the transform of feedback weights, or None."""
        if self.feedback_strength is not None:
            return Scaled(self.feedback_strength)
        return transform_named(self.feedback_transform, seed)

    def time_constants(self, network: Network, seed: int) -> float | Mapping[str, Value]:
        """Return the time constants: tau, or hidden population -> one value, or one per neuron, on the CPU.

        Drawn values have mean tau and the spread of `tau_spread`. A noisy input has tau.
        """
        if self.tau_spread == 0:
            return self.tau
        stream = random_stream(seed, "tau")
        sigma = math.sqrt(math.log1p(self.tau_spread**2))
        dtype = next(network.parameters()).dtype
        together = self.tau_spread_over == "populations"
        shapes = {name: () if together else network.populations[name].shape for name in network.hidden}
        drawn = {name: torch.randn(shape, generator=stream, dtype=torch.float64) for name, shape in shapes.items()}
        taus = {name: self.tau * torch.exp(sigma * z - sigma**2 / 2) for name, z in drawn.items()}
        spread = {name: tau.item() if together else tau.to(dtype) for name, tau in taus.items()}
        return {**spread, network.input: self.tau} if self.input_noise else spread
