"""Comparison of engines and integrators with the closed form, with autograd, and with each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

from torch import Tensor

from actrelax.analysis.checks.expected import Reference, References
from actrelax.analysis.checks.solvers import Entry, Restrictions, entries
from actrelax.models.closed_form import uncovered_by_walks
from actrelax.models.engines import Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error


@dataclass(frozen=True)
class Row:
    """Comparison of one entry with one reference, in one population.

    error, bound  relative error, or a number of standard deviations for noise; the error is nan if the run failed
    """

    engine: str
    integrator: str
    reference: str
    population: str
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        """True if the error is within the bound."""
        return self.error <= self.bound

    def as_json(self) -> dict[str, Any]:
        """Return the row as `actrelax check --json` prints it; a non-finite error is null."""
        return {**vars(self), "error": self.error if math.isfinite(self.error) else None, "ok": self.ok}


@dataclass
class Report:
    """All comparisons, with remarks on omitted entries and on methods."""

    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if all rows agree."""
        return all(row.ok for row in self.rows)


def joined(*reports: Report) -> Report:
    """Return one report with the rows and remarks of all."""
    return Report([row for each in reports for row in each.rows], [said for each in reports for said in each.remarks])


def verify(
    problem: RelaxationProblem,
    gradients: Mapping[str, Tensor],
    steps: Steps,
    *,
    bound: float = 1e-10,
    watch: Callable[[list[Entry]], Iterable[Entry]] = iter,
    **restrictions: Unpack[Restrictions],
) -> Report:
    """Solve one problem with every engine and integrator, and compare the results.

    Parameters
    ----------
    problem : RelaxationProblem
        Without noise.
    gradients : mapping
        Population -> backprop's gradient, from `activity_gradients`.
    steps : Steps
        Any but `Steps.until`.
    bound : float, default 1e-10
        Bound on relative errors; adaptive methods have larger ones.
    watch : callable, optional
        Receives the list of entries and yields them one by one, such as a progress bar.
    **restrictions
        As for `entries`.

    Raises
    ------
    ActrelaxError
        If nothing can be compared.
    """
    found, remarks = entries(problem, steps, **restrictions)
    report = Report(remarks=remarks)
    reason = uncovered_by_walks(problem)
    if reason is not None:
        report.remarks.append(f"integrators are compared with each other: {reason}")
    references = References(problem, gradients, steps)
    results: dict[Entry, Mapping[str, Tensor]] = {}
    own: dict[Entry, Reference | None] = {}
    for entry in watch(found):
        try:
            results[entry] = entry.run(problem, steps)
        except ActrelaxError as error:
            _fail(report, problem, entry, str(error), bound)
            continue
        own[entry] = references.of(entry)
        for reference in filter(None, (own[entry], references.second(entry), _mate(entry, results, own))):
            report.rows += _compared(entry, results[entry], reference, bound)
    _name_the_lonely(report, results)
    if not report.rows:
        raise ActrelaxError(" ".join(["nothing can be compared:", *report.remarks]))
    return report


def _compared(entry: Entry, result: Mapping[str, Tensor], reference: Reference, bound: float) -> Iterator[Row]:
    bound = max(bound, entry.bound, reference.bound)
    for name, value in result.items():
        if name not in reference.state:  # a gradient that was not given
            continue
        magnitude = None if reference.magnitude is None else reference.magnitude[name]
        error = relative_error(value, reference.state[name], magnitude=magnitude)
        yield Row(entry.name, entry.scheme.name, reference.name, name, error, bound)


def _mate(
    entry: Entry, results: Mapping[Entry, Mapping[str, Tensor]], own: Mapping[Entry, Reference | None]
) -> Reference | None:
    """Return the result of the first entry with the same closed form and at least the same accuracy, as a reference."""
    first = next(other for other in results if other.law == entry.law and other.bound <= entry.bound)
    if first == entry:
        return None
    better = own[first]
    return Reference(first.title, results[first], bound=0.0 if better is None else better.bound)


def _fail(report: Report, problem: RelaxationProblem, entry: Entry, why: str, bound: float) -> None:
    report.remarks.append(f"{entry.title} failed: {why}")
    hidden = problem.network.hidden
    report.rows += [Row(entry.name, entry.scheme.name, "a result", name, math.nan, bound) for name in hidden]


def _name_the_lonely(report: Report, results: Mapping[Entry, Mapping[str, Tensor]]) -> None:
    """Add a remark on the entries without any comparison."""
    compared = {(row.engine, row.integrator) for row in report.rows}
    references = {row.reference for row in report.rows}
    lonely = [e.title for e in results if (e.name, e.scheme.name) not in compared and e.title not in references]
    if lonely:
        report.remarks.append(f"there was nothing to compare with {', '.join(lonely)}.")
