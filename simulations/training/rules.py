"""Learning rules from the options of an experiment."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from actrelax.models.closed_form import why_not
from actrelax.models.engines import PAPERS, Steps, integrator_named, schedule, settled_pass
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import Integrator
from actrelax.models.learning import (
    Backward,
    BackwardOptions,
    Rule,
    Updates,
    backprop_backward,
    bptt_backward,
    relax_backward,
    relax_continuously,
)
from actrelax.models.learning.trace import Traced
from actrelax.models.network import FeedforwardPass, Network
from actrelax.models.problem import Loss, RelaxationProblem
from actrelax.models.results import DivergenceError
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.mixed_precision import in_bfloat16
from actrelax.simulations.training.modules import autocast, is_module, with_own_stream
from actrelax.simulations.training.parallel import Shared


def make_rule(
    experiment: Experiment,
    execution: Execution,
    network: Network,
    loss: Loss,
    options: BackwardOptions,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    done: Callable[[], int],
) -> Rule:
    """Return the learning rule of an experiment, without checks for nan and inf.

    The first batch decides the evaluation of all relaxations. The rule is tried on one image with a copy of the
    network, so impossible options are refused before the run begins. `done` returns the number of finished batches.

    Raises
    ------
    ActrelaxError
        If the options are not possible.

    Warns
    -----
    UserWarning
        If --max-steps are not enough to settle, according to the closed form.
    """
    captured = is_module(network)
    processes = batches.processes
    own = replace(options, check_finite=False)
    if processes.count > 1:  # `Shared` applies the options to the sums over the processes
        own = replace(own, reduction="sum", updates=Updates(decay=None if options.updates.decay is None else 0.0))
    agrees = network.is_recurrent or experiment.relaxation.steps == "auto"
    if agrees:  # on when to stop
        own = replace(own, agree=processes.agree)
    if experiment.rule != "ar":
        rule = _differentiated(experiment, network, loss, own)
        compile_as = _compile_as(execution, worthwhile=False)
    elif experiment.relaxation.is_continuous:
        rule = _continuous(experiment, execution, network, loss, own, optimiser)
        compile_as = _compile_as(execution, "does not support continuous plasticity: leave it out.")
    else:
        rule, compile_as = _relaxed(experiment, execution, network, loss, own, batches)
    if network.is_recurrent:
        compile_as = _compile_as(execution, "needs a network without cycles: leave it out.")
    if captured:
        compile_as = _compile_as(execution, "does not support captured networks: leave it out.")
    in_precision: Callable[[Rule], Rule] = lambda rule: rule  # noqa: E731
    if experiment.precision == "bf16":
        in_precision = autocast if captured else in_bfloat16
    # the run itself reports divergence and warnings
    with contextlib.suppress(DivergenceError), warnings.catch_warnings(action="ignore"):
        in_precision(rule)(copy.deepcopy(network), *batches.example(2 if captured else 1))  # BatchNorm needs two
    if compile_as == "trace":
        rule = Traced(rule)
    elif compile_as == "inductor":
        rule = Traced(rule, lambda kernels, x, y: torch.compile(kernels))
    rule = in_precision(rule)
    if captured:
        rule = with_own_stream(rule, experiment.seed, processes.rank, done)
    if processes.count == 1:
        return rule
    assumptions = experiment.relaxation.knobs if experiment.rule == "ar" else None
    size = lambda: batches.size_of(done() % len(batches))  # noqa: E731
    return Shared(rule, network, options, assumptions, processes, size, agrees)


def _differentiated(experiment: Experiment, network: Network, loss: Loss, options: BackwardOptions) -> Rule:
    """Return the rule of a baseline, by autograd."""
    if experiment.rule == "backprop":
        reduction, updates = options.reduction, options.updates
        return partial(backprop_backward, loss=loss, reduction=reduction, updates=updates, options=options)
    if not network.is_recurrent:
        raise ActrelaxError("--rule bptt needs a network with cycles: use --rule backprop.")
    return partial(bptt_backward, loss=loss, options=options)


def _relaxed(
    experiment: Experiment,
    execution: Execution,
    network: Network,
    loss: Loss,
    options: BackwardOptions,
    batches: Batches,
) -> tuple[Rule, str]:
    """Return AR's rule, by the closed form if it applies, and the way to compile it."""
    relaxation = experiment.relaxation
    steps, integrator = relaxation.steps_of(network), integrator_named(relaxation.integrator)
    fields = relaxation.problem_fields(network, experiment.seed)
    problem = _example_problem(network, loss, options, batches, {"assumptions": relaxation.knobs, **fields})
    worthwhile = True
    obstacle = "needs a network without cycles: leave it out." if network.is_recurrent else None
    if _is_stepped(experiment, problem):
        options = replace(options, evaluation="stepped")
        worthwhile = problem.is_frozen  # otherwise the many kernels dominate, and tracing saves little
        if problem.is_noisy or steps.tolerance is not None:
            obstacle = obstacle or "needs relaxations with a fixed number of steps and without noise."
    else:
        options = replace(options, evaluation="closed-form")
        steps, integrator = _measured(problem, integrator, steps)
    if problem.feedback_transform is not None:  # it may draw random numbers, which a trace would repeat
        obstacle = obstacle or "does not support feedback transforms: leave --feedback-transform out."
    rule = partial(
        relax_backward,
        steps=steps,
        loss=loss,
        assumptions=relaxation.knobs,
        integrator=integrator,
        options=options,
        **fields,
    )
    return rule, _compile_as(execution, obstacle, worthwhile)


def _example_problem(
    network: Network, loss: Loss, options: BackwardOptions, batches: Batches, fields: Mapping[str, Any]
) -> RelaxationProblem:
    """Return the relaxation of the first batch."""
    example = batches.example()
    with network.fork_state(example.images):
        passed: FeedforwardPass | Tensor = example.images
        if network.is_recurrent:  # the run itself reports divergence
            passed = settled_pass(network, example.images, options.settle, check_finite=False)
        return RelaxationProblem.from_batch(network, passed, example.labels, loss=loss, **fields)


def _is_stepped(experiment: Experiment, problem: RelaxationProblem) -> bool:
    """Return whether relaxations take steps; refuse --evaluation closed-form where it does not apply."""
    evaluation = experiment.evaluation
    reason = why_not(problem, integrator_named(experiment.relaxation.integrator))
    if evaluation == "closed-form" and experiment.relaxation.clip is not None:
        raise ActrelaxError(
            "the closed form needs a relaxation without clip: leave --clip out, or use --evaluation stepped."
        )
    if evaluation == "closed-form" and reason is not None:
        raise ActrelaxError(f"--evaluation closed-form can't be used here: {reason}")
    return evaluation == "stepped" or reason is not None


def _measured(problem: RelaxationProblem, integrator: Integrator, steps: Steps) -> tuple[Steps, Integrator]:
    """Return the steps that the closed form predicts, and the integrator: the equilibrium, if they reach it."""
    grid = schedule(problem, integrator, steps).measured(problem, integrator)
    if grid.settles is False:
        warn(f"relaxations have not settled after {grid.steps} steps: give a larger --max-steps or --tolerance.")
    if grid.settles:
        return PAPERS, integrator_named("equilibrium")
    return (steps if steps.tolerance is None else Steps(grid.steps, dt=grid.dt)), integrator


def _continuous(
    experiment: Experiment,
    execution: Execution,
    network: Network,
    loss: Loss,
    options: BackwardOptions,
    optimiser: torch.optim.Optimizer,
) -> Rule:
    relaxation = experiment.relaxation
    if experiment.evaluation == "closed-form":
        raise ActrelaxError(
            "--evaluation closed-form can't be used with continuous plasticity: use --evaluation auto or stepped."
        )
    learn = partial(
        relax_continuously,
        steps=relaxation.as_steps,
        loss=loss,
        assumptions=relaxation.knobs,
        integrator=relaxation.integrator,
        options=options,
        **relaxation.problem_fields(network, experiment.seed),
    )

    def rule(network: Network, x: Tensor, y: Tensor) -> Backward:
        # the rule updates the weights: the optimiser finds no .grad, and only provides the learning rate
        return learn(network, x, y, rate=optimiser.param_groups[0]["lr"])

    return rule


def _compile_as(execution: Execution, obstacle: str | None = None, worthwhile: bool = True) -> str:
    """Return "no", "trace" or "inductor"; raise an error for the latter two if there is an obstacle."""
    asked: str = execution.compile
    if obstacle is not None and asked not in ("auto", "no"):
        raise ActrelaxError(f"--compile {asked} {obstacle}")
    if asked == "auto":
        return "trace" if worthwhile and obstacle is None else "no"
    return asked
