"""The forward phase as equations for Brian2: units that follow f(a), with a the sum of their drives (docs/theory.md).

A step first shifts delay lines, then computes drives a, then the responses f(a); rates change last. Responses are
parameters, so that state updaters for linear equations take any f. The drive of an input without noise is constant, and
part of the bias.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from actrelax.models.engines import SparseForward, Vector
from actrelax.models.engines.brian2.delay_line import delay_line
from actrelax.models.engines.brian2.equations import (
    PopulationText,
    dynamics_text,
    formula_of,
    missing_formula,
    sum_text,
)
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.engines.sparse_forward import refused
from actrelax.models.network import Projection
from actrelax.models.problem import ForwardProblem


def unsupported(problem: ForwardProblem) -> str | None:
    """Return None, or one sentence that says why the problem can't be written as Brian2's equations."""
    populations = problem.network.populations
    return refused(problem) or missing_formula(populations[name] for name in problem.relaxing)


def participants(problem: ForwardProblem) -> list[str]:
    """Return the simulation's populations: those with a rate that changes."""
    return [name for name in problem.network.populations if name in problem.units]


def drives(problem: ForwardProblem) -> list[str]:
    """Return the projections between populations with rates that change."""
    return [p.name for name in problem.relaxing for p in _incoming(problem, name)]


def population_text(problem: ForwardProblem, name: str, delays: Mapping[str, int]) -> PopulationText:
    """Return the equations of a population; `delays` maps projections to steps."""
    network, tag = problem.network, identifiers(problem.network.projections)
    parts, constants = dynamics_text(problem, name)
    response = ""
    if name in problem.relaxing:
        response = formula_of(network.populations[name]).function
        parts.append("received : 1")
        terms = [f"{tag[p.name]}_drive" for p in _incoming(problem, name)]
        parts.append(sum_text("a", [*terms, "bias"], constant={"bias"}))
    lines = {}
    for p in network.outgoing[name]:
        steps = delays.get(p.name, 0)
        if steps:
            equations, _ = delay_line(f"{tag[p.name]}_sent", steps)
            parts.append(equations)
            lines[p.name] = (f"{tag[p.name]}_sent", "x", steps)
    return PopulationText("\n".join(parts), constants, lines, response)


def drive_text(problem: ForwardProblem, projection: str, delays: Mapping[str, int]) -> str:
    """Return the equations of a projection's drive: synapses from its source to its target."""
    tag = identifiers(problem.network.projections)[projection]
    steps = delays.get(projection, 0)
    sent = delay_line(f"{tag}_sent", steps)[1] if steps else "x"
    return f"w : 1 (constant)\n{tag}_drive_post = w * {sent}_pre : 1 (summed)"


def biases(flat: SparseForward, name: str) -> Vector:
    """Return the bias of a population with the drive of the populations that are held, (batch * units,)."""
    drive = flat.drives[name]
    held = [drive.matrices[source] @ x for source, x in flat.held.items() if source in drive.matrices]
    return np.asarray(sum(held, drive.bias))


def _incoming(problem: ForwardProblem, name: str) -> list[Projection]:
    return [p for p in problem.network.incoming[name] if p.source in problem.units]
