"""Data of a viewer: activities, gradients, errors and arrived signals of a relaxation, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actrelax.analysis.convergence import hidden_gradients, laws_at, spread_out, states_under
from actrelax.analysis.implicit_gradients import implicit_gradients
from actrelax.models.closed_form import Term, terms, uncovered
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Matrix
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import FLOOR, Trajectory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """Data of one hidden population.

    shape       shape of the population
    hops        smallest number of hops from the clamped output
    activities  (samples, times, units)
    gradient    (samples, units), backprop's gradient
    errors      (samples, times), max |activity - gradient| / max |gradient|
    arrived     (samples, times), see `Scene.arrived`
    predicted   (samples, points), predicted errors at `Scene.points`; None if the closed form does not apply
    """

    shape: tuple[int, ...]
    hops: int
    activities: Floats
    gradient: Floats
    errors: Floats
    arrived: Floats
    predicted: Floats | None


@dataclass(frozen=True)
class Scene:
    """Data of one relaxation.

    title        problem, in one line
    trajectory   engine, integrator and steps, in one line
    times        times of the recorded states, in `unit`
    points       times of the predicted errors
    stimuli      (samples, *input shape)
    labels       labels of the stimuli, or None
    populations  name -> data of the population, in topological order
    arrived      label of the quantity in `Shown.arrived`
    no_law       reason for missing predictions, or None
    """

    title: str
    trajectory: str
    times: Sequence[float]
    unit: str
    points: Sequence[float]
    stimuli: Floats
    labels: Sequence[int] | None
    populations: Mapping[str, Shown]
    arrived: str
    no_law: str | None


ARRIVED = "share of the output's signal that has arrived"
COSINE = "cosine of activity and gradient"


def scene_of(
    trajectory: Trajectory, gradients: Mapping[str, Tensor] | None = None, *, samples: int | None = None
) -> Scene:
    """Return the data of a recorded relaxation.

    Parameters
    ----------
    trajectory : Trajectory
        Trajectory with all hidden populations recorded (``solve(..., record=True)``).
    gradients : mapping, optional
        Population -> (batch, *population.shape), from `activity_gradients`. Default: computed from the problem's clamp.
    samples : int, optional
        Number of samples to show, from the first. Default: all.

    Raises
    ------
    ActrelaxError
        If a hidden population was not recorded with all its units, or there are fewer samples.
    """
    problem = trajectory.problem
    count = _checked(trajectory, samples)
    with torch.no_grad():
        found = hidden_gradients(problem, gradients or gradients_of(problem), every=True)
        law = None if uncovered(problem) else _Law.of(trajectory, count)
        hops = hops_from_output(problem.network)
        shown = {
            name: _shown(trajectory.recorded[name][:, :count], gradient[:count], hops[name], law, name)
            for name, gradient in found.items()
        }
        x = problem.feedforward.activities[problem.network.input][:count]
    target = problem.target
    whole = target is not None and target.dim() == 1 and not target.is_floating_point()
    return Scene(
        repr(problem),
        repr(trajectory),
        trajectory.times,
        trajectory.time_unit,
        [] if law is None else law.points,
        _floats(x),
        target[:count].tolist() if whole and target is not None else None,
        shown,
        COSINE if law is None else ARRIVED,
        uncovered(problem),
    )


def gradients_of(problem: RelaxationProblem) -> dict[str, Tensor]:
    """Return backprop's gradients of a problem's activities, from its stimuli and the clamped output.

    With cycles they are those of the loss at the rates that the problem holds.
    """
    with torch.enable_grad():
        if problem.network.is_recurrent:
            held, clamped = problem.feedforward, problem.clamped
            return implicit_gradients(problem.network, held, clamped, loss=_whose_gradient_is_the_target)
        x = problem.feedforward.activities[problem.network.input]
        return activity_gradients(problem.network, x, problem.clamped, loss=_whose_gradient_is_the_target)


def _whose_gradient_is_the_target(output: Tensor, target: Tensor) -> Tensor:
    return (output * target).flatten(1).sum(1)


def hops_from_output(network: Network) -> dict[str, int]:
    """Return hidden population -> minimum number of hops from the output, over which its signal arrives first."""
    hops, reached = {network.output: 0}, [network.output]
    for name in reached:
        new = [source for source in network.graph.sources[name] if source not in hops]
        hops |= dict.fromkeys(new, hops[name] + 1)
        reached += new
    return {name: hops[name] for name in network.hidden}


def _checked(trajectory: Trajectory, samples: int | None) -> int:
    """Return the number of samples to show; raise an error if a hidden population was not recorded completely."""
    batch = len(trajectory.problem.clamped)
    if samples is not None and not 1 <= samples <= batch:
        raise ActrelaxError(f"samples must lie between 1 and {batch}, the relaxation's batch, got {samples}.")
    for name in trajectory.problem.network.hidden:
        if name not in trajectory.recorded or trajectory.units.get(name, ()) is not None:
            raise ActrelaxError(
                f"{name!r} was not recorded with all its units, and a page shows every hidden population: "
                "pass record=True to solve."
            )
    return samples or batch


def _shown(states: Tensor, gradient: Tensor, hops: int, law: _Law | None, name: str) -> Shown:
    x, g = states.flatten(2).cpu().transpose(0, 1), gradient.flatten(1).cpu()
    largest = g.abs().amax(1).clamp(min=FLOOR)
    predicted = None if law is None else law.states(name) - g[:, None]
    return Shown(
        tuple(gradient.shape[1:]),
        hops,
        _floats(x),
        _floats(g),
        _floats((x - g[:, None]).abs().amax(2) / largest[:, None]),
        _floats(torch.cosine_similarity(x, g[:, None], dim=2) if law is None else law.arrived(name)),
        None if predicted is None else _floats(predicted.abs().amax(2) / largest[:, None]),
    )


def _floats(x: Tensor) -> Floats:
    return x.detach().cpu().double().numpy()


@dataclass(frozen=True)
class _Law:
    """Closed form of a relaxation at the recorded times, and at the times of the predictions.

    terms      population -> its terms
    recorded   coefficients at the recorded times
    points     times of the predictions
    at_points  coefficients at these times
    """

    terms: Mapping[str, Sequence[Term]]
    recorded: Sequence[Matrix]
    points: Sequence[float]
    at_points: Sequence[Matrix]
    samples: int

    @classmethod
    def of(cls, trajectory: Trajectory, samples: int) -> _Law:
        dt, how = trajectory.dt, (trajectory.problem, trajectory.integrator)
        at = [round(time / dt) for time in trajectory.times]
        points = spread_out(at[-1]) if at else []
        found: dict[str, Any] = {name: list(each) for name, each in terms(trajectory.problem).items()}
        laws = [laws_at(*how, dt=dt, at=steps) for steps in (at, points)]
        return cls(found, laws[0], [step * dt for step in points], laws[1], samples)

    def states(self, name: str) -> Tensor:
        """Return a population's predicted states, (samples, points, units)."""
        found, batch = self.terms[name], len(self.terms[name][0].value)
        states = torch.cat([*states_under(found, self.at_points)]).cpu()
        return states.reshape(len(states), batch, -1).transpose(0, 1)[: self.samples]

    def arrived(self, name: str) -> Tensor:
        """Return the share of the clamp's signal that has arrived at the recorded times, (samples, times).

        On a chain it is the coefficient P(K >= hops) of docs/theory.md. If the signal takes paths of several lengths,
        each path is weighted by its part of the equilibrium.
        """
        clamps = [term for term in self.terms[name] if term.is_clamp]
        values = torch.stack([term.value[: self.samples].flatten(1).cpu().double() for term in clamps])
        end = values.sum(0)
        parts = (values * end).sum(2) / end.square().sum(1).clamp(min=FLOOR**2)
        weights = [[float(C[term.row, term.column]) for term in clamps] for C in self.recorded]
        return torch.tensor(weights).to(parts).matmul(parts).T
