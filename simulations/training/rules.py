"""From an experiment's options to the rule that its batches learn by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actrelax.models.closed_form import largest_derivative, why_no_bound, why_not
from actrelax.models.engines import PAPERS, Steps, integrator_named, schedule
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.learning import (
    Backward,
    BackwardOptions,
    Rule,
    Updates,
    backprop_backward,
    relax_backward,
    relax_continuously,
)
from actrelax.models.learning.trace import Traced
from actrelax.models.network import Network
from actrelax.models.problem import Loss, ProblemFields, RelaxationProblem
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.clipping import StepNearClip
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.mixed_precision import in_bfloat16
from actrelax.simulations.training.parallel import Shared

Learn = Callable[[Network, Tensor, Tensor, BackwardOptions], Backward]
"""A learning rule that takes its options as an argument."""

Sharing = Callable[[Rule, BackwardOptions], Rule]
"""(rule of a single process, options) -> the rule of one of several."""


@dataclass(frozen=True)
class Rules:
    """The rule of an experiment, twice.

    quick    (network, x, y) -> Backward, without checks on the way
    careful  the same, but it looks for nan and inf in each relaxation, of one process alone
    """

    quick: Rule
    careful: Rule


@dataclass(frozen=True)
class _Relaxation:
    """AR with its options as an argument."""

    loss: Loss
    assumptions: str
    integrator: str
    steps: Steps
    fields: ProblemFields

    def __call__(self, network: Network, x: Tensor, y: Tensor, options: BackwardOptions) -> Backward:
        return relax_backward(
            network,
            x,
            y,
            self.steps,
            loss=self.loss,
            assumptions=self.assumptions,
            integrator=self.integrator,
            options=options,
            **self.fields,
        )

    def problem(self, network: Network, x: Tensor, y: Tensor) -> RelaxationProblem:
        """Return the relaxation problem of a batch."""
        return RelaxationProblem.from_batch(network, x, y, loss=self.loss, assumptions=self.assumptions, **self.fields)

    def without_clip(self) -> _Relaxation:
        """Return the same without the clip."""
        return replace(self, fields={**self.fields, "clip": None})


@dataclass(frozen=True)
class _Backprop:
    """Backprop with its options as an argument."""

    loss: Loss

    def __call__(self, network: Network, x: Tensor, y: Tensor, options: BackwardOptions) -> Backward:
        return backprop_backward(network, x, y, loss=self.loss, reduction=options.reduction, updates=options.updates)


def make_rules(
    experiment: Experiment,
    execution: Execution,
    network: Network,
    loss: Loss,
    options: BackwardOptions,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    done: Callable[[], int],
) -> Rules:
    """Fill in an experiment's options.

    Parameters
    ----------
    experiment, execution, network, loss, options, optimiser
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
        If --max-steps are not enough to settle, by the closed form.
    """
    shared = _sharing(experiment, network, batches, done) if batches.processes.count > 1 else None
    if experiment.rule == "backprop":
        return _computed(experiment, _Backprop(loss), options, execution.compile, shared)
    relaxation, evaluation = experiment.relaxation, execution.evaluation
    fields = relaxation.problem_fields(network, experiment.seed)
    relax = _Relaxation(loss, relaxation.assumptions, relaxation.integrator, relaxation.as_steps, fields)
    if relaxation.is_continuous:
        return _continuous(experiment, execution, relax, options, optimiser)
    problem = relax.without_clip().problem(network, *batches.example())
    why_stepped = why_not(problem, integrator_named(relaxation.integrator))
    if evaluation == "closed-form" and why_stepped is not None:
        raise ActrelaxError(f"--evaluation closed-form can't be used here: {why_stepped}")
    if why_stepped is not None or evaluation == "stepped":
        return _stepped(experiment, execution, relax, options, problem, shared)
    return _at_once(experiment, execution, relax, options, problem, batches, done, shared)


def _sharing(experiment: Experiment, network: Network, batches: Batches, done: Callable[[], int]) -> Sharing:
    assumptions = experiment.relaxation.knobs if experiment.rule == "ar" else None

    def size() -> int:
        return batches.size_of(done() % len(batches))

    return lambda rule, options: Shared(rule, network, options, assumptions, batches.processes, size)


def _stepped(
    experiment: Experiment,
    execution: Execution,
    relax: _Relaxation,
    options: BackwardOptions,
    problem: RelaxationProblem,
    shared: Sharing | None,
) -> Rules:
    compile_as: str = execution.compile
    if compile_as == "auto" and not problem.is_frozen:  # so many kernels a step that Python hardly counts
        compile_as = "no"
    # a list of kernels neither draws numbers nor looks at a step
    if problem.is_noisy or relax.steps.tolerance is not None:
        compile_as = _uncompiled(compile_as, "is for relaxations of a fixed number of steps without noise.")
    return _computed(experiment, relax, replace(options, evaluation="stepped"), compile_as, shared)


def _at_once(
    experiment: Experiment,
    execution: Execution,
    relax: _Relaxation,
    options: BackwardOptions,
    problem: RelaxationProblem,
    batches: Batches,
    done: Callable[[], int],
    shared: Sharing | None,
) -> Rules:
    """Return the closed form; with a clip, for the batches that cannot reach it."""
    integrator, free = integrator_named(relax.integrator), relax.without_clip()
    grid = schedule(problem, integrator, relax.steps).measured(problem, integrator)
    if grid.settles is False:
        warn(f"relaxations have not settled after {grid.steps} steps: give a larger --max-steps or --tolerance.")
    if grid.settles:  # within the tolerance the relaxation ends at equilibrium, whatever the number of steps
        free = replace(free, integrator="equilibrium", steps=PAPERS)
    elif relax.steps.tolerance is not None:
        free = replace(free, steps=Steps(grid.steps, dt=grid.dt))
    quick = _computed(experiment, free, replace(options, evaluation="closed-form"), execution.compile, shared)
    clip, dt = experiment.relaxation.clip, grid.dt
    if clip is None or not integrator.takes_time:
        return quick
    clipped = _stepped(experiment, execution, relax, options, problem, shared)
    if why_no_bound(problem, integrator, dt=dt) is not None:
        return clipped

    def bound(network: Network, x: Tensor, y: Tensor) -> float:
        if len(x) == 0:  # another process has them all
            return 0.0
        return float(largest_derivative(free.problem(network, x, y), integrator, dt=dt))

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


def _computed(
    experiment: Experiment,
    learn: _Relaxation | _Backprop,
    options: BackwardOptions,
    compile_as: str,
    shared: Sharing | None,
) -> Rules:
    """Return the rule in the precision asked for, and as it is to be compiled; being careful, it is not."""
    is_ar = experiment.rule == "ar"
    unchecked = replace(options, check_finite=False)
    own = unchecked
    if shared is not None:  # what follows the sum over the processes is left to it
        own = replace(unchecked, reduction="sum", updates=Updates(decay=None if options.updates.decay is None else 0.0))
    quick, careful = _with_options(learn, own), _with_options(learn, options)
    if is_ar and experiment.relaxation.feedback_transform is not None:  # it may draw numbers, which a list would repeat
        compile_as = _uncompiled(compile_as, "is for feedback as it is: leave --feedback-transform out.")
    if compile_as == "trace" or (compile_as == "auto" and is_ar):
        quick = Traced(quick)
    elif compile_as == "inductor":
        quick = Traced(quick, lambda kernels, x, y: torch.compile(kernels))
    if experiment.precision == "bf16":
        quick, careful = in_bfloat16(quick), in_bfloat16(careful)
    return Rules(quick if shared is None else shared(quick, options), careful)


def _with_options(learn: Learn, options: BackwardOptions) -> Rule:
    return lambda network, x, y: learn(network, x, y, options)


def _uncompiled(compile_as: str, why: str) -> str:
    """Return "no", where nothing else was asked for."""
    if compile_as not in ("auto", "no"):
        raise ActrelaxError(f"--compile {compile_as} {why}")
    return "no"


def _continuous(
    experiment: Experiment,
    execution: Execution,
    relax: _Relaxation,
    options: BackwardOptions,
    optimiser: torch.optim.Optimizer,
) -> Rules:
    _uncompiled(execution.compile, "is not for continuous plasticity: leave it out.")
    if execution.evaluation == "closed-form":
        raise ActrelaxError(
            "--evaluation closed-form is not for continuous plasticity: feedback moves with the weights."
        )

    def learn(network: Network, x: Tensor, y: Tensor, options: BackwardOptions) -> Backward:
        return relax_continuously(
            network,
            x,
            y,
            relax.steps,
            # weights move by themselves: the optimiser finds no .grad, and only carries the learning rate
            rate=optimiser.param_groups[0]["lr"],
            loss=relax.loss,
            assumptions=relax.assumptions,
            integrator=relax.integrator,
            options=options,
            **relax.fields,
        )

    return Rules(_with_options(learn, replace(options, check_finite=False)), _with_options(learn, options))
