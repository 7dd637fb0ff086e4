"""The end of a frozen relaxation at once, by its exact law."""

from actrelax.models.closed_form.exact import EXACT
from actrelax.models.closed_form.law import Term, added_up, predict, terms, uncovered
from actrelax.models.closed_form.steps_needed import remainders, steps_until

__all__ = ["EXACT", "Term", "added_up", "predict", "remainders", "steps_until", "terms", "uncovered"]
