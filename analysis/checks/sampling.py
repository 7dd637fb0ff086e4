"""Do engines draw the right noise? Samples of one stimulus against the moments of Euler's scheme."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Unpack

import numpy as np
import torch
from scipy import stats

from actrelax.analysis.checks.compare import Report, Row
from actrelax.analysis.checks.moments import deviations, scheme_moments
from actrelax.analysis.checks.solvers import Entry, Restrictions, entries
from actrelax.models.engines import SparseProblem, Steps, schedule
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem

FALSE_ALARM = 1e-6
"""Probability that a check of correct engines fails, over all its comparisons."""
SAMPLES = 10_000
ACTIVITIES = 4_000_000
"""Largest number of activities that PyTorch relaxes at once."""
SYNAPSES = 4_000_000
"""Largest number of synapses in Brian2, which runs only once."""


def verify_noise(
    problem_of: Callable[[int], RelaxationProblem],
    steps: Steps,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    watch: Callable[[list[Entry]], Iterable[Entry]] = iter,
    **restrictions: Unpack[Restrictions],
) -> Report:
    """Relax one stimulus many times, and compare mean and covariance with those of the scheme.

    Problems whose moments follow no linear recursion are refused.

    Parameters
    ----------
    problem_of : callable
        Count -> the problem of this number of copies of one stimulus.
    steps : Steps
        Not `Steps.until`.
    seed : int
        Seed of the noise.
    samples : int
        Number of relaxations by PyTorch; Brian2 runs as many as its synapses allow, but no more.
    watch, **restrictions
        As for `verify`.

    Returns
    -------
    Report
        Errors and bounds in standard deviations of a normal variable.
    """
    problem = problem_of(1)
    reason = _untold(problem)
    if reason is not None:
        raise ActrelaxError(reason)
    found, remarks = entries(problem, steps, **restrictions)
    if not found:
        raise ActrelaxError(" ".join(["nothing can be compared:", *remarks]))
    plan = schedule(problem, found[0].scheme, steps)
    if plan.steps == 0:
        raise ActrelaxError("noise takes time: relax for one step or more.")
    moments = scheme_moments(problem, plan.dt, plan.steps)
    bound = float(stats.norm.isf(FALSE_ALARM / 2 / (len(found) * moments.entries)))
    report = Report(remarks=remarks)
    generator = torch.Generator().manual_seed(seed)
    for entry in watch(found):
        count = samples if entry.engine == "torch" else min(samples, max(2, SYNAPSES // _synapses(problem)))
        at_once = count
        if entry.engine == "torch":
            at_once = max(1, ACTIVITIES // sum(math.prod(p.shape) for p in problem.network.populations.values()))
        runs = np.diff([*range(0, count, at_once), count]).tolist()
        drawn = np.concatenate([moments.picked(entry.run(problem_of(n), steps, generator)) for n in runs])
        report.remarks.append(f"{entry.title}: {count:,} samples.")
        for moment, name, error in deviations(drawn, moments):
            report.rows.append(Row(entry.name, entry.scheme.name, f"{moment} of the scheme", name, error, bound))
    return report


def _untold(problem: RelaxationProblem) -> str | None:
    """Return None, or one sentence that says why the moments follow no recursion."""
    if not problem.is_frozen:
        return "noise is checked against a linear recursion, and current gains are not linear: leave one of them out."
    if problem.clip is not None:
        return "noise is checked against a linear recursion, and a clip is not linear: leave one of them out."
    if problem.delay.times:
        return (
            "noise is checked against a recursion from step to step, which delays have none of: leave one of them out."
        )
    if problem.input_noise:
        return "noise of the input reaches no relaxation with constant gains: check --noise, and leave it out."
    return None


def _synapses(problem: RelaxationProblem) -> int:
    """Return the number of connections that carry feedback, of one sample."""
    return sum(feedback.matrix.nnz for feedback in SparseProblem(problem).feedback.values())
