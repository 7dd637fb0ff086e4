"""The forward phase of a network with cycles, by the options of `actrelax relax`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from actrelax.analysis.two_phases import RecordedForwardPhase
from actrelax.models.engines import Brian2Options, Steps, solve, unsupported
from actrelax.models.integrators import Integrator
from actrelax.models.results import Record
from actrelax.simulations.training.forward_phase import Settling
from actrelax.simulations.training.problem_options import Sample
from actrelax.simulations.training.relaxation import Relaxation

FALLBACK = "sequential"
"""Integrator on PyTorch for a forward phase that the relaxation's integrator can't run."""


def forward_phase(
    sample: Sample,
    relaxation: Relaxation,
    seed: int,
    scheme: Integrator,
    engine: str,
    *,
    every: int,
    options: Brian2Options | None = None,
    settling: Settling = Settling(),  # noqa: B008
) -> RecordedForwardPhase | None:
    """Return the recorded forward phase of a network with cycles, None without cycles.

    It takes the relaxation's step size and number of steps unless `settling` has others, without its noise, delays and
    clip.
    """
    if sample.rates is None:
        return None
    problem = sample.forward_problem(relaxation, seed)
    reason = unsupported(problem, scheme, engine)
    if reason is None:
        how: Mapping[str, Any] = {"integrator": scheme, "engine": engine, "options": options}
    else:
        print(f"the forward phase runs by {FALLBACK} on torch: {reason}", file=sys.stderr)
        how = {"integrator": FALLBACK, "engine": "torch"}
    steps = settling.settle.steps if settling.given else relaxation.as_steps
    if steps.tolerance is not None:
        steps = Steps.until(steps.tolerance, eta=steps.eta, dt=steps.dt, most=steps.number or 10_000)
    return RecordedForwardPhase.of(solve(problem, steps=steps, record=Record(True, every), **how), sample.rates)


def print_forward(phase: RecordedForwardPhase, source: str) -> None:
    """Print the problem, the trajectory's summary and the final errors of the rates."""
    print(f"{phase.trajectory.problem} on {source}")
    print(f"{phase.trajectory}\n")
    width = max(10, *map(len, phase.final))
    print(f"{'population':{width}}  error of the rates")
    for name, error in phase.final.items():
        print(f"{name:{width}}  {error:18.3e}")
    print()
