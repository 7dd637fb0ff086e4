"""The part of the feedforward pass that a relaxation keeps when it is stopped early (docs/theory.md).

A population's activity is a sum of the clamp's part, which is the gradient in the end, and the part of the
initial activities. The weight update is linear in it, so the second part turns the update away from the
gradient: by more than its share in the activity, since images' gradients cancel in the update, and their
feedforward activities don't.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from actrelax.analysis.convergence import laws_at, states_under
from actrelax.models.closed_form import Term, terms
from actrelax.models.integrators import Integrator, Matrix
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import FLOOR


def contamination(
    problem: RelaxationProblem, integrator: str | Integrator, *, dt: float, at: Sequence[int]
) -> dict[str, list[float]]:
    """Return |initial part| / |clamp's part| of each hidden population, without relaxing.

    The arguments are those of `convergence.predicted_errors`.

    Returns
    -------
    dict
        Hidden population -> a ratio of Euclidean norms over the batch for each number of steps in `at`; infinite until
        the clamp arrives, 0 throughout from a zero state.
    """
    laws = laws_at(problem, integrator, dt=dt, at=at)
    found = {}
    for name, of_population in terms(problem).items():
        come, left = (
            _norms([term for term in of_population if term.is_clamp is is_clamp], laws) for is_clamp in (True, False)
        )
        found[name] = [a / b if b > FLOOR else math.inf for a, b in zip(left, come, strict=True)]
    return found


def _norms(terms: Sequence[Term], laws: Sequence[Matrix]) -> list[float]:
    """Return |sum of terms| under each of several laws."""
    norms: list[float] = torch.cat([x.norm(dim=1) for x in states_under(terms, laws)]).tolist()
    return norms
