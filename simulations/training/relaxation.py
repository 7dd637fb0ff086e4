"""The options of a relaxation, and what they mean for the models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from actrelax.models._names import known
from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import INTEGRATORS, PAPERS, Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.problem import ProblemFields, Value, transform_named
from actrelax.simulations.data import random_stream
from actrelax.simulations.training.assumption_names import assumptions_named
from actrelax.simulations.training.options import POSITIVE, require


@dataclass(frozen=True)
class Relaxation:
    """Options of the relaxation."""

    assumptions: str = "ar"
    """A preset: which implausible assumptions are lifted; with changes to it as in ar,conv.activity-gain=none."""
    integrator: str = "sequential"
    """Numerical scheme."""
    steps: int | Literal["auto"] | None = None
    """Steps of a relaxation, 100 unless --duration is given; auto: until it has settled."""
    tolerance: float | None = None
    """Of --steps auto, 1e-6 unless given: what may be left of the way to equilibrium."""
    tolerance_of: Literal["activity", "gradient"] | None = None
    """What that is relative to: the activity where relaxations begin, unless given, or the gradient where they end."""
    max_steps: int | None = None
    """Of --steps auto, 10,000 unless given."""
    eta: float | None = None
    """Size of a step, dt / tau; 0.1 unless --dt is given."""
    dt: float | None = None
    """Size of a step in the unit of tau, in place of --eta."""
    duration: float | None = None
    """How long to relax in the unit of tau, in place of --steps."""
    tau: float = 1.0
    """Time constant of the neurons."""
    tau_spread: float = 0.0
    """Standard deviation of the neurons' time constants relative to their mean, tau (log-normal); needs --dt."""
    tau_spread_over: Literal["neurons", "populations"] = "neurons"
    """What has a time constant of its own then: each neuron, or each population, whose neurons share it."""
    start: Literal["feedforward", "zero"] | None = None
    """Where relaxations begin; feedforward, but zero with continuous plasticity."""
    clip: float | None = None
    """Bound on -x + feedback, element by element."""
    noise: float = 0.0
    """Standard deviation of a hidden neuron's activity without input; integrator euler follows it."""
    input_noise: float = 0.0
    """The same around the stimulus; it matters where gains or presynaptic factors are current."""
    delay: float = 0.0
    """How long all feedback travels, a whole number of dt, in the unit of tau; integrator euler follows it."""
    feedback_transform: str | None = None
    """What becomes of feedback weights: sparse-SHARE (sparse-0.5), quantised-LEVELS (quantised-16)."""

    def check(self) -> None:
        """Refuse unknown names and what no relaxation can be asked for; the rest is refused where it is used."""
        self.check_problem()
        known("integrator", self.integrator, INTEGRATORS)

    def check_problem(self) -> None:
        """The same but for the integrator, which may be an engine's own."""
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
        )
        _ = self.knobs  # raises
        only_auto = {"tolerance": self.tolerance, "tolerance-of": self.tolerance_of, "max-steps": self.max_steps}
        unused = " and ".join(f"--{name}" for name, value in only_auto.items() if value is not None)
        if unused and self.steps != "auto":
            raise ActrelaxError(f"only --steps auto takes {unused}: choose that, or leave {unused} out.")
        for one, other in (("steps", "duration"), ("dt", "eta")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ActrelaxError(f"--{one} and --{other} exclude each other: give one of them.")
        transform_named(self.feedback_transform)

    @property
    def knobs(self) -> Assumptions:
        """The assumptions that the preset and changes to it name."""
        return assumptions_named(self.assumptions)

    @property
    def is_continuous(self) -> bool:
        """Whether weights change during the relaxation."""
        return self.knobs.is_continuous

    @property
    def as_steps(self) -> Steps:
        """The steps, as `solve` takes them."""
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

    def problem_fields(self, network: Network, seed: int) -> ProblemFields:
        """Return the keyword arguments of `RelaxationProblem.from_batch`, without the assumptions."""
        return {
            "tau": self.time_constants(network, seed),
            "start": self.start or ("zero" if self.is_continuous else "feedforward"),
            "clip": self.clip,
            "noise": self.noise,
            "input_noise": self.input_noise,
            "delays": self.delay,
            "feedback_transform": transform_named(self.feedback_transform, seed),
        }

    def time_constants(self, network: Network, seed: int) -> float | Mapping[str, Value]:
        """Return tau, or population -> one per neuron or for all, of mean tau and the spread asked for, on the CPU.

        Of the hidden populations; where the input is noisy, that has tau.
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
