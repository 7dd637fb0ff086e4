"""Entries of a check: all combinations of engine and integrator for one relaxation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Generator, Tensor

from actrelax.models._names import known
from actrelax.models.closed_form import predict, uncovered, uncovered_by_walks
from actrelax.models.engines import (
    BRIAN2,
    ENGINES,
    INTEGRATORS,
    PAPERS,
    SCIPY,
    Brian2Options,
    SciPyOptions,
    Steps,
    current_functions,
    integrator_named,
    schedule,
    solve,
    unsupported,
)
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator, chain_matrix
from actrelax.models.problem import InitialValueProblem, RelaxationProblem
from actrelax.models.results import Trajectory

CLOSED_FORM = "closed-form"
"""Name of the closed form, which is checked like an engine."""
NAMES = (*ENGINES, CLOSED_FORM)

RELATIVE_TOLERANCE = {"DOP853": 1e-10, "RK45": 1e-10, "LSODA": 1e-10, "RK23": 1e-6, "Radau": 1e-6, "BDF": 1e-6}
"""Relative tolerances of SciPy's adaptive methods, each reached in a second or two."""
BOUND = {1e-10: 1e-8, 1e-6: 1e-4}
"""Relative tolerance -> bound on the error against the closed form; errors of many steps add up."""
ABSOLUTE_TOLERANCE = 1e-14
SETTLED = {torch.float64: 1e-13, torch.float32: 5e-6}
"""Dtype -> relative residual at which the rates and gradients of a network with cycles have settled."""
KINKED = ("relu", "leaky-relu", "hardtanh", "relu6")
"""Activations with a discontinuous derivative."""


def hidden(problem: RelaxationProblem, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the hidden populations of a state, in float64 on the CPU."""
    return {name: state[name].detach().cpu().double() for name in problem.network.hidden}


@dataclass(frozen=True)
class Entry:
    """Integrator on an engine.

    codegen  code generation target of Brian2
    """

    engine: str
    scheme: Integrator
    codegen: str = "numpy"

    @property
    def name(self) -> str:
        """Name of the engine, with its code generation target unless it is the default."""
        return self.engine if self.codegen == "numpy" else f"{self.engine} ({self.codegen})"

    @property
    def title(self) -> str:
        """Name for readers."""
        target = "" if self.codegen == "numpy" else f" ({self.codegen})"
        return f"{self.scheme.name}{target}" if self.scheme.engine else f"{self.name} {self.scheme.name}"

    @property
    def bound(self) -> float:
        """Bound on the error against the closed form, beyond rounding."""
        method = self.scheme.method
        if self.scheme.engine == "scipy":
            return BOUND[RELATIVE_TOLERANCE[method]]
        return 1e-4 if method.startswith("gsl") else 0.0

    @property
    def law(self) -> bytes:
        """Key of the scheme's closed form: its one-step matrix for a chain of three taus."""
        step = self.scheme.transition(chain_matrix([1.0, 2.0, 5.0]), 0.3)
        return np.asarray(step.round(12) + 0.0).tobytes()

    def run(self, problem: RelaxationProblem, steps: Steps, generator: Generator | None = None) -> Mapping[str, Tensor]:
        """Return the final state of the hidden populations, in float64."""
        if self.engine == CLOSED_FORM and problem.network.is_recurrent:  # which `solve` does not take
            grid = schedule(problem, self.scheme, steps)
            return hidden(problem, predict(problem, self.scheme, dt=grid.dt, steps=grid.steps))
        return hidden(problem, self.solve(problem, steps, generator=generator).final)

    def solve(
        self, problem: InitialValueProblem, steps: Steps, *, record: bool = False, generator: Generator | None = None
    ) -> Trajectory:
        """Run `solve` with this engine and integrator; steps are ignored if the integrator has no time."""
        return solve(
            problem,
            self.scheme,
            steps if self.scheme.takes_time else self._tolerance(problem),
            record=record,
            engine="torch" if self.engine == CLOSED_FORM else self.engine,
            evaluation="closed-form" if self.engine == CLOSED_FORM else "stepped",
            generator=generator,
            options=self._options(),
        )

    @staticmethod
    def _tolerance(problem: InitialValueProblem) -> Steps:
        """Return the tolerance of an equilibrium: with cycles GMRES stops at it."""
        return Steps.until(SETTLED[problem.like.dtype], dt=1.0) if problem.network.is_recurrent else PAPERS

    def _options(self) -> SciPyOptions | Brian2Options | None:
        if self.engine == "brian2":
            return Brian2Options(codegen=self.codegen)
        if self.engine == "scipy":
            return SciPyOptions(rtol=RELATIVE_TOLERANCE[self.scheme.method], atol=ABSOLUTE_TOLERANCE)
        return None


class Restrictions(TypedDict, total=False):
    """Keywords of `entries`: engines, integrators and code generation targets of Brian2, by name."""

    engines: Sequence[str]
    integrators: Sequence[str] | None
    codegen: Sequence[str]


def entries(
    problem: InitialValueProblem,
    steps: Steps,
    **restrictions: Unpack[Restrictions],
) -> tuple[list[Entry], list[str]]:
    """Return the entries that can run a problem with these steps, and remarks on the others."""
    engines, codegen = restrictions.get("engines", NAMES), restrictions.get("codegen", ("numpy",))
    for engine in engines:
        known("engine", engine, NAMES)
    integrators = restrictions.get("integrators")
    chosen = None if integrators is None else [integrator_named(name) for name in integrators]
    found: list[Entry] = []
    refused: dict[tuple[str, str], list[str]] = {}
    unplanned: list[ActrelaxError] = []
    for engine in engines:
        for scheme in _schemes(engine) if chosen is None else chosen:
            if scheme.engine not in (None, engine) or (engine == CLOSED_FORM and not scheme.takes_time):
                continue
            reason = _refusal(problem, engine, scheme)
            if reason is None and scheme.takes_time:
                try:
                    schedule(problem, scheme, steps)
                except ActrelaxError as error:
                    unplanned.append(error)
                    reason = str(error)
            if reason is None:
                found += [Entry(engine, scheme, target) for target in (codegen if engine == "brian2" else ["numpy"])]
            else:
                refused.setdefault((engine, reason), []).append(scheme.name)
    if unplanned and not any(entry.scheme.takes_time for entry in found):
        raise unplanned[0]
    return found, [f"{engine} leaves out {', '.join(names)}: {why}" for (engine, why), names in refused.items()]


def _schemes(engine: str) -> Iterator[Integrator]:
    own = {"scipy": SCIPY, "brian2": BRIAN2}.get(engine, ())
    yield from map(integrator_named, [*INTEGRATORS, *(f"{engine}:{method}" for method in own)])


def _refusal(problem: InitialValueProblem, engine: str, scheme: Integrator) -> str | None:
    """Return why an entry can't run a problem for any number of steps, in one sentence; None if it can."""
    if engine != CLOSED_FORM:
        reason = unsupported(problem, scheme, engine)
    else:
        reason = uncovered_by_walks(problem) if isinstance(problem, RelaxationProblem) else uncovered(problem)
    if reason is None and scheme.engine == "scipy" and _has_kinks(problem):
        reason = "adaptive integrators stall at the kinks of relu with current gains."
    return reason


def _has_kinks(problem: InitialValueProblem) -> bool:
    if not isinstance(problem, RelaxationProblem):
        return False
    names = {function.population.activation.name for function in current_functions(problem).values()}
    return any(name.startswith(KINKED) for name in names)
