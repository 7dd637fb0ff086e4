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
from actrelax.simulations.training.processes import Processes


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
    processes = batches.processes
    agrees = network.is_recurrent or experiment.relaxation.steps == "auto"  # on when to stop
    own = _of_one_process(options, processes, agrees)
    rule, obstacle, worthwhile = _alone(experiment, network, loss, own, optimiser, batches)
    compile_as = _compile_as(execution, _obstacle(network) or obstacle, worthwhile)
    in_precision = _precision(experiment, network)
    _try(in_precision(rule), network, batches)
    if compile_as == "trace":
        rule = Traced(rule)
    elif compile_as == "inductor":
        rule = Traced(rule, lambda kernels, x, y: torch.compile(kernels))
    rule = in_precision(rule)
    if is_module(network):
        rule = with_own_stream(rule, experiment.seed, processes.rank, done)
    if processes.count == 1:
        return rule
    assumptions = experiment.relaxation.knobs if experiment.rule == "ar" else None
    return Shared(
        rule, network, options, assumptions, processes, lambda: batches.size_of(done() % len(batches)), agrees
    )


def _of_one_process(options: BackwardOptions, processes: Processes, agrees: bool) -> BackwardOptions:
    """Return the options for a process's share of a batch, without those that `Shared` applies to the sums."""
    own = replace(options, check_finite=False, agree=processes.agree if agrees else options.agree)
    if processes.count == 1:
        return own
    return replace(own, reduction="sum", updates=Updates(decay=None if options.updates.decay is None else 0.0))


def _alone(
    experiment: Experiment,
    network: Network,
    loss: Loss,
    options: BackwardOptions,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
) -> tuple[Rule, str | None, bool]:
    """Return the rule of one process, what keeps it from being compiled, and whether compiling it is worthwhile."""
    if experiment.rule != "ar":
        return _differentiated(experiment, network, loss, options), None, False
    if experiment.relaxation.is_continuous:
        rule = _continuous(experiment, network, loss, options, optimiser)
        return rule, "does not support continuous plasticity: leave it out.", True
    return _relaxed(experiment, network, loss, options, batches)


def _obstacle(network: Network) -> str | None:
    """Return None, or the rest of the sentence that says why rules of this network can't be compiled."""
    if network.is_recurrent:
        return "needs a network without cycles: leave it out."
    return "does not support captured networks: leave it out." if is_module(network) else None


def _precision(experiment: Experiment, network: Network) -> Callable[[Rule], Rule]:
    """Return the function that runs a rule in the experiment's precision."""
    if experiment.precision != "bf16":
        return lambda rule: rule
    return autocast if is_module(network) else in_bfloat16


def _try(rule: Rule, network: Network, batches: Batches) -> None:
    """Learn from one image with a copy of the network; the run itself reports divergence and warnings."""
    images = 2 if is_module(network) else 1  # BatchNorm needs two
    with contextlib.suppress(DivergenceError), warnings.catch_warnings(action="ignore"):
        rule(copy.deepcopy(network), *batches.example(images))


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
    network: Network,
    loss: Loss,
    options: BackwardOptions,
    batches: Batches,
) -> tuple[Rule, str | None, bool]:
    """Return AR's rule, by the closed form if it applies, and the other results of `_alone`."""
    relaxation = experiment.relaxation
    steps, integrator = relaxation.steps_of(network), integrator_named(relaxation.integrator)
    fields = relaxation.problem_fields(network, experiment.seed)
    problem = _example_problem(network, loss, options, batches, {"assumptions": relaxation.knobs, **fields})
    obstacle, worthwhile = None, True
    if _is_stepped(experiment, problem):
        options = replace(options, evaluation="stepped")
        worthwhile = problem.is_frozen  # otherwise the many kernels dominate, and tracing saves little
        if problem.is_noisy or steps.tolerance is not None:
            obstacle = "needs relaxations with a fixed number of steps and without noise."
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
    return rule, obstacle, worthwhile


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
    of_gradient = steps.of == "gradient"  # steps that are enough for this batch may be too few for others
    if grid.rests or (grid.settles and of_gradient):
        return PAPERS, integrator_named("equilibrium")
    return (steps if steps.tolerance is None else Steps(grid.steps, dt=grid.dt)), integrator


def _continuous(
    experiment: Experiment,
    network: Network,
    loss: Loss,
    options: BackwardOptions,
    optimiser: torch.optim.Optimizer,
) -> Rule:
    """Return AR's rule with plasticity during the relaxation, at the optimiser's learning rate."""
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


def _compile_as(execution: Execution, obstacle: str | None, worthwhile: bool) -> str:
    """Return "no", "trace" or "inductor"; raise an error for the latter two if there is an obstacle."""
    asked: str = execution.compile
    if obstacle is not None and asked not in ("auto", "no"):
        raise ActrelaxError(f"--compile {asked} {obstacle}")
    if asked == "auto":
        return "trace" if worthwhile and obstacle is None else "no"
    return asked
