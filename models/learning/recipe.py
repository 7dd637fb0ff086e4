"""The arguments of an `ActivationRelaxation`, checked once, and what its backward pass does with them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from actrelax.models._values import as_generator
from actrelax.models.assumptions import Assumptions
from actrelax.models.closed_form import settled_plan
from actrelax.models.engines import Settle, Steps, schedule
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.torch import plan_for
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.learning.autograd import InputFeedback
from actrelax.models.learning.captured import captured_gradients, reads_state, refuse_computed_weights
from actrelax.models.learning.gradients import BackwardOptions, to_gradients
from actrelax.models.learning.plasticity import times_shares
from actrelax.models.learning.relax import learn, prepare
from actrelax.models.learning.report import SettlingReport
from actrelax.models.learning.settling import pass_for, stops_at_non_finite, with_default_start
from actrelax.models.learning.wrapped import Wrapped, WrappedCapture
from actrelax.models.network import CapturedPass, FeedforwardPass, Network, Slot
from actrelax.models.network.captured import trial_pass
from actrelax.models.problem import RelaxationProblem


class Relaxed(NamedTuple):
    """The gradients of the weights and of the input, and whether the phases have settled, on a network with cycles."""

    weights: dict[Slot, Tensor]
    input: Tensor | None
    report: SettlingReport | None


@dataclass(frozen=True)
class Recipe:
    """The arguments of the relaxations, checked once and reused for each batch.

    steps    as given
    options  as given, with the reduction
    request  checked request for one sample of zeros; each batch replaces the sample
    start    initial state, if given as a mapping
    """

    steps: Steps
    options: BackwardOptions
    request: SolveRequest
    start: Mapping[str, Tensor] | None

    @property
    def reads_values(self) -> bool:
        """Return whether the number of steps depends on activities."""
        if self.request.problem.network.is_recurrent:
            return True
        return self.request.grid.stop_change is not None or self.steps.of == "gradient"

    @property
    def at_equilibrium(self) -> bool:
        """Return whether relaxations are evaluated at equilibrium, without initial activities."""
        problem = self.request.problem
        return plan_for(self.request) is settled_plan(problem.network.graph) and not reads_state(problem.assumptions)

    @torch.no_grad()
    def relax_pass(self, scale: float | Tensor, passed: CapturedPass, gradient: Tensor) -> Mapping[Tensor, Tensor]:
        """Return the gradients of the parameters of a captured network, and of its stimulus if it needs one."""
        passed.refuse_changed_feedback()
        at_equilibrium, scale = self.at_equilibrium, _beside(scale, gradient)  # scales cancel there
        options = replace(self.options, reduction="sum") if at_equilibrium else self.options
        share = 1.0 if at_equilibrium else self._share(scale, gradient)
        clamped = gradient if at_equilibrium else self._clamp(gradient, share)
        if options.check_finite and not bool(gradient.isfinite().all()):
            options = replace(options, check_finite=False)  # GradScaler expects nan and inf in the gradients
        request = self._request_for(passed.network, passed, clamped, options.check_finite)
        factor = 1.0 if at_equilibrium else scale
        gradients, _, _ = captured_gradients(request, options, factor, loss_scale=scale)
        return gradients

    def alone(self) -> Recipe:
        """Return the recipe of a process that does not wait for others."""
        return self if self.options.agree is None else replace(self, options=replace(self.options, agree=None))

    def run(self, network: Network, x: Tensor) -> FeedforwardPass:
        """Return the forward pass of a batch."""
        return pass_for(network, x, self.options)

    def _request_for(
        self, network: Network, passed: FeedforwardPass, clamped: Tensor, check_finite: bool
    ) -> SolveRequest:
        """Return the request for one batch."""
        problem = self.request.problem.of_batch(network, passed, clamped)
        if self.start is not None:
            problem = replace(problem, start=self.start)
        request = self.request.of(problem)
        if network.graph is not self.request.problem.network.graph:  # another path of a module may be deeper
            request = replace(request, grid=schedule(problem, request.integrator, self.steps))
        return replace(request, options=replace(request.options, check_finite=check_finite))

    def _share(self, scale: float | Tensor, gradient: Tensor) -> float | Tensor:
        """Return the factor of each sample's loss in the loss that runs backward."""
        return scale / len(gradient) if self.options.reduction == "mean" else scale

    def _clamp(self, gradient: Tensor, share: float | Tensor) -> Tensor:
        """Return the loss gradient of each sample."""
        wide = torch.promote_types(gradient.dtype, torch.float32)
        clamped = (gradient.to(wide) / share).to(gradient.dtype)
        if self.options.check_finite and not bool(clamped.isfinite().all()) and bool(gradient.isfinite().all()):
            raise ActrelaxError(
                f"a loss gradient overflows {gradient.dtype}: set loss_scale to the factor that scales the loss."
            )
        return clamped

    @torch.no_grad()
    def relax(
        self, scale: float | Tensor, network: Network, passed: FeedforwardPass, gradient: Tensor, wants_input: bool
    ) -> Relaxed:
        """Return the gradients of the weights and, if `wants_input`, of the input, with a report."""
        scale = _beside(scale, gradient)
        options, share = self.options, self._share(scale, gradient)
        clamped = self._clamp(gradient, share)
        if options.check_finite and not bool(clamped.isfinite().all()):
            options = replace(options, check_finite=False)  # GradScaler expects nan and inf in the gradients
        request = self._request_for(network, passed, clamped, stops_at_non_finite(network, options))
        at_input = InputFeedback(request.problem) if wants_input else None
        learned, _ = learn(request, options, at_input or iter)
        is_one = not isinstance(scale, Tensor) and scale == 1
        found = {
            (projection.name, slot): update if is_one else update * scale
            for projection, totals in learned.totals.items()
            for slot, update in to_gradients(network, request.problem.assumptions, projection, totals, options.updates)
        }
        if at_input is None:
            return Relaxed(found, None, learned.report)
        total = at_input.total if learned.shares is None else times_shares(at_input.total, learned.shares)
        return Relaxed(found, total * share, learned.report)

    def __str__(self) -> str:
        request = self.request
        reduction = "" if self.options.reduction == "mean" else f", reduction={self.options.reduction!r}"
        length = f", steps={self.steps!r}" if request.integrator.takes_time else ""
        preset = request.problem.assumptions.preset
        named = repr(preset) if preset else "custom"
        return f"assumptions={named}, integrator={request.integrator.name!r}{length}{reduction}"


@torch.no_grad()
def checked_recipe(
    wrapped: Wrapped,
    assumptions: Assumptions,
    integrator: Integrator,
    steps: Steps,
    options: BackwardOptions,
    fields: Mapping[str, Any],
) -> Recipe:
    """Check all arguments on a copy, then add the feedback weights and return the recipe."""
    trial, generator = copy.deepcopy(wrapped), as_generator(options.generator)
    trial.add_feedback(assumptions, None if generator is None else generator.clone_state())
    network = trial.network
    zeros = next(network.parameters(), torch.empty(0)).new_zeros(1, *network.populations[network.input].shape)
    passed = pass_for(network, zeros, replace(options, settle=_of_one_sample(options.settle), agree=None))
    fields, given = _without_start(with_default_start(network, dict(fields)))
    problem = RelaxationProblem(network, passed, passed.activities[network.output], assumptions, **fields)
    request = prepare(problem, integrator, steps, options)
    request.measured()
    plan_for(request)
    wrapped.add_feedback(assumptions, generator)
    own = problem.of_batch(wrapped.network, passed, problem.clamped)
    return Recipe(steps, options, request.of(own), given)


@torch.no_grad()
def captured_recipe(
    wrapped: WrappedCapture,
    assumptions: Assumptions,
    integrator: Integrator,
    steps: Steps,
    options: BackwardOptions,
    fields: Mapping[str, Any],
) -> Recipe:
    """Check all arguments with a pass of zeros, and return the recipe."""
    network, generator = wrapped.network, as_generator(options.generator)
    drawing = None if generator is None else generator.clone_state()
    fields, given = _without_start(fields)
    with network.feedback.unchanged_by_errors():
        wrapped.add_feedback(assumptions, drawing)
        blank = network.blank()
        problem = RelaxationProblem(network, blank, blank.output, assumptions, **fields)
        refuse_computed_weights(network, assumptions, options.updates.factors)
        request = prepare(problem, integrator, steps, options)
        plan_for(request)
        if any("current" in (k.activity_gain, k.weight_gain) for k in assumptions.all_knobs):
            trial_pass(network).under(assumptions).check_current()
    if generator is not None and drawing is not None:
        generator.set_state(drawing.get_state())
    return Recipe(steps, options, request, given)


def _without_start(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Tensor] | None]:
    """Return the fields without a start for a whole batch, which is checked with that batch, and that start."""
    start = fields.get("start")
    return ({**fields, "start": "feedforward"}, start) if isinstance(start, Mapping) else (fields, None)


def _of_one_sample(how: Settle) -> Settle:
    """Return the same without initial rates of a whole batch, which are checked with that batch."""
    return replace(how, start="zero") if isinstance(how.start, Mapping) else how


def _beside(scale: float | Tensor, gradient: Tensor) -> float | Tensor:
    """Return a scale on the gradient's device, in float32 or wider."""
    if isinstance(scale, Tensor):
        return scale.to(gradient.device, torch.promote_types(gradient.dtype, torch.float32))
    return scale
