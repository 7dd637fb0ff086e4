"""Learning on networks with cycles: whether each sample has settled, and what share of it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from actrelax.models.engines import Settle, Steps, settled_pass
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.residual import residual_of_pass, residual_of_state
from actrelax.models.engines.steps import step_size
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import TOLERANCE, Integrator, residual_of_equilibrium
from actrelax.models.learning.gradients import SETTLE, BackwardOptions
from actrelax.models.learning.plasticity import without_dropped
from actrelax.models.learning.report import Phase, SettlingReport
from actrelax.models.network import FeedforwardPass, Network
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import Trajectory

SOLVE = Steps.until(1e-5)
"""Default tolerance of "equilibrium" in learning on a network with cycles, which single precision reaches."""
_UNKNOWN = SETTLE.tolerance or 0.0
"""Tolerance that stands for that of a fixed number of steps."""


def stops_at_non_finite(network: Network, options: BackwardOptions) -> bool:
    """Return whether nan and inf end the call: not if samples that have not settled are dropped, these among them."""
    return options.check_finite and not (network.is_recurrent and options.unsettled == "drop")


def pass_for(network: Network, x: Tensor, options: BackwardOptions) -> FeedforwardPass:
    """Return the forward pass that a backward phase reads: settled rates, on a network with cycles.

    Warns if the steps did not suffice; the sentence is the same for all batches, so that a loop prints it once.
    """
    if not network.is_recurrent:
        return network.feedforward(x, keep_drives=False)
    stops = stops_at_non_finite(network, options)
    passed = settled_pass(network, x, options.settle, check_finite=stops, agree=options.agree)
    if passed.reached is False:
        warn_of_unsettled_rates(passed.steps or 0)
    populations = network.populations
    drives = {name: drive for name, drive in passed.drives.items() if populations[name].activation.needs_drive}
    return replace(passed, drives=drives)


def warn_of_unsettled_rates(steps: int) -> None:
    """Warn that a tolerance was not reached in the forward phase."""
    warn(
        f"some samples have not settled after {steps} steps of the forward phase: the report says how many; "
        "a smaller eta may help, or Steps.until with a larger most."
    )


def default_steps(network: Network, integrator: Integrator, otherwise: Steps) -> Steps:
    """Return the steps of a relaxation for which a caller gave none."""
    if not network.is_recurrent:
        return otherwise
    return SETTLE if integrator.takes_time else SOLVE


def with_default_start(network: Network, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a problem, with a start of zero on a network with cycles unless another is given."""
    return {"start": "zero", **fields} if network.is_recurrent else fields


def check_cycles(network: Network, options: BackwardOptions) -> None:
    """Refuse options that need a network with cycles."""
    if options.sample_clip is not None and not network.is_recurrent:
        raise ActrelaxError("sample_clip needs a network with cycles: leave it out, or pass clip to the problem.")


def report_on(request: SolveRequest, trajectory: Trajectory, options: BackwardOptions) -> SettlingReport:
    """Return the report on a relaxation that has ended, without waiting for the device."""
    problem: RelaxationProblem = request.problem
    tolerance, steps = request.grid.residual, trajectory.steps
    if request.integrator.takes_time:
        time = steps * request.grid.dt / max(problem.taus.extremes(v)[1] for v in problem.relaxing)
        from_zero = problem.start == "zero"
        backward = Ended(residual_of_state(problem, trajectory.state), tolerance, steps, time if from_zero else None)
    else:
        residual = residual_of_equilibrium(problem, trajectory.state)
        backward = Ended(residual, tolerance or TOLERANCE, trajectory.products or steps)
    return report_of(options, {"forward": forward_end(options, problem.feedforward), "backward": backward})


class Ended(NamedTuple):
    """How a phase has ended.

    residual   (batch,)
    tolerance  tolerance of its steps; None for a number of steps
    steps      number of steps taken, or of GMRES's products
    time       time since a start at zero, in time constants; None for another start, or if the phase has no time
    """

    residual: Tensor
    tolerance: float | None
    steps: int
    time: float | None = None

    @property
    def bound(self) -> float:
        """The residual above which a sample counts as unsettled.

        Ten times the tolerance; after a start at zero also at most 1 / time, but no less than the tolerance. A real
        mode that grows at rate s has the residual s / (1 - exp(-s time)), which is above 1 / time; the residual of a
        mode that decays is below 1 / time.
        """
        bound = 10 * (self.tolerance or _UNKNOWN)
        return bound if not self.time else max(self.tolerance or 0.0, min(bound, 1 / self.time))


def forward_end(options: BackwardOptions, passed: FeedforwardPass) -> Ended:
    """Return how the forward phase has ended."""
    steps = passed.steps or 0
    return Ended(residual_of_pass(passed), options.settle.steps.tolerance, steps, time_from_zero(options.settle, steps))


def time_from_zero(how: Settle, steps: int) -> float | None:
    """Return the duration of the forward phase in time constants; None unless it starts at zero."""
    return steps * step_size(how.steps) if how.start == "zero" else None


def report_of(options: BackwardOptions, phases: Mapping[Phase, Ended]) -> SettlingReport:
    """Return the report on phases that have ended."""
    return SettlingReport(
        {phase: each.residual for phase, each in phases.items()},
        {phase: options.unsettled_above or each.bound for phase, each in phases.items()},
        {phase: each.steps for phase, each in phases.items()},
        options.unsettled,
    )


def losses_learned(losses: Tensor, report: SettlingReport | None) -> Tensor:
    """Return the loss of each sample, (batch,), with 0 for dropped samples."""
    return losses if report is None else without_dropped(losses, report.learning)


def shares_of(report: SettlingReport, problem: RelaxationProblem, state: State, options: BackwardOptions) -> Tensor:
    """Return the factor of each sample's updates, (batch,): 0 if it is dropped, below 1 if it is clipped."""
    kept = report.learning
    shares = kept.to(problem.clamped)
    if options.sample_clip is None:
        return shares
    norms = [problem.units[name].activity(state).flatten(1).norm(dim=1) for name in problem.relaxing]
    bound = options.sample_clip * problem.clamped.flatten(1).norm(dim=1)
    size = torch.stack(norms).norm(dim=0)
    return torch.where(kept & (size > bound), (bound / size).to(shares), shares)
