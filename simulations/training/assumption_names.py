"""Assumptions on the command line: a preset, optionally with changes of single knobs."""

from __future__ import annotations

from dataclasses import fields, replace

from actrelax.models._names import known
from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.errors import ActrelaxError

KINDS = ("dense", "conv")


def assumptions_named(text: str) -> Assumptions:
    """Return the assumptions of a preset with changes, such as "ar,conv.activity-gain=none".

    Raises
    ------
    ActrelaxError
        For an unknown preset, knob or value.

    Examples
    --------
    >>> assumptions_named("learned-feedback,conv.feedback=random").conv.feedback
    'random'
    """
    preset, *changes = text.split(",")
    found = PRESETS[known("assumptions", preset, PRESETS)]
    for change in changes:
        kind, dot, rest = change.partition(".")
        knob, equals, value = rest.partition("=")
        if not (dot and equals):
            raise ActrelaxError(
                f"a change to a preset must be KIND.KNOB=VALUE, such as conv.activity-gain=none, got {change!r}."
            )
        name = known("knob", knob, [_written(each.name) for each in fields(Knobs)]).replace("-", "_")
        kind = known("kind of projection", kind, KINDS)
        knobs = replace(getattr(found, kind), **{name: value})
        found = replace(found, **{kind: knobs})
    return found


def name_of(assumptions: Assumptions) -> str:
    """Return the name of assumptions, with the fewest changes to a preset; the inverse of `assumptions_named`.

    Examples
    --------
    >>> name_of(Assumptions(conv=Knobs(feedback="sign", activity_gain="none")))
    'ar,conv.feedback=sign,conv.activity-gain=none'
    """
    return min(
        (_changed(name, preset, assumptions) for name, preset in PRESETS.items()), key=lambda text: text.count(",")
    )


def _changed(name: str, preset: Assumptions, assumptions: Assumptions) -> str:
    changes = [
        f"{kind}.{_written(each.name)}={getattr(getattr(assumptions, kind), each.name)}"
        for kind in KINDS
        for each in fields(Knobs)
        if getattr(getattr(assumptions, kind), each.name) != getattr(getattr(preset, kind), each.name)
    ]
    return ",".join([name, *changes])


def _written(knob: str) -> str:
    return knob.replace("_", "-")
