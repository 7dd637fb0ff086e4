"""Check of the engines' noise: samples for one stimulus against the moments of Euler's method."""

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
"""Probability that a check fails although all engines are correct."""
SAMPLES = 10_000
ACTIVITIES = 4_000_000
"""Largest number of activities that PyTorch relaxes at once."""
SYNAPSES = 4_000_000
"""Largest number of synapses in Brian2, which runs all its samples at once."""


def verify_noise(
    problem_of: Callable[[int], RelaxationProblem],
    steps: Steps,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    watch: Callable[[list[Entry]], Iterable[Entry]] = iter,
    **restrictions: Unpack[Restrictions],
) -> Report:
    """Relax one stimulus many times, and compare mean and covariance with the exact moments.

    Parameters
    ----------
    problem_of : callable
        Function that returns the problem for a number of copies of one stimulus.
    steps : Steps
        Any but `Steps.until`.
    seed : int, default 0
        Seed of the noise.
    samples : int, default 10000
        Number of relaxations. Brian2 runs fewer if they would need more than `SYNAPSES` synapses.
    watch, **restrictions
        As for `verify`.

    Returns
    -------
    Report
        Errors and bounds in standard deviations of a normal variable.

    Raises
    ------
    ActrelaxError
        If the moments follow no linear recursion, or there is nothing to compare.
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
        raise ActrelaxError("a check of noise needs one step or more, got 0.")
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
    """Return why the moments follow no linear recursion, in one sentence; None if they do."""
    if not problem.is_frozen:
        return "a check of noise needs a linear relaxation: leave out noise or current gains."
    if problem.clip is not None:
        return "a check of noise needs a linear relaxation: leave out noise or clip."
    if problem.delay.times:
        return "a check of noise needs feedback without delays: leave out noise or delays."
    if problem.input_noise:
        return "input noise has no effect on a relaxation with constant gains: leave it out, or check --noise."
    return None


def _synapses(problem: RelaxationProblem) -> int:
    """Return the number of feedback connections of one sample."""
    return sum(feedback.matrix.nnz for feedback in SparseProblem(problem).feedback.values())
