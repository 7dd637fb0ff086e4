"""Assumptions on the command line: a preset, optionally with changes of single knobs, by kind or by projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from actrelax.models._names import known
from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.errors import ActrelaxError

KINDS = ("dense", "conv")


def assumptions_named(text: str, lifts: Sequence[str] = ()) -> Assumptions:
    """Return the assumptions of a preset with changes, such as "ar,conv.activity-gain=none".

    Parameters
    ----------
    text : str
        A preset, and changes of kinds of projections.
    lifts : sequence of str, optional
        Changes of single projections, NAME.KNOB=VALUE each.

    Raises
    ------
    ActrelaxError
        For an unknown preset, knob or value.

    Examples
    --------
    >>> assumptions_named("learned-feedback,conv.feedback=random").conv.feedback
    'random'
    >>> assumptions_named("ar", ["block.conv1.weight-gain=none"]).projections
    {'block.conv1': {'weight_gain': 'none'}}
    """
    preset, *changes = text.split(",")
    found = PRESETS[known("assumptions", preset, PRESETS)]
    for change in changes:
        kind, knob, value = _parts(change, "a change to a preset must be KIND.KNOB=VALUE, such as conv.")
        kind = known("kind of projection", kind, KINDS)
        knobs = replace(getattr(found, kind), **{knob: value})
        found = replace(found, **{kind: knobs})
    projections: dict[str, dict[str, str]] = {}
    for lift in lifts:
        name, knob, value = _parts(lift, "--lift must be NAME.KNOB=VALUE, such as block.conv1.")
        projections.setdefault(name, {})[knob] = value
    return replace(found, projections=projections)


def _parts(text: str, rule: str) -> tuple[str, str, str]:
    """Return the projections, the knob and the value of KIND.KNOB=VALUE; a name may have dots and "=" in it."""
    rest, equals, value = text.rpartition("=")
    which, dot, knob = rest.rpartition(".")
    if not (dot and equals and which):
        raise ActrelaxError(f"{rule}activity-gain=none, got {text!r}.")
    written = known("knob", knob.replace("_", "-"), [_written(each.name) for each in fields(Knobs)])
    return which, written.replace("-", "_"), value


def name_of(assumptions: Assumptions) -> str:
    """Return the name of assumptions, with the fewest changes to a preset; the inverse of `assumptions_named`.

    Examples
    --------
    >>> name_of(Assumptions(conv=Knobs(feedback="sign", activity_gain="none")))
    'ar,conv.feedback=sign,conv.activity-gain=none'
    """
    presets = {name: preset for name, preset in PRESETS.items() if preset.statistics == assumptions.statistics}
    return min(
        (_changed(name, preset, assumptions) for name, preset in presets.items()), key=lambda text: text.count(",")
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
