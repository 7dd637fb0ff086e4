"""A relaxation with its errors against backprop, as `actrelax relax` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from actrelax.analysis.convergence import predicted_errors, spread_out
from actrelax.analysis.ledger import Ledger, ledger_of
from actrelax.analysis.two_phases import RecordedForwardPhase
from actrelax.models.closed_form import uncovered
from actrelax.models.results import Trajectory, relative_error


@dataclass(frozen=True)
class Outcome:
    """Trajectory of a relaxation, with its errors against backprop.

    errors     population -> error at each recorded time
    final      population -> final error
    predicted  times, and population -> predicted errors; None if the closed form does not apply
    forward    the forward phase of a network with cycles, else None
    """

    trajectory: Trajectory
    errors: Mapping[str, Sequence[float]]
    final: Mapping[str, float]
    predicted: tuple[Sequence[float], Mapping[str, Sequence[float]]] | None
    forward: RecordedForwardPhase | None = None

    @property
    def ledger(self) -> Ledger:
        """What each weight update would use."""
        problem = self.trajectory.problem
        return ledger_of(problem.network, problem.assumptions, problem.feedforward)


def measured(
    trajectory: Trajectory, gradients: Mapping[str, Tensor], forward: RecordedForwardPhase | None = None
) -> Outcome:
    """Return the outcome, with errors against backprop and predicted errors if the closed form applies."""
    problem, gradients = trajectory.problem, {name: x.cpu() for name, x in gradients.items()}
    hidden = problem.network.hidden
    errors = trajectory.error({name: gradients[name] for name in hidden})
    final = {name: relative_error(trajectory.final[name].cpu(), gradients[name]) for name in hidden}
    predicted = None
    if uncovered(problem) is None:
        dt = trajectory.dt
        at = spread_out(round(trajectory.time / dt))
        law = predicted_errors(problem, gradients, trajectory.integrator, dt=dt, at=at)
        predicted = [step * dt for step in at], law
    return Outcome(trajectory, {name: error.tolist() for name, error in errors.items()}, final, predicted, forward)
