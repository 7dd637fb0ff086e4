"""The equilibrium of a frozen relaxation on a network with cycles, by components (docs/theory.md, section 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actrelax.models.errors import warn
from actrelax.models.integrators.gmres import basis_bytes, gmres, rightmost
from actrelax.models.network import Projection
from actrelax.models.problem import Leaky, RelaxationProblem, State

TOLERANCE = 1e-6
"""Relative residual at which the iteration inside a cycle ends, unless `Steps.until` gives another."""


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """The equilibrium of all populations.

    state         variables of the units
    residual      the largest residual of a sample in a cycle, relative to its input from outside the cycle
    applications  number of times that feedback passed through a projection
    products      largest number of products with the feedback of a cycle, for its equilibrium
    """

    state: State
    residual: float
    applications: int
    products: int


MEMORY = 2**28
"""Bytes for the basis of GMRES: larger batches are solved in parts, at least one sample at a time."""

PRODUCTS = 40
"""Products with the Jacobian for its rightmost eigenvalue, where it has several time constants."""


@torch.no_grad()
def equilibrium_by_components(problem: RelaxationProblem, tolerance: float = TOLERANCE) -> Equilibrium:
    """Return the equilibrium: one evaluation for a population in no cycle, GMRES for the populations of a cycle.

    Needs constant gains. Warns of samples whose equilibrium exists although no relaxation reaches it: with one time
    constant the feedback in a cycle then has an eigenvalue with a real part of 1 or more, with several, or other unit
    dynamics, the Jacobian one of 0 or more. That Jacobian takes `PRODUCTS` further products.
    """
    parts = [_solved(part, tolerance) for part in _parts(problem)]
    for i, members in enumerate(reversed(problem.network.graph.cycles)):
        _warn_of_instability(problem, torch.cat([part.abscissae[i] for part in parts]), members)
    variables = parts[0].state
    state = {v: torch.cat([part.state[v] for part in parts]) if len(parts) > 1 else x for v, x in variables.items()}
    residual, applications = max(part.residual for part in parts), max(part.applications for part in parts)
    return Equilibrium(state, residual, applications, max(part.products for part in parts))


def _parts(problem: RelaxationProblem) -> list[RelaxationProblem]:
    """Split a problem's batch into parts whose bases fit in memory."""
    populations = problem.network.populations
    units = [sum(math.prod(populations[name].shape) for name in cycle) for cycle in problem.network.graph.cycles]
    batch, each = len(problem.clamped), basis_bytes(max(units), problem.state_like.element_size())
    size = max(1, MEMORY // each)
    if size >= batch:
        return [problem]
    parts = []
    for first in range(0, batch, size):
        chosen = slice(first, first + size)
        part = problem.of_batch(problem.network, problem.feedforward.of_samples(chosen), problem.clamped[chosen])
        if problem.feedback_transform is not None:
            part.__dict__["_transformed"] = problem._transformed  # the same weights in all parts
        parts.append(part)
    return parts


@dataclass(frozen=True, eq=False)
class _Part(Equilibrium):
    """The equilibrium of some samples.

    abscissae  for each cycle, from the output down: (batch,), the largest real part of an eigenvalue of its feedback,
               or, with several time constants, of its Jacobian, per unit of time
    """

    abscissae: list[Tensor]


def _solved(problem: RelaxationProblem, tolerance: float) -> _Part:
    """Return the equilibrium of a problem whose bases fit in memory, component by component from the output down."""
    network = problem.network
    state: State = {}
    residual, applications, most, abscissae = 0.0, 0, 0, list[Tensor]()
    for members in reversed(network.graph.components):
        if network.output in members:
            continue
        component = _Component(problem, members, state)
        applications += component.outside
        if members not in network.graph.cycles:
            (name,) = members
            state |= problem.units[name].fixed_point(problem.unit_input(name, state))
            continue
        solution = gmres(component.feedback, component.input_from_outside(), tolerance=tolerance)
        state |= component.as_state(solution.x)
        residual, most = max(residual, float(solution.residual.amax())), max(most, solution.products)
        abscissa, products = solution.abscissa, solution.products
        if not _has_one_tau(problem, members):
            abscissa, further = component.abscissa()
            products += further
        abscissae.append(abscissa)
        applications += products * component.inside
    ordered = {variable: state[variable] for unit in problem.units.values() for variable in unit.variables}
    return _Part(ordered, residual, applications, most, abscissae)


def _has_one_tau(problem: RelaxationProblem, members: Sequence[str]) -> bool:
    """Return whether all units of a cycle are leaky with the same time constant."""
    if any(name in problem.dynamics for name in members):
        return False
    taus = [tau for name in members for tau in problem.taus.extremes(name)]
    return min(taus) == max(taus)


def zero_if_finite(x: Tensor) -> Tensor:
    """Return 0 for each sample whose units are all finite, else nan: (batch,)."""
    return (x * 0).flatten(1).sum(1)


@torch.no_grad()
def residual_of_equilibrium(problem: RelaxationProblem, state: State) -> Tensor:
    """Return |b + A x - x| of each sample, (batch,), relative to |b|: the largest over the cycles.

    It is nan if any other population has an activity of nan or inf.
    """
    inside = [name for members in problem.network.graph.cycles for name in members]
    others = [problem.units[name].activity(state) for name in problem.relaxing if name not in inside]
    found = [zero_if_finite(x) for x in others]
    for members in problem.network.graph.cycles:
        cycle = _Component(problem, members, state)
        b, x = cycle.input_from_outside(), cycle.activity(state)
        error, size = (b + cycle.feedback(x) - x).norm(dim=1), b.norm(dim=1)
        found.append(torch.where((error == 0) & (size == 0), error, error / size))
    return torch.stack(found).amax(0)


class _Component:
    """The populations of one component as one vector per sample, (batch, units), from the top down.

    Their activities at equilibrium are x = A x + b, with b the input from the populations above them.

    inside, outside  numbers of projections that carry feedback from members and from other populations
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
        return self._at_rest(self._received(self._outside, self.above))

    def feedback(self, x: Tensor) -> Tensor:
        """Return A x, (batch, units)."""
        return self._at_rest(self._received(self._inside, self.as_state(x)))

    def abscissa(self) -> tuple[Tensor, int]:
        """Return the real part of the Jacobian's rightmost eigenvalue per sample, and the products for it."""
        units = [self.problem.units[name] for name in self.members]
        linear = [replace(unit, clip=None) if isinstance(unit, Leaky) else unit for unit in units]
        silent = {v: torch.zeros_like(x) for v, x in self.as_state(self.input_from_outside()).items()}

        def rates(state: State, inputs: list[Tensor]) -> Tensor:
            found: State = {}
            for unit, u in zip(linear, inputs, strict=True):
                found |= unit.rate(state, u)
            return torch.cat([found[v].flatten(1) for v in silent], 1)

        def jacobian(y: Tensor) -> Tensor:
            parts = torch.split(y, [x[0].numel() for x in silent.values()], dim=1)
            state = {v: part.reshape(x.shape) for (v, x), part in zip(silent.items(), parts, strict=True)}
            return rates(state, self._received(self._inside, state))

        start = rates(silent, self._received(self._outside, self.above))
        return rightmost(jacobian, start, PRODUCTS)

    def activity(self, state: State) -> Tensor:
        """Return the members' activity, (batch, units)."""
        return torch.cat([self.problem.units[name].activity(state).flatten(1) for name in self.members], 1)

    def as_state(self, x: Tensor) -> State:
        """Return the variables at which the units rest with activities x."""
        state: State = {}
        sizes = [shape.numel() for shape in map(torch.Size, self.shapes)]
        for name, shape, part in zip(self.members, self.shapes, torch.split(x, sizes, dim=1), strict=True):
            unit = self.problem.units[name]
            state |= unit.fixed_point(part.reshape(-1, *shape) / unit.gain)
        return state

    def _received(self, projections: dict[str, list[Projection]], state: State) -> list[Tensor]:
        """Return each member's feedback along some of its projections, (batch, *shape)."""
        like, received = self.problem.state_like, []
        for name, shape in zip(self.members, self.shapes, strict=True):
            total = like.new_zeros(len(like), *shape)
            for p in projections[name]:
                total = total + self.problem.feedback_along(p, state).to(like)
            received.append(total)
        return received

    def _at_rest(self, received: list[Tensor]) -> Tensor:
        """Return the members' activity at rest for their feedback, (batch, units)."""
        gains = [self.problem.units[name].gain for name in self.members]
        return torch.cat([gain * u.flatten(1) for gain, u in zip(gains, received, strict=True)], 1)


def _warn_of_instability(problem: RelaxationProblem, abscissae: Tensor, members: Sequence[str]) -> None:
    shared = _has_one_tau(problem, members)
    unstable, batch = int((abscissae >= (1 if shared else 0)).sum()), len(abscissae)
    cycle, found = f"the cycle of {', '.join(members)}", f"{float(abscissae.amax()):.3g}"
    if unstable and shared:
        warn(
            f"{unstable} of {batch} samples have an equilibrium that no relaxation reaches: their feedback in {cycle} "
            f"has an eigenvalue with real part {found}, which must be below 1."
        )
    elif unstable:
        warn(
            f"{unstable} of {batch} samples have an equilibrium that no relaxation reaches: with these time constants "
            f"{cycle} has an eigenvalue with real part {found} per unit of time, which must be below 0."
        )
