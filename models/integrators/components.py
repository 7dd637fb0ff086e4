"""The equilibrium of a frozen relaxation on a network with cycles, component by component (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actrelax.models.errors import warn
from actrelax.models.integrators.gmres import Solution, gmres
from actrelax.models.network import Projection
from actrelax.models.problem import RelaxationProblem, State

TOLERANCE = 1e-6
"""Relative residual at which the iteration inside a cycle ends, unless `Steps.until` gives another."""


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """The equilibrium of all populations.

    state         variables of the units
    residual      the largest residual of a sample in a cycle, relative to its input from outside the cycle
    applications  number of times that feedback passed through a projection
    """

    state: State
    residual: float
    applications: int


@torch.no_grad()
def equilibrium_by_components(problem: RelaxationProblem, tolerance: float = TOLERANCE) -> Equilibrium:
    """Return the equilibrium: one evaluation for a population in no cycle, GMRES for the populations of a cycle.

    Needs constant gains. Warns of samples whose equilibrium exists although no relaxation reaches it: the feedback in
    a cycle then has an eigenvalue with a real part of 1 or more.
    """
    network = problem.network
    state: State = {}
    residual, applications = 0.0, 0
    for members in reversed(network.graph.components):
        if network.output in members:
            continue
        cycle = _Cycle(problem, members, state)
        if members in network.graph.cycles:
            b = cycle.input_from_outside()
            solution = gmres(cycle.feedback, b, tolerance=tolerance)
            state |= cycle.as_state(solution.x)
            residual = max(residual, float(solution.residual.amax()))
            applications += cycle.outside + solution.products * cycle.inside
            _warn_of_instability(solution, members)
        else:
            (name,) = members
            state |= problem.units[name].fixed_point(problem.unit_input(name, state))
            applications += cycle.outside
    ordered = {variable: state[variable] for unit in problem.units.values() for variable in unit.variables}
    return Equilibrium(ordered, residual, applications)


class _Cycle:
    """The populations of one component as one vector per sample, (batch, units), from the top down.

    Their activities at equilibrium are x = A x + b, with b the input from the populations above them.

    inside, outside  number of projections that carry feedback from members and from others
    """

    def __init__(self, problem: RelaxationProblem, members: Sequence[str], above: State) -> None:
        self.problem, self.above = problem, above
        self.members = [name for name in problem.relaxing if name in members]
        outgoing = {name: problem.network.outgoing[name] for name in self.members}
        self._inside = {name: [p for p in ps if p.target in members] for name, ps in outgoing.items()}
        self._outside = {name: [p for p in ps if p.target not in members] for name, ps in outgoing.items()}
        self.inside, self.outside = (sum(map(len, ps.values())) for ps in (self._inside, self._outside))
        self.shapes = [problem.network.populations[name].shape for name in self.members]

    def input_from_outside(self) -> Tensor:
        """Return b, (batch, units)."""
        return self._received(self._outside, self.above)

    def feedback(self, x: Tensor) -> Tensor:
        """Return A x, (batch, units)."""
        return self._received(self._inside, self.as_state(x))

    def as_state(self, x: Tensor) -> State:
        """Return the variables at which the units rest with activities x."""
        state: State = {}
        sizes = [shape.numel() for shape in map(torch.Size, self.shapes)]
        for name, shape, part in zip(self.members, self.shapes, torch.split(x, sizes, dim=1), strict=True):
            unit = self.problem.units[name]
            state |= unit.fixed_point(part.reshape(-1, *shape) / unit.gain)
        return state

    def _received(self, projections: dict[str, list[Projection]], state: State) -> Tensor:
        """Return the members' activity for their feedback along some of their projections, at rest."""
        like, parts = self.problem.state_like, []
        for name, shape in zip(self.members, self.shapes, strict=True):
            total = like.new_zeros(len(like), *shape)
            for p in projections[name]:
                total = total + self.problem.feedback_along(p, state).to(like)
            parts.append(self.problem.units[name].gain * total.flatten(1))
        return torch.cat(parts, 1)


def _warn_of_instability(solution: Solution, members: Sequence[str]) -> None:
    unstable = int((solution.abscissa >= 1).sum())
    if unstable:
        warn(
            f"{unstable} of {len(solution.abscissa)} samples have an equilibrium that no relaxation reaches: their "
            f"feedback in the cycle of {', '.join(members)} has an eigenvalue with real part "
            f"{float(solution.abscissa.amax()):.3g}, which must be below 1."
        )
