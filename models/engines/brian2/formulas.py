"""Activations as text, where Brian2 computes them itself."""

from __future__ import annotations

from actrelax.models.network import ACTIVATIONS, Formula, Population


def of(population: Population) -> Formula:
    """Return f and f' of a population that has them as text; `lacking` asks before."""
    formula = population.activation.formula
    assert formula is not None
    return formula


def lacking(population: Population) -> str | None:
    """Return None, or one sentence that says that there is no formula."""
    activation = population.activation
    if activation.formula is not None:
        return None
    able = ", ".join(a.name for a in ACTIVATIONS.values() if a.formula)
    return (
        f"activation {activation.name!r} of population {population.name!r} has no formula for Brian2: "
        f"give it one, or choose among {able}."
    )
