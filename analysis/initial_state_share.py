"""What a relaxation that is stopped early keeps of the feedforward pass (THEORY.md section 4).

A population's activity is what has come from the clamp, which is the gradient in part or whole, and what is left of
where the populations began. The weight update is linear in it, so what is left turns the update away from the gradient:
by more than its share in the activity, since an update adds images up, whose gradients cancel and whose feedforward
activities don't.
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
    """Return |left| / |come| of each hidden population, without relaxing.

    Parameters
    ----------
    problem : RelaxationProblem
        With a law (`closed_form.uncovered`).
    integrator : str or Integrator
    dt : float
        The relaxation's step.
    at : sequence of int
        After how many steps.

    Returns
    -------
    dict
        Hidden population -> a ratio of Euclidean norms over the batch for each of these; infinite until the clamp is
        heard of, 0 throughout from a zero state.

    Raises
    ------
    ActrelaxError
        Where there is no law.
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
