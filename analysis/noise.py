"""Effect of noise in a relaxation on its weight updates, from the closed form of the scheme (docs/theory.md).

Noise propagates like activity: a noise increment xi in population m has become C_s[l, m] B_{l->m} xi in population
l after s steps, with C_s the coefficients after s steps. Increments are independent, so their variances add up. With
one tau and small steps a neuron receives binomial(2k, k) / 4^k of the variance k hops above (1/2, 3/8, ...) times
the squared feedback.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from actrelax.analysis.requirements import checked_step, require_relaxation
from actrelax.models._names import whole_number
from actrelax.models.closed_form import evaluate_all, hop_matrix, settled_plan, uncovered
from actrelax.models.engines import INTEGRATORS
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Matrix
from actrelax.models.learning import postsynaptic_factor, presynaptic_factor
from actrelax.models.network import CapturedNetwork, Network, Projection
from actrelax.models.problem import RelaxationProblem


def noise_shares(problem: RelaxationProblem, *, dt: float, steps: int) -> Matrix:
    """Return the variance that unit noise in one population causes in another, by Euler's method.

    V[l, m] = (2 dt / tau_m) sum_{s < steps} C_s[l, m]^2, in units of sigma_m^2, for feedback weights of 1 in a chain
    with one tau per population. V[l, l] tends to 1 / (1 - dt / (2 tau)).

    Returns
    -------
    numpy.ndarray
        (hidden populations, hidden populations), from the lowest up.

    Raises
    ------
    ActrelaxError
        If `solve` would refuse dt, or steps is not a whole number >= 0.
    """
    require_relaxation(problem, "a variance of noise")
    M, dt, steps = hop_matrix(problem), checked_step(problem, "euler", dt), whole_number("steps", steps, least=0)
    step = INTEGRATORS["euler"].transition(M, dt)
    C, total = np.eye(len(M)), np.zeros_like(M)
    for _ in range(steps):
        total += C**2
        C = step @ C
    shares: Matrix = total[:-1, :-1] * (-2 * dt * M.diagonal()[:-1])
    return shares


@torch.no_grad()
def noise_variances(problem: RelaxationProblem, *, dt: float, steps: int) -> dict[str, Tensor]:
    """Return the exact variance of each hidden neuron at the end of a noisy relaxation by Euler's method.

    Parameters
    ----------
    problem : RelaxationProblem
        A chain of dense projections with one sigma per population, otherwise covered by the closed form
        (`closed_form.uncovered`); other problems are refused.
    dt : float
        Step size, in the unit of tau.
    steps : int

    Returns
    -------
    dict
        Hidden population -> (batch, units).

    Raises
    ------
    ActrelaxError
        For other problems, and as for `noise_shares`.
    """
    _check(problem)
    hidden, shares = problem.network.hidden, noise_shares(problem, dt=dt, steps=steps)
    found = {name: torch.zeros_like(problem.feedforward.activities[name]) for name in hidden}
    for m, origin in enumerate(hidden):
        x = found[origin]
        sigma = problem.sigmas.of(origin)
        # unit increments of each neuron, propagated down: (neurons of m, batch, neurons of the level)
        kicks = torch.eye(x.shape[1]).to(x)[:, None].expand(-1, len(x), -1)
        for level in range(m, -1, -1):
            found[hidden[level]] += shares[level, m] * sigma**2 * kicks.square().sum(0)
            if level > 0:
                (projection,) = problem.network.outgoing[hidden[level - 1]]
                kicks = _carried(problem, projection, kicks)
    return found


@torch.no_grad()
def expected_noise_angles(problem: RelaxationProblem, *, dt: float, steps: int) -> dict[str, float]:
    """Return the angle between each projection's noisy and noise-free update of a batch, in degrees.

    tan(angle)^2 = sum_b |pre_b|^2 sum_j g_bj^2 Var(x_bj) / |sum_b outer(g_b x_b, pre_b)|^2. An update has many
    entries, so its noise is nearly orthogonal to the gradient; over a batch, variances add up.

    The arguments are those of `noise_variances`. Plasticity must have feedforward presynaptic factors and
    feedforward gains, or none.

    Returns
    -------
    dict
        Projection to a hidden population -> degrees. Projections to the output have no noise.
    """
    variances = noise_variances(problem, dt=dt, steps=steps)
    settled = evaluate_all(replace(problem, noise=0.0), settled_plan(problem.network.graph))
    angles = {}
    for name, projection in problem.network.projections.items():
        if projection.target in variances:
            pre, post = presynaptic_factor(problem, projection, {}), postsynaptic_factor(problem, projection, settled)
            update = torch.einsum("bi,bj->ij", post, pre)
            gain = postsynaptic_factor(problem, projection, {projection.target: torch.ones_like(post)})
            random = (pre.square().sum(1) * (gain**2 * variances[projection.target]).sum(1)).sum()
            angles[name] = float(torch.rad2deg(torch.atan2(random.sqrt(), update.norm())))
    return angles


def _check(problem: RelaxationProblem) -> None:
    require_relaxation(problem, "a variance of noise")
    reason = uncovered(replace(problem, noise=0.0))
    if reason is None and not _is_dense_chain(problem.network):
        reason = "noise variances need a hand-built chain of dense projections: sample the relaxations of this network."
    if reason is None and any(isinstance(problem.sigmas.of(name), Tensor) for name in problem.relaxing):
        reason = "noise variances need one sigma per population, got one per neuron: give noise as numbers."
    if reason is not None:
        raise ActrelaxError(reason)


def _is_dense_chain(network: Network) -> bool:
    if isinstance(network, CapturedNetwork) or not network.graph.is_chain:
        return False
    chain = [network.outgoing[name] for name in network.hidden]
    return all(len(several) == 1 for several in chain) and all(
        p.weight is not None and not p.before and not p.after for (p,) in chain
    )


def _carried(problem: RelaxationProblem, projection: Projection, kicks: Tensor) -> Tensor:
    """Propagate increments (increments, batch, units) one projection down, to (increments, batch, units below)."""
    sent = problem.apply_gain(projection.target, problem.activity_gain(projection), kicks)
    psi = problem.feedback_weight(projection)
    assert psi is not None
    return sent @ psi
