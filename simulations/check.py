"""Check that all engines and integrators agree on one relaxation.

Every integrator (ours on PyTorch and partly on Brian2, SciPy's, Brian2's) relaxes one network and batch, by default for
12 steps of eta = 0.2, few enough that integrators differ. Each result is compared with the closed form of its scheme
(binomial, negative binomial or Poisson in the number of hops of feedback), the equilibrium with backprop's gradient by
autograd, and integrators with the same closed form with each other. Without a closed form (current gains, clips,
delays, different time constants) engines are compared at equal steps. With --noise, sample means and covariances are
compared with those of Euler's scheme. Activation relaxation: Millidge, Tschantz, Buckley & Seth 2020 (arXiv
2009.05359).

On a network with cycles the rates are compared too, after every integrator has settled, and the closed form sums over
walks. The equilibrium is compared with a sparse solve and with the gradient of the settled loss by autograd, k steps
from zero with backprop through k forward steps, and the Jacobians of both phases with each other.

Prints a table of errors per population, the largest difference relative to the largest magnitude; omitted entries and
their reasons go to standard error. The exit status is 1 if any comparison disagrees. The last line on screen is

    all 51 comparisons agree
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from actrelax.analysis.checks.compare import Report, Row, joined, verify
from actrelax.analysis.checks.sampling import verify_noise
from actrelax.analysis.checks.solvers import NAMES, SETTLED, Restrictions
from actrelax.analysis.checks.two_phases import verify_rates, verify_spectra, verify_unrolled
from actrelax.models._names import known
from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import Steps, integrator_named
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.training.forward_phase import Settling
from actrelax.simulations.training.hardware import FullPrecision
from actrelax.simulations.training.idle import idle_in_one_relaxation
from actrelax.simulations.training.problem_options import (
    ProblemOptions,
    Sample,
    make_sample,
    of_run,
    without_continuous_plasticity,
)
from actrelax.simulations.training.relaxation import Relaxation

EVERY = "all"
BOUNDS = {"fp64": 1e-10, "fp32": 1e-4}
"""Precision -> bound on differences by rounding."""


@dataclass(frozen=True)
class ToSettle(Settling):
    """Options of the forward phase of networks with cycles."""

    settle_steps: int | None = None
    """Networks with cycles: largest number of steps in which the rates settle. Default: 10,000."""
    settle_eta: float | None = None
    """Networks with cycles: step size of the forward phase, relative to tau. Default: that of the relaxation."""
    settle_tolerance: float | None = None
    """Networks with cycles: residual |f(a) - r| at which the rates have settled, relative to the largest rate of the
    population; rates may differ by 20 times as much. Default: 1e-13, or 5e-6 in fp32."""

    def until(self, dtype: torch.dtype, relaxation: Relaxation) -> Steps:
        """Return the tolerance, the largest number of steps and the step size (by default the relaxation's)."""
        tolerance = SETTLED[dtype] if self.settle_tolerance is None else self.settle_tolerance
        most = 10_000 if self.settle_steps is None else self.settle_steps
        if self.settle_eta is None:
            return Steps.until(tolerance, eta=relaxation.eta, dt=relaxation.dt, most=most)
        return Steps.until(tolerance, eta=self.settle_eta, most=most)


@dataclass(frozen=True)
class Config:
    """Options of a check."""

    problem: ProblemOptions = field(default_factory=ProblemOptions)
    relaxation: Relaxation = field(default_factory=lambda: Relaxation(integrator=EVERY))
    settling: ToSettle = field(default_factory=ToSettle)
    engine: str = EVERY
    """Engine to check: torch, scipy, brian2, closed-form, or all."""
    codegen: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Code generation target of Brian2, numpy or cython; may be repeated. Default: numpy."""
    hardware: FullPrecision = field(default_factory=FullPrecision)
    json: bool = False
    """Print only JSON on standard output."""


def defaults(arguments: Sequence[str]) -> Config:
    """Return the default options, from the run given by --run if there is one."""
    found = of_run(arguments)
    if found is None:
        return Config()
    options, relaxation = found
    return Config(options, replace(relaxation, integrator=EVERY))


def main(config: Config) -> int:
    """Check, print the results, and return the exit status."""
    report = check(config)
    for remark in report.remarks:
        print(remark, file=sys.stderr)
    if config.json:
        print(json.dumps({"ok": report.ok, "rows": [row.as_json() for row in report.rows]}))
    else:
        print_table(report)
    return 0 if report.ok else 1


def check(config: Config) -> Report:
    """Create network and batch, and compare all solvers."""
    relaxation, hardware = config.relaxation, config.hardware.resolved()
    relaxation.check_problem()
    config.settling.check()
    restrictions = _restrictions(config)
    assumptions, remarks = without_continuous_plasticity(relaxation.knobs)
    sample = _sample(config, make_sample(config.problem, assumptions, hardware))
    problem = sample.problem(relaxation, config.problem.seed, assumptions)
    size = config.problem.batch_size
    copied = size if problem.is_noisy and size != ProblemOptions.batch_size else None
    remarks = [f"{problem} on {sample.source}", *remarks, *idle_in_one_relaxation(relaxation, copied)]
    if relaxation.steps == "auto":
        raise ActrelaxError("actrelax check compares equal steps, got --steps auto: give a number.")
    if relaxation.steps is relaxation.duration is None:
        relaxation = replace(relaxation, steps=12)
    if relaxation.dt is relaxation.eta is None:
        relaxation = replace(relaxation, eta=0.2)
    steps = relaxation.as_steps
    if problem.is_noisy:

        def of_copies(count: int) -> RelaxationProblem:
            return sample.copies(count).problem(relaxation, config.problem.seed, assumptions)

        report = verify_noise(of_copies, steps, seed=config.problem.seed, watch=_watched, **restrictions)
    else:
        bound = BOUNDS[hardware.precision]
        report = verify(problem, sample.gradients(), steps, bound=bound, watch=_watched, **restrictions)
        if sample.rates is not None:
            forward = sample.forward_problem(relaxation, config.problem.seed)
            until = config.settling.until(sample.x.dtype, relaxation)
            added = verify_rates(forward, sample.rates, until, bound=bound, watch=_watched, **restrictions)
            report = joined(added, report, *_of_both_phases(config, sample, relaxation, bound))
    return replace(report, remarks=[*remarks, *report.remarks])


def _sample(config: Config, sample: Sample) -> Sample:
    """Return the sample with the options of its forward phase; refuse these options without cycles."""
    settling = config.settling
    settling.check_network(sample.network, config.problem.model.network)
    return sample if settling.settle_eta is None else replace(sample, settle_eta=settling.settle_eta)


def _of_both_phases(config: Config, sample: Sample, relaxation: Relaxation, bound: float) -> Iterator[Report]:
    """Yield the checks that compare the phases, unless engines or integrators are chosen or feedback is not W^T."""
    chosen = (config.engine, relaxation.integrator) != (EVERY, EVERY)
    if chosen or relaxation.knobs != PRESETS["ar"]:
        return
    plain = Relaxation()
    exact = 1e-12 if bound == BOUNDS["fp64"] else bound
    yield verify_unrolled(
        sample.problem(plain, 0, plain.knobs), sample.y, sample.loss, eta=relaxation.eta or 0.2, bound=exact
    )
    one = sample.copies(1)
    yield verify_spectra(one.problem(plain, 0, plain.knobs), bound=bound, seed=config.problem.seed)


def print_table(report: Report) -> None:
    """Print one line per comparison, with the error of each population and a verdict, and finally a count."""

    def comparison(row: Row) -> tuple[str, str, str]:
        return row.engine, row.integrator, row.reference

    groups = [(key, list(rows)) for key, rows in groupby(report.rows, comparison)]
    names = list(dict.fromkeys(row.population for row in report.rows))
    widths = [max(len(key[i]) for key, _ in groups) for i in range(3)]
    titles = [title.ljust(max(width, len(title))) for title, width in zip(_TITLES, widths, strict=True)]
    print("  ".join([*titles, *(f"{name:>9}" for name in names), "   bound"]))
    for key, rows in groups:
        errors = {row.population: f"{row.error:.2g}" for row in rows}
        cells = [text.ljust(len(title)) for text, title in zip(key, titles, strict=True)]
        verdict = "agrees" if all(row.ok for row in rows) else "DISAGREES"
        print(
            "  ".join(
                [*cells, *(f"{errors.get(n, ''):>{max(9, len(n))}}" for n in names), f"{rows[0].bound:8.2g}", verdict]
            )
        )
    wrong = sum(not all(row.ok for row in rows) for _, rows in groups)
    if wrong:
        print(f"\n{wrong} of {len(groups)} comparisons disagree")
    else:
        print(f"\nall {len(groups)} comparisons agree" if len(groups) > 1 else "\nthe one comparison agrees")


_TITLES = ("engine", "integrator", "compared with")


def _restrictions(config: Config) -> Restrictions:
    if config.codegen and config.engine not in (EVERY, "brian2"):
        raise ActrelaxError(f"--codegen is for Brian2, got --engine {config.engine}: leave it out.")
    targets = list(dict.fromkeys(config.codegen)) or ["numpy"]
    if config.codegen:
        from actrelax.models.engines.brian2 import target_named  # Brian2 takes a second to load

        targets = [target_named(target) for target in targets]
    restrictions = Restrictions(codegen=targets)
    if config.engine != EVERY:
        restrictions["engines"] = [known("engine", config.engine, [*NAMES, EVERY])]
    if config.relaxation.integrator != EVERY:
        restrictions["integrators"] = [integrator_named(config.relaxation.integrator).name]
    return restrictions


_watched = partial(tqdm, unit=" relaxations", leave=False, disable=None)


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("check", sys.argv[1:]))
