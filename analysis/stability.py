"""Stability of networks with cycles: Jacobians of both phases, and what follows from them (docs/theory.md, section 7).

`loop_matrix` is the M of the theory, d f(a(r)) / dr for the forward phase, and what stands in its place for the
backward phase: M^T, psi^T D, W^T without gains, or, with current gains, the feedback around silence. `jacobian` adds
the units: T^-1 (M - I) with time constants T, for leaky units.

>>> import torch
>>> from torch import nn
>>> from actrelax import Network, Projection, RelaxationProblem, settle
>>> generator = torch.Generator().manual_seed(0)
>>> layers = [nn.Linear(*sizes, bias=False) for sizes in ((4, 50), (50, 50), (50, 3))]
>>> for layer in layers:
...     _ = nn.init.normal_(layer.weight, 0, 0.9 / layer.in_features**0.5, generator=generator)
>>> ends = ("input", "a"), ("a", "a"), ("a", "output")
>>> projections = [Projection(*pair, layer) for pair, layer in zip(ends, layers)]
>>> network = Network((4,), {"a": "tanh", "output": "identity"}, projections)
>>> x = torch.rand(1, 4, generator=generator)
>>> problem = RelaxationProblem.from_batch(network, settle(network, x), torch.tensor([1]))
>>> found = stability(problem)
>>> found.settles, f"{found.abscissa:.2f}", f"{found.largest_eta:.2f}"
(True, '0.53', '1.08')
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq

from actrelax.analysis.deterministic import deterministic
from actrelax.analysis.requirements import require_hidden, require_relaxation
from actrelax.analysis.spectra import (
    LARGE,
    blocks,
    eigenvalues_of_block,
    eigenvectors,
    numerical_abscissa,
    rightmost_eigenvalue,
)
from actrelax.models._names import known, whole_number
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.engines import SparseProblem
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import CapturedNetwork
from actrelax.models.problem import RelaxationProblem

Phase = Literal["forward", "backward"]


@dataclass(frozen=True)
class Stability:
    """The stability of one phase of one sample.

    abscissa            alpha(M), the largest real part of M's eigenvalues, whatever the time constants: leaky units
                        with a single tau settle below 1; for others see `rate`
    rate                the same of the Jacobian, with the problem's time constants and unit dynamics, in 1 / unit of
                        time: below 0 the phase settles, by about exp(rate t)
    radius              the largest magnitude of M's eigenvalues: fixed-point iteration needs less than 1
    numerical_abscissa  of M: below 1 no error grows, for equal time constants
    largest_dt          step size below which Euler's scheme settles, with the problem's time constants and unit
                        dynamics, in units of time; 0 if nothing settles
    largest_eta         largest_dt / tau; nan unless all units are leaky with a single tau
    delay_margin        delay of all projections below which the phase settles, in units of tau; nan unless all units
                        are leaky with a single tau
    """

    abscissa: float
    rate: float
    radius: float
    numerical_abscissa: float
    largest_dt: float
    largest_eta: float
    delay_margin: float

    @property
    def settles(self) -> bool:
        """Return whether the phase settles from close by, with the problem's time constants and without delays."""
        return self.rate < 0


def stability(problem: RelaxationProblem, phase: Phase = "backward") -> Stability:
    """Return the stability of a phase, by the eigenvalues of its linearisation.

    Parameters
    ----------
    problem : RelaxationProblem
        A batch of one, under any assumptions. Its forward pass must have settled for the forward phase to be
        linearised at its fixed point.
    phase : {"backward", "forward"}, default "backward"
        The relaxation, or the forward phase with the same time constants and unit dynamics.

    Raises
    ------
    ActrelaxError
        For a `ForwardProblem`, several samples, a network without hidden populations, or the forward phase of a
        captured one.
    """
    matrix, generator = loop_matrix(problem, phase), jacobian(problem, phase)
    largest_dt, tau = largest_step(generator), _single_tau(problem)
    return Stability(
        rightmost_eigenvalue(matrix).real,
        rightmost_eigenvalue(generator).real,
        radius(matrix),
        numerical_abscissa(matrix),
        largest_dt,
        largest_dt / tau,
        math.nan if math.isnan(tau) else delay_margin(matrix),
    )


def loop_matrix(problem: RelaxationProblem, phase: Phase = "backward") -> sparse.csr_array:
    """Return the derivative of the units' input by their activities, (units, units), hidden populations top down.

    Parameters
    ----------
    problem : RelaxationProblem
        A batch of one.
    phase : {"backward", "forward"}, default "backward"
        "forward": M = diag(f'(a)) W, at the rates of the problem's forward pass, along its pooling routes.
        "backward": the feedback. With current gains it is linearised at silence, x = 0.
    """
    _check(problem)
    if known("phase", phase, ["forward", "backward"]) == "forward":
        if isinstance(problem.network, CapturedNetwork):
            raise ActrelaxError('a captured network\'s module computes its rates: it has no phase "forward".')
        return _forward_matrix(problem)
    flat = SparseProblem(replace(deterministic(problem), tau=1.0, dynamics={}))
    silent = flat.jacobian(np.zeros_like(flat.initial_state))
    return (silent + sparse.eye_array(silent.shape[0])).tocsr()


def jacobian(problem: RelaxationProblem, phase: Phase = "backward") -> sparse.csr_array:
    """Return the Jacobian of a phase's ODE, (variables, variables), in 1 / unit of time and without delays.

    T^-1 (M - I) for leaky units; for others A + B M C of their state spaces. The arguments are those of `loop_matrix`.
    """
    matrix = loop_matrix(problem, phase)
    A, B, C = SparseProblem(deterministic(problem)).state_space
    return (A + B @ matrix @ C).tocsr()


def radius(matrix: sparse.csr_array) -> float:
    """Return the largest magnitude of a matrix's eigenvalues."""
    return max(float(np.abs(eigenvalues_of_block(block, "LM")).max()) for block in blocks(matrix))


def largest_step(matrix: sparse.csr_array) -> float:
    """Return the step size below which Euler's scheme settles on dx/dt = A x + b, in the unit of time of A.

    The smallest -2 Re lambda / |lambda|^2 over A's eigenvalues; 0 if one has a real part of 0 or more.
    """
    return max(0.0, min(_largest_step_of_block(block) for block in blocks(matrix)))


def _largest_step_of_block(block: sparse.csr_array) -> float:
    size = block.shape[0]
    if size < LARGE:
        found = eigenvalues_of_block(block, "LM")
        return float(np.min(-2 * found.real / np.maximum(np.abs(found) ** 2, 1e-300)))
    if rightmost_eigenvalue(block).real >= 0:
        return 0.0

    def excess(step: float) -> float:
        return radius(sparse.eye_array(size) + step * block) - 1

    # below 2 / |A| for its fastest eigenvalue, as if that were real
    high = 2 / radius(block)
    return high if excess(high) <= 0 else float(brentq(excess, 1e-6 * high, high, rtol=1e-9))


def delay_margin(matrix: sparse.csr_array) -> float:
    """Return the delay of all projections below which tau dx/dt = -x + M x(t - d) settles, in units of tau.

    The smallest (|arg m| - arctan s) / s, s = sqrt(|m|^2 - 1), over M's eigenvalues m with |m| > 1; infinite if there
    are none, 0 if one has a real part of 1 or more.
    """
    found = np.concatenate([_outside_the_circle(block) for block in blocks(matrix)])
    if not found.size:
        return math.inf
    if found.real.max() >= 1:
        return 0.0
    s = np.sqrt(np.maximum(np.abs(found) ** 2 - 1, 1e-300))
    return float(np.min((np.abs(np.angle(found)) - np.arctan(s)) / s))


def _outside_the_circle(block: sparse.csr_array) -> NDArray[np.complex128]:
    """Return the eigenvalues with a magnitude of 1 or more."""
    size, count = block.shape[0], 20
    found = eigenvalues_of_block(block, "LM", count)
    while np.abs(found).min() >= 1 and len(found) < size:
        count *= 4
        found = eigenvalues_of_block(block, "LM", count)
    return found[np.abs(found) >= 1]


def worst_time_constants(
    problem: RelaxationProblem, tries: int, generator: GeneratorLike, *, spread: float = 3.0, phase: Phase = "backward"
) -> tuple[float, dict[str, float]]:
    """Return the largest abscissa of T^-1 (M - I) among random time constants per population, and these.

    Parameters
    ----------
    problem : RelaxationProblem
        A batch of one.
    tries : int
        Number of random sets of time constants, 1 or more; equal ones come first.
    generator : torch.Generator, numpy.random.Generator or int
    spread : float, default 3.0
        Time constants lie between 1 / spread and spread, uniformly by their logarithm, and are then divided by their
        geometric mean.
    phase : {"backward", "forward"}, default "backward"

    Returns
    -------
    abscissa : float
        Below 0 all settle. One set that settles proves nothing about the others.
    taus : dict
        Population -> time constant.

    Raises
    ------
    ActrelaxError
        If tries or spread is out of range, and as for `stability`.
    """
    tries = whole_number("tries", tries, least=1)
    if not spread > 1:
        raise ActrelaxError(f"spread, the largest time constant, must be above 1, got {spread:g}.")
    matrix, names = loop_matrix(problem, phase), problem.relaxing
    sizes = [math.prod(problem.network.populations[name].shape) for name in names]
    drawing, worst = as_generator(generator), (-math.inf, dict[str, float]())
    for attempt in range(tries):
        drawn = 2 * torch.rand(len(names), generator=drawing, dtype=torch.float64).numpy() - 1
        taus = np.ones(len(names)) if attempt == 0 else spread ** (drawn - drawn.mean())
        rates = sparse.diags_array(1 / np.repeat(taus, sizes))
        found = rightmost_eigenvalue((rates @ (matrix - sparse.eye_array(matrix.shape[0]))).tocsr()).real
        worst = max(worst, (found, dict(zip(names, taus.tolist(), strict=True))), key=lambda each: each[0])
    return worst


def predicted_steps(matrix: sparse.csr_array, tolerance: float) -> float:
    """Return about how many steps x' = T x + b need until the error is `tolerance` of the first one.

    ln(kappa / tolerance) / -ln rho, with rho the spectral radius of T and kappa the condition of its largest
    eigenvalue, |y| |x| / |y* x| with its left and right eigenvectors: the factor that errors keep after the transient.
    Infinite if rho is 1 or more. For Euler's scheme T = I + dt J (`jacobian`).

    Raises
    ------
    ActrelaxError
        If the tolerance does not lie between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise ActrelaxError(f"tolerance must lie between 0 and 1, got {tolerance!r}.")
    rho, kappa = condition_of_largest(matrix)
    if rho >= 1:
        return math.inf
    return math.log(kappa / tolerance) / -math.log(rho)


def condition_of_largest(matrix: sparse.csr_array) -> tuple[float, float]:
    """Return the largest magnitude of an eigenvalue, and the condition of that eigenvalue."""
    (values, right), (mirrored, left) = (eigenvectors(each) for each in (matrix, matrix.T.tocsr()))
    first = int(np.abs(values).argmax())
    x, y = right[:, first], left[:, int(np.abs(mirrored - values[first]).argmin())]
    overlap = abs(complex(y @ x))  # eigenvectors of the transpose, without conjugation, are left ones
    kappa = float(np.linalg.norm(x) * np.linalg.norm(y)) / max(overlap, 1e-300)
    return float(abs(values[first])), kappa


def _forward_matrix(problem: RelaxationProblem) -> sparse.csr_array:
    flat, names = SparseProblem(problem), problem.relaxing
    rows: Mapping[str, dict[str, sparse.csr_array]] = {name: {} for name in names}
    for projection in problem.feedback_projections.values():
        source, target = projection.source, projection.target
        if target in rows:
            part = sparse.diags_array(flat.gains[target]) @ flat.drive_matrix(projection)
            rows[target][source] = rows[target][source] + part if source in rows[target] else part
    empty = {(v, u): sparse.csr_array((flat.sizes[v], flat.sizes[u])) for v in names for u in names}
    return sparse.block_array([[rows[v].get(u, empty[v, u]) for u in names] for v in names], format="csr")


def _single_tau(problem: RelaxationProblem) -> float:
    """Return the time constant of all units; nan if they have several, or are not leaky."""
    rates = -SparseProblem(deterministic(problem)).state_space[0].diagonal()
    return math.nan if problem.dynamics or np.ptp(rates) else 1 / float(rates[0])


def _check(problem: RelaxationProblem) -> None:
    require_relaxation(problem, "stability", also=', and phase="forward" for its forward phase')
    require_hidden(problem, "stability")
    if len(problem.clamped) != 1:
        raise ActrelaxError(
            f"stability is a property of one sample, got a batch of {len(problem.clamped)}: give a batch of one."
        )
