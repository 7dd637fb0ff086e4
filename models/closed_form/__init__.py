"""The closed form: the final state of a frozen relaxation, for any number of steps."""

from actrelax.models.closed_form.captured import carried, stream_captured
from actrelax.models.closed_form.evaluate import (
    PopulationState,
    evaluate_all,
    plan_applications,
    plan_of,
    stream,
    why_not,
)
from actrelax.models.closed_form.exact import EXACT
from actrelax.models.closed_form.law import (
    Term,
    each_term,
    hop_matrix,
    hop_taus,
    predict,
    predict_applications,
    terms,
    uncovered,
    uncovered_by_walks,
    weighted_sum,
)
from actrelax.models.closed_form.plan import Generators, Plan, exact_plan, settled_plan
from actrelax.models.closed_form.steps_needed import gradient_steps, remainders, steps_until

__all__ = [
    "EXACT",
    "Generators",
    "Plan",
    "PopulationState",
    "Term",
    "carried",
    "each_term",
    "evaluate_all",
    "exact_plan",
    "gradient_steps",
    "hop_matrix",
    "hop_taus",
    "plan_applications",
    "plan_of",
    "predict",
    "predict_applications",
    "remainders",
    "settled_plan",
    "steps_until",
    "stream",
    "stream_captured",
    "terms",
    "uncovered",
    "uncovered_by_walks",
    "weighted_sum",
    "why_not",
]
