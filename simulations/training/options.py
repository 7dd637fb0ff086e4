"""Options that several simulations share, and what they mean for the models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

import torch
import tyro

from actrelax.models._names import known, look_up
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.engines import INTEGRATORS, PAPERS, Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.problem import ProblemFields, Value, transform_named
from actrelax.simulations.data import random_stream

Number = float | int | None


def require(**ranges: tuple[Number, float, float]) -> None:
    """Refuse a number that is not finite or outside its range; None passes.

    Parameters
    ----------
    **ranges
        Option -> (value, least, most), both included; least `POSITIVE` excludes 0.

    Raises
    ------
    ActrelaxError
        For the first value out of range.
    """
    for name, (value, least, most) in ranges.items():
        if value is None or (least <= value <= most and value < math.inf):
            continue
        if value == math.inf:
            said = "a finite number"
        elif most == math.inf:
            said = "positive" if least == POSITIVE else f"{least:g} or more"
        else:
            said = f"positive and at most {most:g}" if least == POSITIVE else f"between {least:g} and {most:g}"
        raise ActrelaxError(f"--{name.replace('_', '-')} must be {said}, got {value:g}.")


POSITIVE = math.ulp(0.0)
"""The least positive number, as a bound for `require`."""


T = TypeVar("T")


def among(arguments: Sequence[str], kind: type[T]) -> T:
    """Return these options among those of a command line, which decide the defaults of the others."""
    found, _ = tyro.cli(kind, args=arguments, return_unknown_args=True, add_help=False)
    return found


@dataclass(frozen=True)
class Relaxation:
    """Options of the relaxation."""

    assumptions: str = "ar"
    """A preset: which implausible assumptions are lifted."""
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
        known("assumptions", self.assumptions, PRESETS)
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
        """The assumptions that the preset names."""
        return look_up("assumptions", self.assumptions, PRESETS)

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


@dataclass(frozen=True)
class Machine:
    """Where to compute."""

    device: str = "cpu"
    """cpu, cuda, cuda:N, mps, or auto for the best that is there."""
    threads: int | None = None
    """CPU threads, all cores unless given; another number changes the rounding, and with it what a seed gives."""
    channels_last: bool = False
    """Keep images, and the weights of convolutions, in memory with their channels side by side."""


Precision = Literal["fp32", "fp64", "tf32", "bf16"]


@dataclass(frozen=True)
class Hardware(Machine):
    """Where and how precisely to compute."""

    precision: Precision = "fp32"
    """Of weights and activities; tf32: a GPU may round what it multiplies; bf16: only weights are in fp32."""

    def resolved(self) -> Hardware:
        """Return the same with `auto` and missing values replaced by what this machine offers.

        Raises
        ------
        ActrelaxError
            For a device that is not known or not there, or can't compute in this precision.
        """
        require(threads=(self.threads, 1, 1024))
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            kind, index = torch.device(device).type, torch.device(device).index or 0
        except RuntimeError as error:
            raise ActrelaxError(f"unknown device {device!r}; known: cpu, cuda, cuda:N, mps, auto.") from error
        there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        if kind not in there:
            raise ActrelaxError(f"unknown device {device!r}; known: cpu, cuda, cuda:N, mps, auto.")
        if index >= there[kind]:
            raise ActrelaxError(f"device {device!r} is not there: this machine has {_listed(there)}.")
        if kind == "mps" and self.precision == "fp64":
            raise ActrelaxError("device 'mps' can't compute in fp64: use fp32, or --device cpu.")
        if self.precision == "tf32" and (kind != "cuda" or torch.cuda.get_device_capability(index) < (8, 0)):
            raise ActrelaxError(f"device {device!r} has no TF32: use fp32, or an NVIDIA GPU from Ampere on.")
        return replace(self, device=device, threads=self.threads or torch.get_num_threads())

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the weights."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """How images and the weights of convolutions lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


@dataclass(frozen=True)
class FullPrecision(Hardware):
    """Where and how precisely to compute what is compared with laws."""

    precision: Literal["fp32", "fp64"] = "fp64"
    """Of weights and activities."""
    channels_last: Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress] = False


def _listed(there: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in there.items() if count)
