"""From an experiment's options to the rule that its batches learn by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from actrelax.models.closed_form import largest_derivative, why_no_bound, why_not
from actrelax.models.engines import integrator_named, schedule
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.learning import Backward, Rule, Updates, backprop_backward, relax_backward, relax_continuously
from actrelax.models.learning.trace import Traced
from actrelax.models.network import Network
from actrelax.models.problem import Loss, RelaxationProblem
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.clipping import StepNearClip
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.graphs import captured
from actrelax.simulations.training.mixed import in_bfloat16


@dataclass(frozen=True)
class Rules:
    """The rule of an experiment, twice.

    quick    (network, x, y) -> Backward, without checks on the way
    careful  the same, but it looks for nan and inf in each relaxation, of one process alone
    """

    quick: Rule
    careful: Rule


def make_rules(
    experiment: Experiment,
    network: Network,
    loss: Loss,
    updates: Updates,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    done: Callable[[], int],
) -> Rules:
    """Fill in an experiment's options.

    Parameters
    ----------
    experiment, network, loss, updates, optimiser
    batches : Batches
        An example decides how the relaxations of all of them are computed.
    done : callable
        () -> the number of batches learned so far.

    Raises
    ------
    ActrelaxError
        For a way to compute that can't be had here.

    Warns
    -----
    UserWarning
        If a law says that `max_steps` are not enough to settle.
    """
    options: dict[str, Any] = {"loss": loss, "updates": updates}
    if experiment.rule == "backprop":
        return _computed(experiment, partial(backprop_backward, **options), experiment.speed.compile)
    options |= experiment.relaxation.keywords(network, experiment.seed)
    if experiment.relaxation.is_continuous:
        return _continuous(experiment, optimiser, options)
    problem = _problem(network, *batches.example(), options | {"clip": None})
    why_stepped = why_not(problem, integrator_named(experiment.relaxation.integrator))
    if experiment.speed.method == "closed-form" and why_stepped is not None:
        raise ActrelaxError(f"--method closed-form can't be used here: {why_stepped}")
    if why_stepped is not None or experiment.speed.method == "stepped":
        return _stepped(experiment, options, problem)
    return _at_once(experiment, options, problem, batches, done)


def _stepped(experiment: Experiment, options: dict[str, Any], problem: RelaxationProblem) -> Rules:
    compile_as: str = experiment.speed.compile
    if compile_as == "auto" and not problem.is_frozen:  # so many kernels a step that Python hardly counts
        compile_as = "no"
    # a list of kernels neither draws numbers nor looks at a step
    if problem.is_noisy or experiment.relaxation.steps == "auto":
        compile_as = _uncompiled(compile_as, "is for relaxations of a fixed number of steps without noise.")
    return _computed(experiment, partial(relax_backward, **options, method="stepped"), compile_as)


def _at_once(
    experiment: Experiment,
    options: dict[str, Any],
    problem: RelaxationProblem,
    batches: Batches,
    done: Callable[[], int],
) -> Rules:
    """Return the closed form; with a clip, for the batches that cannot reach it."""
    relaxation, speed, free = experiment.relaxation, experiment.speed, options | {"clip": None}
    integrator = integrator_named(relaxation.integrator)
    grid = schedule(problem, integrator, **relaxation.grid)
    if grid.settles is False:
        warn(f"relaxations end unsettled, after max_steps = {grid.steps}: give more, or a larger tolerance.")
    if relaxation.steps == "auto":
        free = {name: value for name, value in free.items() if name not in relaxation.grid}
        # within the tolerance the relaxation ends at equilibrium, whatever the number of steps
        free |= {"integrator": "equilibrium"} if grid.settles else {"dt": grid.dt, "steps": grid.steps}
    quick = _computed(experiment, partial(relax_backward, **free, method="closed-form"), speed.compile)
    clip, dt = relaxation.clip, grid.dt
    if clip is None or not integrator.takes_time:
        return quick
    clipped = _stepped(experiment, options, problem)
    if why_no_bound(problem, integrator, dt=dt) is not None:
        return clipped

    def bound(network: Network, x: Tensor, y: Tensor) -> float:
        if len(x) == 0:  # another process has them all
            return 0.0
        return float(largest_derivative(_problem(network, x, y, options | {"clip": None}), integrator, dt=dt))

    def careful(network: Network, x: Tensor, y: Tensor) -> Backward:
        return (quick.careful if bound(network, x, y) <= clip else clipped.careful)(network, x, y)

    return Rules(
        StepNearClip(
            bound=lambda *batch: batches.processes.largest(bound(*batch)),
            clip=clip,
            free=quick.quick,
            clipped=clipped.quick,
            place=lambda: done() % len(batches),
        ),
        careful,
    )


def _computed(experiment: Experiment, rule: partial[Backward], compile_as: str) -> Rules:
    """Return the rule in the precision asked for, and as it is to be compiled; being careful, it is not."""
    is_ar, updates = experiment.rule == "ar", rule.keywords["updates"]
    quick: Rule = partial(rule, check_finite=False) if is_ar else rule
    careful: Rule = partial(rule, updates=replace(updates, across=None))
    if is_ar and experiment.relaxation.feedback_transform is not None:  # it may draw numbers, which a list would repeat
        compile_as = _uncompiled(compile_as, "is for feedback as it is: leave --feedback-transform out.")
    if updates.across is not None:
        compile_as = _uncompiled(compile_as, "is for one process: leave it out.")
    if compile_as == "trace" or (compile_as == "auto" and is_ar):
        quick = Traced(quick)
    elif compile_as == "inductor":
        quick = Traced(quick, lambda kernels, x, y: torch.compile(kernels))
    elif compile_as == "cuda-graphs":
        quick = Traced(quick, captured)
    if experiment.hardware.precision == "bf16":
        quick, careful = in_bfloat16(quick), in_bfloat16(careful)
    return Rules(quick, careful)


def _uncompiled(compile_as: str, why: str) -> str:
    """Return "no", where nothing else was asked for."""
    if compile_as not in ("auto", "no"):
        raise ActrelaxError(f"--compile {compile_as} {why}")
    return "no"


def _continuous(experiment: Experiment, optimiser: torch.optim.Optimizer, options: dict[str, Any]) -> Rules:
    _uncompiled(experiment.speed.compile, "is not for continuous plasticity: leave it out.")
    if experiment.speed.method == "closed-form":
        raise ActrelaxError("--method closed-form is not for continuous plasticity: feedback moves with the weights.")
    options = {name: value for name, value in options.items() if name not in ("tolerance", "tolerance_of", "max_steps")}

    def continuous(network: Network, x: Tensor, y: Tensor, check_finite: bool = True) -> Backward:
        # weights move by themselves: the optimiser finds no .grad, and only carries the learning rate
        rate = optimiser.param_groups[0]["lr"]
        return relax_continuously(network, x, y, rate=rate, check_finite=check_finite, **options)

    return Rules(partial(continuous, check_finite=False), continuous)


def _problem(network: Network, x: Tensor, y: Tensor, options: Mapping[str, Any]) -> RelaxationProblem:
    known = {f.name for f in fields(RelaxationProblem)} | {"loss"}
    return RelaxationProblem.from_batch(network, x, y, **{k: v for k, v in options.items() if k in known})
