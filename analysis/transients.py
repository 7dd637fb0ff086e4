"""Transient growth of errors in a deep relaxation, whose matrix is far from normal (docs/theory.md).

Errors follow the same relaxation with a clamp of zero, so a layer's error at any time is a weighted sum of the
initial errors above it, propagated by feedback. The weights are probabilities for dt / tau up to 1, and may be
huge for larger steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from actrelax.analysis.convergence import hidden_gradients
from actrelax.models._names import whole_number
from actrelax.models.closed_form import terms
from actrelax.models.engines import Steps, integrator_named
from actrelax.models.integrators import Integrator, chain_matrix, coefficients
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import FLOOR


def error_bounds(problem: RelaxationProblem, gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Return a bound on each population's error at all times, for schemes whose coefficients are probabilities.

    |x_l(n) - gradient_l| <= max_m |B_{l->m} (x_m(0) - gradient_m)|, the largest initial error propagated from above.
    Divided by the layer's own initial error, the bound limits transient growth.

    Parameters
    ----------
    problem : RelaxationProblem
        Covered by the closed form (`closed_form.uncovered`).
    gradients : mapping
        Hidden population -> (batch, *population.shape), its equilibrium under the problem's feedback weights. No
        hidden population may be missing.

    Returns
    -------
    dict
        Hidden population -> bound on max |x - gradient| / max |gradient|.
    """
    exact, start = hidden_gradients(problem, gradients, every=True), problem.initial_state()
    initial = {name: start[name] - gradient.to(start[name]) for name, gradient in exact.items()}
    carried = terms(replace(problem, start=initial, clamped=0 * problem.clamped))
    return {
        name: float(torch.stack([term.value.abs().max() for term in found]).max())
        / max(float(exact[name].abs().max()), FLOOR)
        for name, found in carried.items()
    }


def growth(integrator: str | Integrator, *, eta: float, depth: int, steps: int) -> float:
    """Return the largest factor by which a scheme itself amplifies errors along a chain.

    max over `steps` steps and all layers of sum_m |C[l, m]|, in a chain of `depth` hidden layers with eta = dt /
    tau. The factor is 1 if the coefficients are probabilities, and about (eta / (2 - eta))^depth for Euler's method
    with eta from 1 to 2, although these steps are stable.

    Raises
    ------
    ActrelaxError
        If eta is not positive, depth is not a whole number >= 1, or steps not one >= 0.
    """
    depth, steps = whole_number("depth", depth, least=1), whole_number("steps", steps, least=0)
    Steps(eta=eta)  # raises
    step = coefficients(integrator_named(integrator).transition, chain_matrix([1.0] * depth), eta, 1)
    law, largest = np.eye(depth + 1), 1.0
    for _ in range(steps):
        law = law @ step
        largest = max(largest, float(np.abs(law[:, :-1]).sum(axis=1).max()))
    return largest
