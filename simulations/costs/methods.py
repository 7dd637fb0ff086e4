"""Methods whose costs are compared: trainings that differ only in their rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actrelax.models.engines import integrator_named, schedule
from actrelax.models.learning import ActivationRelaxation, Backward, BackwardOptions, is_finite
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.data import Dataset
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.forward_phase import ForwardPhase
from actrelax.simulations.training.networks import make_network
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.state import Training

NAMES = ("backprop", "autograd", "closed-form", "equilibrium", "stepped", "front-door", "unrolled")
ETA, TOLERANCE = 0.1, 1e-6


@dataclass(frozen=True)
class Method:
    """Method of computing the gradients of a step.

    name   one of `NAMES`, explained by `actrelax bench --help`
    steps  number of relaxation steps, for closed-form and stepped, or of forward steps, for unrolled; otherwise None
    start  initial state of relaxations with a number of steps
    """

    name: str
    steps: int | Literal["auto"] | None = None
    start: Literal["feedforward", "zero"] = "feedforward"

    @property
    def relaxation(self) -> Relaxation:
        """Relaxation options of the method."""
        if self.name in ("equilibrium", "front-door"):  # both compute the equilibrium
            return Relaxation(integrator="equilibrium")
        tolerance = TOLERANCE if self.steps == "auto" else None
        return Relaxation(steps=self.steps, eta=ETA, tolerance=tolerance, start=self.start)

    @property
    def forward(self) -> ForwardPhase:
        """Options of the forward phase of a network with cycles: as many steps as the relaxation takes."""
        assert isinstance(self.steps, int)
        return ForwardPhase(settle_steps=self.steps, settle_eta=ETA)

    def misfit(self, network: Network) -> str | None:
        """Return None if the method can compute a network's gradients, else what the network is, for a message."""
        if network.is_recurrent:
            return "has cycles" if self.name in ("closed-form", "autograd") else None
        if self.name == "unrolled":
            return "has no cycles"
        return None

    def training(self, base: Experiment, execution: Execution, data: Dataset) -> Training:
        """Return a new training with the options of `base` and this method.

        Raises
        ------
        ActrelaxError
            If the options are not possible.
        """
        if self.name in ("backprop", "autograd"):
            experiment = replace(base, rule="backprop")
        elif self.name == "unrolled":
            experiment = replace(base, rule="bptt", forward=self.forward)
        else:
            cycles = _has_cycles(base, data)
            evaluated: Literal["auto", "stepped", "closed-form"] = "auto" if cycles else "closed-form"
            if self.name == "stepped":
                evaluated, base = "stepped", replace(base, forward=self.forward) if cycles else base
            experiment = replace(base, rule="ar", relaxation=self.relaxation, evaluation=evaluated)
        training = assemble(experiment, execution, data=data).training
        model: nn.Module = training.network
        if self.name == "front-door":
            model = ActivationRelaxation(training.network, options=BackwardOptions(check_finite=False))
        if self.name in ("autograd", "front-door"):
            training.rule = partial(autograd, model, mixed=base.precision == "bf16")
        return training

    def steps_taken(self, training: Training) -> int | None:
        """Return the number of steps; "auto" is the number that the closed form computes."""
        if self.steps != "auto":
            return self.steps
        x, labels = training.batches.example(2)  # BatchNorm needs two images
        with training.network.fork_state(x):
            problem = RelaxationProblem.from_batch(training.network, x, labels)
        return schedule(problem, integrator_named(self.relaxation.integrator), self.relaxation.as_steps).steps


def chosen(
    names: tuple[str, ...],
    steps: tuple[int, ...],
    stepped: tuple[int, ...],
    start: Literal["feedforward", "zero"] = "feedforward",
) -> list[Method]:
    """Return the named methods, backprop first, once for each number of steps."""
    counts: dict[str, tuple[int | Literal["auto"] | None, ...]] = {
        "closed-form": (*steps, "auto"),
        "stepped": stepped,
        "unrolled": stepped,
    }
    wanted = [name for name in NAMES if name == "backprop" or name in names]
    return [Method(name, count, start) for name in wanted for count in dict.fromkeys(counts.get(name, (None,)))]


def _has_cycles(base: Experiment, data: Dataset) -> bool:
    network, _ = make_network(base.model, data.input_shape, data.classes, base.seed)
    return network.is_recurrent


def autograd(model: nn.Module, network: Network, x: Tensor, y: Tensor, *, mixed: bool = False) -> Backward:
    """Compute gradients by ``loss.backward()`` on `model`: the network, or an `ActivationRelaxation` of it.

    With `model` and `mixed` bound, it is a `Rule`. `mixed` autocasts to bfloat16.
    """
    with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
        output = model(x)
        loss = F.cross_entropy(output, y)
    loss.backward()  # type: ignore[no-untyped-call]
    return Backward(loss.detach(), output.detach(), is_finite(loss.detach()), len(output))
