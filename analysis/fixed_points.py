"""Fixed points of an unfrozen relaxation: their bounds, their number and their stability (docs/theory.md).

With current gains the equation is nonlinear. In a chain with transposed weights the feedback to each layer is a
gradient, since the gain that reaches x_l is that of the drive by x_l itself:

    tau dx_l/dt = -grad V_l(x_l),    V_l(x) = |x|^2 / 2 - <x_{l+1}, f(W x + b)>

A cascade of gradient flows from the top down has no cycles: for analytic f and isolated fixed points each layer
comes to rest after the one above. All eigenvalues of the Jacobian at a fixed point are real, 1/tau times those
of minus the Hessians, 1 - W^T diag(f''(a) x_{l+1}) W. If the Hessians are positive for all x the fixed point is
the only one. Separate feedback weights undo this, but for any weights and bounded slopes all relaxations end in
a `box`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import root

from actrelax.analysis.long_time import ending
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.engines import SciPyOptions, SparseProblem, Vector, vector
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Projection
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import relative_error

FOUND = 1e-9
"""Bound on the largest rate of change at a fixed point, relative to its largest activity."""
SAME = 1e-4
"""Relative distance up to which two fixed points are the same."""


@dataclass(frozen=True)
class FixedPoint:
    """A state at which a relaxation can rest.

    state        hidden population -> (1, *population.shape)
    eigenvalues  (units,), of the Jacobian there, the rightmost first, in 1 / unit of time
    """

    state: State
    eigenvalues: NDArray[np.complex128]

    @property
    def is_stable(self) -> bool:
        """Return whether relaxations that start near it come to rest at it."""
        return bool(self.eigenvalues[0].real < 0)

    @property
    def unstable_directions(self) -> int:
        """Number of eigenvalues with a real part of 0 or more."""
        return int(np.sum(self.eigenvalues.real >= 0))


def fixed_point(problem: RelaxationProblem, start: State) -> FixedPoint | None:
    """Return the fixed point that Newton's method finds from a state; None if it finds none.

    Powell's hybrid method (`scipy.optimize.root`) with the Jacobian of `SparseProblem`, for a batch of one and
    leaky units. It also finds unstable ones. At kinks the derivative of the gain is zero.
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
    """Return the different fixed points that `fixed_point` finds from several states, such as those of `scattered`.

    Finding one is no proof that there is no other.
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
    """Return the different states at which relaxations from several states come to rest.

    All run at once, one sample each. Only stable fixed points are found, also those at which Newton's method fails.
    Relaxations that do not come to rest are left out.

    Parameters
    ----------
    problem : RelaxationProblem
        Of a batch of one.
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
        start={name: torch.cat([start[name] for start in starts]) for name in network.hidden},
    )
    ended = ending(copies, "BDF", eta=5.0, duration=duration, options=options)
    different: list[State] = []
    for i in ended.settled.nonzero().flatten().tolist():
        place = {name: x[[i]] for name, x in ended.state.items()}
        if all(distance(place, other) > SAME for other in different):
            different.append(place)
    return different


def distance(state: State, other: State) -> float:
    """Return the largest difference of two states over populations, relative to the population's largest activity."""
    return max(
        relative_error(x, other[name], magnitude=torch.maximum(x.abs(), other[name].abs())) for name, x in state.items()
    )


def box(problem: RelaxationProblem) -> State:
    """Return the bound that every relaxation obeys in the end: |x_v| <= sum_p |psi_p|^T max |g_c| |x_c|.

    The largest current gain is that of the activation function, whose slope must be bounded, between drives of -20
    and 20; beyond these the named functions are straight lines. Units must be leaky.

    Returns
    -------
    dict
        Hidden population -> (batch, *population.shape), >= 0. All fixed points are within.
    """
    flat = SparseProblem(problem)
    bounds = {problem.network.output: np.abs(flat.clamped)}
    for name in problem.units:  # from the top down
        received = np.zeros(flat.sizes[name])
        for p in problem.network.outgoing[name]:
            received += abs(flat.feedback[p.name].matrix) @ (_largest_gain(problem, p) * bounds[p.target])
        bounds[name] = received
    return flat.as_tensors({name: bounds[name] for name in problem.units})


def scattered(problem: RelaxationProblem, count: int, generator: GeneratorLike) -> Iterator[State]:
    """Yield states to start from: the feedforward pass's, and random ones in the `box`.

    The activities of a random state are uniform, up to a share of the box that is log-uniform from 0.01 to 1: the
    box of a deep network is large, and its fixed points are usually near its middle.
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


def _largest_gain(problem: RelaxationProblem, projection: Projection) -> float:
    """Return the largest gain with which a projection's target can send feedback along it."""
    if problem.activity_gain(projection) == "none":
        return 1.0
    drives = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    return float(problem.network.populations[projection.target].activation.derivative(drives).abs().max())


def _flat(problem: RelaxationProblem) -> SparseProblem:
    if len(problem.clamped) != 1:
        raise ActrelaxError(
            f"fixed points are those of one sample: give a batch of one, not of {len(problem.clamped)}."
        )
    return SparseProblem(problem)
