"""Initial activities that remain in a relaxation when it is stopped early (docs/theory.md).

A population's activity is the sum of a part from the clamp, which converges to the gradient, and a part from the
initial activities. The second part rotates the weight update away from the gradient. In the update it weighs more
than in the activity, because gradients of different images cancel and their feedforward activities do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from actrelax.analysis.convergence import laws_at, states_under
from actrelax.analysis.requirements import checked_step
from actrelax.models.closed_form import Term, terms
from actrelax.models.integrators import Integrator, Matrix
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import FLOOR


def contamination(
    problem: RelaxationProblem, integrator: str | Integrator, *, dt: float, at: Sequence[int]
) -> dict[str, list[float]]:
    """Return the ratio of the initial part to the clamp's part of each hidden population, without relaxing.

    The arguments are those of `convergence.predicted_errors`.

    Returns
    -------
    dict
        Hidden population -> ratio of Euclidean norms over the batch for each number of steps in `at`; infinite until
        the clamp arrives, and 0 for a relaxation that starts at zero.

    Raises
    ------
    ActrelaxError
        As for `convergence.predicted_errors`.
    """
    by_population = terms(problem)
    laws = laws_at(problem, integrator, dt=checked_step(problem, integrator, dt), at=at)
    found = {}
    for name, of_population in by_population.items():
        come, left = (
            _norms([term for term in of_population if term.is_clamp is is_clamp], laws) for is_clamp in (True, False)
        )
        found[name] = [a / b if b > FLOOR else math.inf for a, b in zip(left, come, strict=True)]
    return found


def _norms(terms: Sequence[Term], laws: Sequence[Matrix]) -> list[float]:
    """Return the norm of a sum of terms for each of several coefficient matrices."""
    norms: list[float] = torch.cat([x.norm(dim=1) for x in states_under(terms, laws)]).tolist()
    return norms
