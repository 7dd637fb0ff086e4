"""Ways to the gradient of a network with cycles, side by side: the error of the updates against their cost.

All methods start from the same settled rates, except backprop through time, and end with updates of all weights:

=============  ========================================================================================================
AR             a relaxation from zero by Euler's scheme (Almeida 1987, Pineda 1987)
second order   AR whose units are second-order, tau^2 x'' + 2 z tau x' + x = u, with z and dt chosen for the network
one step       Jacobian-free backprop (Fung et al. 2022): a single step of eta 1
k steps        phantom gradients (Geng et al. 2021): autograd through the last k forward steps
GMRES          recurrent backpropagation by GMRES (Liao et al. 2018 use conjugate gradients)
BPTT           autograd through all forward steps, from rates of zero
EP             equilibrium propagation with antisymmetric weights corrected (Scurria et al. 2026): rates are nudged by
               +beta and by -beta, and the update is the centred difference over 2 beta
=============  ========================================================================================================

The cost is the number of products with W or W^T, of the whole network once each, from the settled rates on; the forward
phase that BPTT needs for its graph counts too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from actrelax.analysis.spectra import LARGE, blocks
from actrelax.analysis.stability import condition_of_largest, largest_step
from actrelax.models.engines import Settle, SparseProblem, Steps, settle
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import EULER, gmres
from actrelax.models.learning import BackwardOptions, bptt_backward, local_updates
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem, State, UnitDynamics

DAMPINGS = (0.3, 0.5, 0.7, 1.0)
"""Values of z that are tried for second-order units."""


@dataclass(frozen=True)
class Row:
    """One method with one number of steps.

    products   applications of W or W^T
    error      |update - gradient| / |gradient|, over all weights and biases
    predicted  kappa rho^n, at most 1, a bound once the transient is over (`stability.predicted_steps`); for equilibrium
               propagation also a quarter of the error at twice beta; None for GMRES and BPTT
    """

    method: str
    steps: int
    products: int
    error: float
    predicted: float | None


def compare(
    network: Network, x: Tensor, y: Tensor, counts: Sequence[int], *, eta: float = 0.5, beta: float = 0.01
) -> list[Row]:
    """Return the errors of all methods after several numbers of steps, for the mean cross-entropy of a batch.

    Parameters
    ----------
    network : Network
        With cycles, in float64.
    x, y : torch.Tensor
        Stimuli, (batch, *input shape), and labels, (batch,).
    counts : sequence of int
        Numbers of steps, ascending; of each nudged phase for equilibrium propagation.
    eta : float, default 0.5
        Step size of all methods that have one, except "one step" and "second order".
    beta : float, default 0.01
        Strength of the nudge.

    Raises
    ------
    ActrelaxError
        For a network without cycles or in another precision.
    """
    if not network.is_recurrent or x.dtype != torch.float64:
        raise ActrelaxError("the comparison needs a network with cycles in float64: pass network.double() and its x.")
    # near the onset eigenvalues are almost imaginary, where Euler's scheme needs tiny steps, and rk4 does not
    passed = settle(network, x, Settle(Steps.until(1e-12, eta=0.5, most=20_000), "rk4"))
    problem = RelaxationProblem.from_batch(network, passed, y, start="zero")
    rates = {name: passed.activities[name] for cycle in network.graph.cycles for name in cycle}
    settled = Settle(Steps.until(1e-11, eta=eta), "euler", start=rates)
    exact = updates(problem, solution(problem))
    jacobian = SparseProblem(problem).jacobian(np.zeros_like(SparseProblem(problem).initial_state))
    law = _law(jacobian, eta)

    def error(found: Tensor) -> float:
        return float((found - exact).norm() / exact.norm())

    rows = [Row("AR", n, n, error(updates(problem, state)), law(n)) for n, state in along(problem, eta, counts)]
    rows += _second_order(problem, counts, error)
    one = next(along(problem, 1.0, [1]))[1]
    rows.append(Row("one step", 1, 1, error(updates(problem, one)), _law(jacobian, 1.0)(1)))
    for n in counts:
        found = through_time(network, x, y, settled, last=n)
        rows.append(Row("k steps", n, n, error(found), law(n)))
        rows.append(Row("GMRES", n, n, error(updates(problem, krylov(problem, n))), None))
        found = through_time(network, x, y, Settle(Steps(n, eta=eta), "euler"))
        rows.append(Row("BPTT", n, 2 * n, error(found), None))
    for (n, near), (_, far) in zip(
        nudged(problem, eta, beta, counts), nudged(problem, eta, 2 * beta, counts), strict=True
    ):
        predicted = math.hypot(law(n), error(updates(problem, far)) / 4)
        rows.append(Row("EP", n, 6 * n, error(updates(problem, near)), predicted))
    return rows


def updates(problem: RelaxationProblem, state: State) -> Tensor:
    """Return the updates of all parameters by the local rule, averaged over the batch, as one vector."""
    return torch.cat([update.flatten() for _, update in updates_of(problem, state)])


def updates_of(problem: RelaxationProblem, state: State) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each parameter with its update by the local rule, averaged over the batch."""
    for projection in problem.network.projections.values():
        yield from local_updates(problem, projection, state, BackwardOptions())


def solution(problem: RelaxationProblem) -> State:
    """Return the equilibrium by a sparse direct solver."""
    flat = SparseProblem(problem)
    silent = np.zeros_like(flat.initial_state)
    return flat.as_tensors(flat.split(splu(-flat.jacobian(silent).tocsc()).solve(flat.vector_field(silent))))


def along(problem: RelaxationProblem, dt: float, counts: Iterable[int]) -> Iterator[tuple[int, State]]:
    """Yield the state of a relaxation by Euler's scheme after several numbers of steps, ascending."""
    state, taken = problem.initial_state(), 0
    for count in counts:
        for _ in range(count - taken):
            state = EULER.step(problem, state, dt)
        taken = count
        yield count, state


def krylov(problem: RelaxationProblem, products: int) -> State:
    """Return the state with the smallest residual after some products with the feedback."""
    names = problem.relaxing
    shapes = {name: problem.network.populations[name].shape for name in names}
    unclamped = replace(problem, clamped=torch.zeros_like(problem.clamped))

    def as_state(flat: Tensor) -> State:
        parts = torch.split(flat, [math.prod(shape) for shape in shapes.values()], dim=1)
        return {name: part.reshape(-1, *shapes[name]) for name, part in zip(names, parts, strict=True)}

    def feedback(of: RelaxationProblem, state: State) -> Tensor:
        return torch.cat([of.feedback(name, state).flatten(1) for name in names], 1)

    b = feedback(problem, problem.initial_state())
    return as_state(gmres(lambda x: feedback(unclamped, as_state(x)), b, tolerance=1e-14, most=products + 1).x)


def through_time(network: Network, x: Tensor, y: Tensor, how: Settle, last: int | None = None) -> Tensor:
    """Return the gradients by autograd through forward steps, as one vector in the order of `updates`."""
    own = copy.deepcopy(network)
    bptt_backward(own, x, y, last=last, options=BackwardOptions(settle=how))
    gradients = [w.grad for p in own.projections.values() for w in (p.weight, p.bias) if w is not None]
    return torch.cat([g.flatten() for g in gradients if g is not None])


def nudged(
    problem: RelaxationProblem,
    eta: float,
    beta: float,
    counts: Iterable[int],
    *,
    is_corrected: bool = True,
    is_centred: bool = True,
) -> Iterator[tuple[int, State]]:
    """Yield an estimate of the gradient by equilibrium propagation, after several numbers of steps, ascending.

    tau dr/dt = -r + f(a(r)) - (M - M^T) (r - r*) + beta e, with M = diag(f'(a)) W at the settled rates r* and e the
    feedback of the clamped output, so that r - r* = beta (I - M^T)^-1 e to first order in beta.

    Parameters
    ----------
    problem : RelaxationProblem
        Of settled rates, from zero.
    eta, beta : float
        Step size, and strength of the nudge.
    counts : iterable of int
        Numbers of steps of each phase, ascending.
    is_corrected : bool, default True
        Whether -(M - M^T) (r - r*) is there, without which the estimate is right for symmetric M only.
    is_centred : bool, default True
        Centred difference of two phases, nudged by +beta and -beta, over 2 beta; or of one phase and the rest, over
        beta.
    """
    network, passed = problem.network, problem.feedforward
    unclamped = replace(problem, clamped=torch.zeros_like(problem.clamped))
    rest = {name: passed.activities[name] for name in problem.relaxing}
    e = {name: problem.feedback(name, {v: torch.zeros_like(r) for v, r in rest.items()}) for name in rest}

    def step(rates: State, sign: float) -> State:
        everything = {**passed.activities, **rates}
        away, new = {name: r - rest[name] for name, r in rates.items()}, State()
        for name, r in rates.items():
            drive = network.drive(name, everything, passed.routes)
            u = network.populations[name].activation(drive) + sign * beta * e[name]
            if is_corrected:
                forwards = problem.apply_gain(name, "feedforward", drive - passed.drives[name])
                u = u - forwards + unclamped.feedback(name, away)
            new[name] = r + eta * (u - r)
        return new

    phases, taken = dict.fromkeys((1.0, -1.0) if is_centred else (1.0,), rest), 0
    for count in counts:
        with torch.no_grad():
            for _ in range(count - taken):
                phases = {sign: step(rates, sign) for sign, rates in phases.items()}
        taken = count
        other, distance = (phases[-1.0], 2 * beta) if is_centred else (rest, beta)
        yield count, {name: (phases[1.0][name] - other[name]) / distance for name in rest}


def _second_order(problem: RelaxationProblem, counts: Sequence[int], error: Callable[[Tensor], float]) -> list[Row]:
    """Return the rows of second-order units, with the damping and the step size that settle fastest."""
    best: tuple[float, float, RelaxationProblem, sparse.csr_array] | None = None
    for damping in DAMPINGS:
        unit = UnitDynamics.second_order(tau=1.0, damping=damping)
        own = replace(problem, dynamics=dict.fromkeys(problem.relaxing, unit))
        flat = SparseProblem(own)
        jacobian = flat.jacobian(np.zeros_like(flat.initial_state))
        limit = largest_step(jacobian)
        for dt in (limit * share for share in (0.3, 0.5, 0.7, 0.9)) if limit > 0 else ():
            rho = condition_of_largest(_slowest_block(jacobian, dt))[0]
            if best is None or rho < best[0]:
                best = rho, dt, own, jacobian
    if best is None:  # second-order units do not settle here
        return []
    _, dt, own, jacobian = best
    law = _law(jacobian, dt)
    return [Row("second order", n, n, error(updates(own, state)), law(n)) for n, state in along(own, dt, counts)]


def _law(jacobian: sparse.csr_array, dt: float) -> Callable[[int], float]:
    """Return n -> kappa rho^n, at most 1, for Euler's steps of dt."""
    rho, kappa = condition_of_largest(_slowest_block(jacobian, dt))
    return lambda n: min(1.0, kappa * rho**n)


def _slowest_block(jacobian: sparse.csr_array, dt: float) -> sparse.csr_array:
    """Return the step matrix I + dt J of the cycle and sample with the largest spectral radius."""
    steps = [(sparse.eye_array(block.shape[0]) + dt * block).tocsr() for block in blocks(jacobian)]
    small = [s for s in steps if s.shape[0] < LARGE]
    radii = [float(np.abs(np.linalg.eigvals(s.toarray())).max()) for s in small]
    large = [s for s in steps if s.shape[0] >= LARGE]
    radii += [condition_of_largest(s)[0] for s in large]
    return [*small, *large][int(np.argmax(radii))]
