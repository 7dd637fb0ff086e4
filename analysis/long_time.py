"""Long-time behaviour of relaxations: rest, chattering caused by the step size, or motion (docs/theory.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actrelax.analysis.requirements import require_hidden, require_relaxation
from actrelax.models.engines import Steps, TorchOptions, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State

AT_REST = 1e-6
"""Relative swing below which a sample counts as at rest."""
_SILENT = 1e-6
"""Lower bound on the scale of a population's swing, relative to its largest initial activity."""


@dataclass(frozen=True)
class Ending:
    """Last part of a relaxation.

    swing  (batch,), max |x(t) - x(t')| / max |x| over the window, in the population where it is largest
    state  hidden population -> (batch, *population.shape), the final state
    """

    swing: Tensor
    state: State

    @property
    def settled(self) -> Tensor:
        """(batch,), True for samples at rest."""
        return self.swing < AT_REST


def ending(
    problem: RelaxationProblem,
    integrator: str | Integrator,
    *,
    eta: float = 0.1,
    duration: float = 100.0,
    window: float = 20.0,
    options: TorchOptions | None = None,
) -> Ending:
    """Relax, and measure the remaining motion of each sample at the end.

    Parameters
    ----------
    problem : RelaxationProblem
        With leaky units and one tau.
    integrator : str or Integrator
        Current gains make the equation stiff: use ``"BDF"`` to exclude effects of the step size.
    eta : float, default 0.1
        dt / tau; for adaptive methods the interval between observations.
    duration, window : float, default 100.0 and 20.0
        Length of the relaxation and of the observed last part, in units of tau, rounded to whole steps.
    options : TorchOptions, SciPyOptions or Brian2Options, optional
        As for `solve`.

    Raises
    ------
    ActrelaxError
        If eta is not positive, the window not shorter than the duration, or the network without hidden populations.
    """
    require_relaxation(problem, "the end of a relaxation")
    require_hidden(problem, "the end of a relaxation")
    Steps(eta=eta)  # raises
    if not 0 < window < duration:
        raise ActrelaxError(f"the window must lie between 0 and the duration {duration:g}, got {window:g}.")
    hidden, first = problem.network.hidden, problem.initial_state()
    before = solve(problem, integrator, round((duration - window) / eta), eta=eta, options=options).final
    late = replace(problem, start={name: before[name].to(problem.state_like) for name in hidden})
    trajectory = solve(late, integrator, round(window / eta), eta=eta, record=hidden, options=options)
    swings = []
    for name in hidden:
        x = trajectory[name].flatten(2)
        largest = torch.maximum(x.abs().amax((0, 2)), _SILENT * first[name].flatten(1).abs().amax(1))
        swings.append((x.amax(0) - x.amin(0)).amax(1) / largest.clamp(min=torch.finfo(x.dtype).tiny))
    return Ending(torch.stack(swings).amax(0), {name: trajectory.final[name] for name in hidden})


def fates(coarse: Ending, fine: Ending) -> list[str]:
    """Classify each sample's long-time behaviour from relaxations with a coarse and a fine step.

    A sample has "settled" if it is at rest with the coarse step. It "chatters" if the fine step at least halves its
    swing: it slides along a kink, or the coarse step is unstable. Otherwise it "moves".
    """
    shrinks = fine.swing <= coarse.swing / 2
    return [
        "settled" if rests else "chatters" if shrunk else "moves"
        for rests, shrunk in zip(coarse.settled.tolist(), shrinks.tolist(), strict=True)
    ]
