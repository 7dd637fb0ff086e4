"""Checks of a problem's fields: time constants and initial states by population, and units of time."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from actrelax.models._names import known
from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError, warn


def check_complete(tau: Any, leaky: Collection[str]) -> None:
    """Refuse a mapping of Brian2 quantities that leaves out a population: the default, 1, has no unit."""
    for name in leaky if isinstance(tau, Mapping) else ():
        if name not in tau:
            raise ActrelaxError(f"tau is given as Brian2 quantities, but not for {name!r}: add {name!r} to tau.")


def check_unit(name: str, unit: str | None, of_problem: str | None) -> None:
    """Refuse a time with a unit if the problem has none."""
    if unit is not None and of_problem is None:
        raise ActrelaxError(
            f"{name} is a Brian2 quantity, but the problem's tau is a number: make the problem with tau=10 * ms, "
            f"or give {name} in the unit of tau."
        )


def warn_of_default_tau(tau: Any, leaky: Collection[str]) -> None:
    """Warn of populations missing from a mapping of time constants."""
    if isinstance(tau, Mapping):
        left_out = [name for name in leaky if name not in tau]
        if left_out:
            named = ", ".join(tau) or "no population"
            warn(f"tau names {named}; the default, 1, holds for {', '.join(left_out)}: name all populations.")


def check_start(
    start: str | Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int]],
    dtype: torch.dtype,
    names: Sequence[str] = ("feedforward", "zero"),
) -> None:
    """Refuse an unknown name, and a mapping without a state of the right shape and dtype for each population."""
    if not isinstance(start, Mapping):
        known("start", start, names)
        return
    for name in start:
        known("population", name, shapes, where="start")
    for name, shape in shapes.items():
        given = start.get(name)
        if not isinstance(given, Tensor) or (given.shape, given.dtype) != (shape, dtype):
            raise ActrelaxError(f"start must give population {name!r} a state of shape {tuple(shape)}, {dtype}.")


def refuse_complex(population: str, x: Tensor, state_like: Tensor) -> None:
    """Refuse a complex activity of a population among real states."""
    if x.is_complex() and not state_like.is_complex():
        raise ActrelaxError(
            f'population {population!r} is complex, and has no real state to step: pass integrator="equilibrium".'
        )


def check_captured(
    given: Mapping[str, object], relays: Container[str], assumptions: Assumptions, input_noise: float
) -> None:
    """Refuse what captured networks lack: noise of the input, relays with a state."""
    current = [k for k in assumptions.all_knobs if "current" in (k.activity_gain, k.weight_gain, k.presynaptic)]
    if input_noise and current:
        raise ActrelaxError(
            "the current gains and presynaptic factors of a captured network read the stimulus itself: leave "
            "input_noise out."
        )
    for what, values in given.items():
        for name in values if isinstance(values, Mapping) else ():
            if name in relays:
                raise ActrelaxError(
                    f"{name!r} is a relay, it has no {what}: it equals its input at all times; leave it out."
                )
