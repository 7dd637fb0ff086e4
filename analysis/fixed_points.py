"""Fixed points of an unfrozen relaxation: bounds, number and stability (docs/theory.md).

With current gains the equation is nonlinear. In a chain with transposed weights the feedback to each layer is a
gradient, because the gain in the feedback to x_l is evaluated at the drive from x_l itself:

    tau dx_l/dt = -grad V_l(x_l),    V_l(x) = |x|^2 / 2 - <x_{l+1}, f(W x + b)>

A cascade of gradient flows from the top down has no cycles: for analytic f and isolated fixed points each layer
comes to rest after the layer above. The Jacobian at a fixed point has real eigenvalues, -1/tau times the eigenvalues
of the Hessians 1 - W^T diag(f''(a) x_{l+1}) W. If the Hessians are positive definite for all x, the fixed point is
unique. None of this holds for separate feedback weights, but for any weights and bounded slopes all relaxations end
in a `box`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import root

from actrelax.analysis.long_time import ending
from actrelax.analysis.requirements import require_relaxation
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.engines import Connection, SciPyOptions, SparseProblem, Vector, vector
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import relative_error

FOUND = 1e-9
"""Bound on the largest rate of change at a fixed point, relative to its largest activity."""
SAME = 1e-4
"""Relative distance below which two fixed points count as the same."""


@dataclass(frozen=True)
class FixedPoint:
    """State with a derivative of zero.

    state        hidden population -> (1, *population.shape)
    eigenvalues  (units,), eigenvalues of the Jacobian, by descending real part, in 1 / unit of time
    """

    state: State
    eigenvalues: NDArray[np.complex128]

    @property
    def is_stable(self) -> bool:
        """True if relaxations that start nearby converge to it."""
        return bool(self.eigenvalues[0].real < 0)

    @property
    def unstable_directions(self) -> int:
        """Number of eigenvalues with a real part of 0 or more."""
        return int(np.sum(self.eigenvalues.real >= 0))


def fixed_point(problem: RelaxationProblem, start: State) -> FixedPoint | None:
    """Return the fixed point that Newton's method finds from a start state; None if it does not converge.

    Powell's hybrid method (`scipy.optimize.root`) with the Jacobian of `SparseProblem`, for a batch of one and
    leaky units. Unstable fixed points are found, too. The derivative of the gain counts as zero at kinks.
    """
    flat = _flat(problem)

    def jacobian(y: Vector) -> Vector:
        return np.asarray(flat.jacobian(y).toarray())

    y = flat.join({name: vector(start[name]) for name in problem.units})
    found = root(flat.vector_field, y, jac=jacobian, method="hybr", options={"xtol": 1e-12}).x
    if not np.abs(flat.vector_field(found)).max() <= FOUND * np.abs(found).max():
        return None
    eigenvalues = np.linalg.eigvals(jacobian(found)).astype(complex)
    return FixedPoint(flat.as_tensors(flat.split(found)), eigenvalues[np.argsort(-eigenvalues.real)])


def fixed_points(problem: RelaxationProblem, starts: Iterable[State]) -> list[FixedPoint]:
    """Return the distinct fixed points that `fixed_point` finds from several start states, such as `scattered`.

    There may be further fixed points.
    """
    different: list[FixedPoint] = []
    for start in starts:
        found = fixed_point(problem, start)
        if found is not None and all(distance(found.state, other.state) > SAME for other in different):
            different.append(found)
    return different


def resting_places(
    problem: RelaxationProblem,
    starts: Sequence[State],
    *,
    duration: float = 100.0,
    options: SciPyOptions | None = None,
) -> list[State]:
    """Return the distinct states in which relaxations from several start states come to rest.

    All relaxations run at once, one sample each. Only stable fixed points are found, including those at which Newton's
    method fails. Relaxations that do not come to rest are left out.

    Parameters
    ----------
    problem : RelaxationProblem
        A batch of one.
    starts : sequence of mapping
        Hidden population -> (1, *population.shape), like the result.
    duration, options
        As for `ending`.
    """
    _flat(problem)
    network, count = problem.network, len(starts)
    stimulus = problem.feedforward.activities[network.input]
    with torch.no_grad():
        passed = network.feedforward(stimulus.expand(count, *stimulus.shape[1:]), keep_drives=False)
    copies = replace(
        problem,
        feedforward=passed,
        clamped=problem.clamped.expand(count, *problem.clamped.shape[1:]),
        start={name: torch.cat([start[name] for start in starts]).to(problem.state_like) for name in network.hidden},
    )
    ended = ending(copies, "BDF", eta=5.0, duration=duration, options=options)
    different: list[State] = []
    for i in ended.settled.nonzero().flatten().tolist():
        place = {name: x[[i]] for name, x in ended.state.items()}
        if all(distance(place, other) > SAME for other in different):
            different.append(place)
    return different


def distance(state: State, other: State) -> float:
    """Return the largest difference between two states, relative to each population's largest activity."""
    return max(
        relative_error(x, other[name], magnitude=torch.maximum(x.abs(), other[name].abs())) for name, x in state.items()
    )


def box(problem: RelaxationProblem) -> State:
    """Return the bound that every relaxation eventually satisfies: |x_v| <= sum_p |psi_p|^T max |g_c| |x_c|.

    max |g_c| is the largest slope of the activation function for drives from -20 to 20; beyond these the named
    functions are straight lines. Units must be leaky.

    Returns
    -------
    dict
        Hidden population -> (batch, *population.shape), >= 0. All fixed points lie within.
    """
    flat = SparseProblem(problem)
    bounds = {problem.network.output: np.abs(flat.clamped)}
    for name in problem.units:  # from the top down
        received = np.zeros(flat.sizes[name])
        for feedback in flat.feedback.values():
            c = feedback.connection
            if c.source == name:
                above = abs(flat.results[c.target]) @ bounds[c.target] if flat.is_pooled(c) else bounds[c.target]
                received += abs(feedback.matrix) @ (_largest_gain(flat, c) * above)
        bounds[name] = received
    return flat.as_tensors({name: bounds[name] for name in problem.units})


def scattered(problem: RelaxationProblem, count: int, generator: GeneratorLike) -> Iterator[State]:
    """Yield `count` start states: the initial state of the problem, then random states in the `box`.

    Activities of a random state are uniform within a share of the box that is log-uniform from 0.01 to 1, because the
    box of a deep network is large and its fixed points usually lie near the middle.
    """
    drawing = as_generator(generator)
    yield problem.initial_state()
    bounds = box(problem)
    for _ in range(count - 1):
        share = 10 ** (-2 * torch.rand(1, generator=drawing, dtype=torch.float64))
        yield {
            name: share * bound * (2 * torch.rand(bound.shape, generator=drawing, dtype=bound.dtype) - 1)
            for name, bound in bounds.items()
        }


def _largest_gain(flat: SparseProblem, connection: Connection) -> float:
    """Return the largest possible gain of the feedback along a connection."""
    if connection.gain == "none":
        return 1.0
    units = (flat.functions if connection.gain == "current" else flat.network.populations)[connection.target]
    drives = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    return float(units.activation.derivative(drives).abs().max())


def _flat(problem: RelaxationProblem) -> SparseProblem:
    require_relaxation(problem, "a fixed point")
    if len(problem.clamped) != 1:
        raise ActrelaxError(
            f"a fixed point belongs to one sample, got a batch of {len(problem.clamped)}: give a batch of one."
        )
    return SparseProblem(problem)
