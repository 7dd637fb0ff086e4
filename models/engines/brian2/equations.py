"""A relaxation as text for Brian2: each population's equations, each projection's (THEORY.md section 1).

Summed variables are computed at the beginning of a step, one after the other: drives, then what is sent, then
feedback, then the units move. So Euler's method is the synchronous scheme exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actrelax.models.assumptions import Gain
from actrelax.models.engines.brian2 import formulas
from actrelax.models.engines.brian2.delay_line import delay_line
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.engines.sparse_problem import refused
from actrelax.models.problem import RelaxationProblem, StateSpace

Constants = dict[str, tuple[float, bool]]

DRIVE, LINE, FEEDBACK = -3, -2, -1
"""Orders within a step, in the slot of the groups; units move at 0."""


@dataclass(frozen=True)
class PopulationText:
    """A population in Brian2.

    equations   of its NeuronGroup
    constants   shared parameter -> (value, whether it is a rate), of the units' own dynamics and the clip
    lines       projection -> (its delay line, what enters it, steps)
    """

    equations: str
    constants: Mapping[str, tuple[float, bool]] = field(default_factory=dict)
    lines: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)


def unsupported(problem: RelaxationProblem) -> str | None:
    """Return None, or one sentence that says what can't be written down for Brian2."""
    reasons = [refused(problem), *(formulas.lacking(problem.network.populations[name]) for name in _driven(problem))]
    return next((reason for reason in reasons if reason is not None), None)


def needed(problem: RelaxationProblem) -> list[str]:
    """Return the populations that take part: the input only where somebody reads it, or where it is noisy."""
    network = problem.network
    driven = {p.source for name in _driven(problem) for p in network.incoming[name]}
    takes_part = network.input in driven or problem.input_noise > 0
    return [name for name in network.populations if name != network.input or takes_part]


def drives(problem: RelaxationProblem) -> list[str]:
    """Return the projections that drive a population which sends with the gain of this moment."""
    return [p.name for name in _driven(problem) for p in problem.network.incoming[name]]


def population_text(problem: RelaxationProblem, name: str, delays: Mapping[str, int]) -> PopulationText:
    """Write a population down; `delays` are in steps, by projection."""
    network, tag = problem.network, identifiers(problem.network.projections)
    parts, constants = _motion(problem, name)
    parts.append(_sum("received", [f"{tag[p.name]}_feedback" for p in network.outgoing[name]]))
    if name in _driven(problem):
        formula = formulas.of(network.populations[name])
        parts.append(_sum("a", [*(f"{tag[p.name]}_drive" for p in network.incoming[name]), "bias"], {"bias"}))
        parts.append(f"current_gain = {formula.derivative} : 1")
    if any(_gain_of(problem, p.name) == "feedforward" for p in network.incoming[name]):
        parts.append("gain : 1 (constant)")
    lines = {}
    for p in network.incoming[name]:
        steps = delays.get(p.name, 0)
        if steps:
            equations, _ = delay_line(f"{tag[p.name]}_sent", steps)
            parts.append(equations)
            lines[p.name] = (f"{tag[p.name]}_sent", _sent(problem, p.name), steps)
    return PopulationText("\n".join(part for part in parts if part), constants, lines)


def feedback_text(problem: RelaxationProblem, projection: str, delays: Mapping[str, int]) -> str:
    """Write a projection's feedback down: synapses from its target to its source."""
    tag = identifiers(problem.network.projections)[projection]
    steps = delays.get(projection, 0)
    sent = _sent(problem, projection) if steps == 0 else delay_line(f"{tag}_sent", steps)[1]
    side = {"x": "x_pre", "gain * x": "gain_pre * x_pre", "current_gain * x": "current_gain_pre * x_pre"}
    return f"w : 1 (constant)\n{tag}_feedback_post = w * {side.get(sent, f'{sent}_pre')} : 1 (summed)"


def drive_text(problem: RelaxationProblem, projection: str) -> str:
    """Write a projection's drive down: synapses from its source to its target."""
    tag = identifiers(problem.network.projections)[projection]
    return f"w : 1 (constant)\n{tag}_drive_post = w * x_pre : 1 (summed)"


def _motion(problem: RelaxationProblem, name: str) -> tuple[list[str], Constants]:
    """Return how a population moves, and the constants of that."""
    network = problem.network
    if name == network.output or (name == network.input and not problem.input_noise):
        return ["x : 1 (constant)"], {}
    unit = problem.units[name]
    if isinstance(unit, StateSpace):
        return _state_space(unit)
    towards = "(stimulus - x)" if name == network.input else "(received - x)"
    constants: Constants = {}
    if problem.clip is not None and name != network.input:
        towards, constants = f"clip{towards[:-1]}, -bound, bound)", {"bound": (problem.clip, False)}
    noisy = name in problem.noise_levels
    noise = " + sigma * sqrt(2 / tau) * xi" if noisy else ""
    parts = [f"dx/dt = {towards} / tau{noise} : 1", "tau : second (constant)"]
    parts += ["sigma : 1 (constant)"] * noisy + ["stimulus : 1 (constant)"] * (name == network.input)
    return parts + ["bound : 1 (shared, constant)"] * bool(constants), constants


def _state_space(unit: StateSpace) -> tuple[list[str], Constants]:
    """ds/dt = A s + b received, x = c s: each coefficient that isn't zero is a shared parameter."""
    d = unit.dynamics
    parts: list[str] = []
    constants: Constants = {}
    for i, (row, b) in enumerate(zip(d.A, d.b, strict=True)):
        factors = {f"A_{i}_{j}": (value, f"s{j}") for j, value in enumerate(row)} | {f"b_{i}": (b, "received")}
        terms = {key: variable for key, (value, variable) in factors.items() if value != 0}
        parts.append(f"ds{i}/dt = {' + '.join(f'{key} * {v}' for key, v in terms.items()) or '0 * Hz'} : 1")
        parts += [f"{key} : Hz (shared, constant)" for key in terms]
        constants |= {key: (factors[key][0], True) for key in terms}
    outputs = {f"c_{i}": (c, False) for i, c in enumerate(d.c) if c != 0}
    parts.append(f"x = {' + '.join(f'{key} * s{key[2:]}' for key in outputs)} : 1")
    parts += [f"{key} : 1 (shared, constant)" for key in outputs]
    return parts, constants | outputs


def _sent(problem: RelaxationProblem, projection: str) -> str:
    """g_c x_c, in variables of the projection's target."""
    return {"none": "x", "feedforward": "gain * x", "current": "current_gain * x"}[_gain_of(problem, projection)]


def _gain_of(problem: RelaxationProblem, projection: str) -> Gain:
    """Return the gain of a projection's feedback; where there is no feedback, none is needed."""
    feedback = problem.feedback_projections
    return problem.activity_gain(feedback[projection]) if projection in feedback else "none"


def _driven(problem: RelaxationProblem) -> list[str]:
    """Return the populations that send with the gain of this moment, which their drive decides."""
    sending = (p.target for p in problem.feedback_projections.values() if problem.activity_gain(p) == "current")
    return list(dict.fromkeys(sending))


def _sum(name: str, terms: list[str], constant: frozenset[str] | set[str] = frozenset()) -> str:
    """A variable that is the sum of others, each a parameter; empty without terms."""
    if not terms:
        return ""
    return "\n".join(
        [f"{name} = {' + '.join(terms)} : 1", *(f"{t} : 1{' (constant)' if t in constant else ''}" for t in terms)]
    )
