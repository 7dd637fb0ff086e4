"""A relaxation as equations for Brian2, one text per population and per connection (docs/theory.md).

A step first computes drives, then shifts delay lines, then computes feedback. The state changes last, so that Euler's
method is exactly the synchronous scheme.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from actrelax.models.engines import Connection, current_functions
from actrelax.models.engines.brian2.delay_line import delay_line
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.engines.connections import connection_names, connections_of
from actrelax.models.engines.sparse_problem import refused
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import ACTIVATIONS, CapturedNetwork, Formula, Population, Projection
from actrelax.models.network.captured import FORMULATED
from actrelax.models.problem import InitialValueProblem, RelaxationProblem, StateSpace

Constants = dict[str, tuple[float, bool]]

DRIVE, LINE, SUM, RESPONSE = -4, -3, -2, -1
"""Orders within a step, in the slot "groups", of drives for current gains, delay lines, what units receive, and in the
forward phase their response f(a); states change at 0."""


@dataclass(frozen=True)
class PopulationText:
    """The equations of a population.

    equations   equations of its NeuronGroup
    constants   shared parameter -> (value, whether it is a rate), for unit dynamics and the clip
    lines       connection -> (name of its delay line, expression to delay, steps)
    response    expression of `received` in the forward phase, f(a)
    """

    equations: str
    constants: Mapping[str, tuple[float, bool]] = field(default_factory=dict)
    lines: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    response: str = ""


def unsupported(problem: RelaxationProblem) -> str | None:
    """Return None, or one sentence that says why the problem can't be written as Brian2's equations."""
    populations = [function.population for function in current_functions(problem).values()]
    return refused(problem) or missing_formula(populations, is_captured=isinstance(problem.network, CapturedNetwork))


def participants(problem: RelaxationProblem) -> list[str]:
    """Return the simulation's populations; the input only if a drive reads it or it is noisy."""
    network = problem.network
    sources = {network.projections[name].source for name in drives(problem)}
    has_input = network.input in sources or problem.input_noise > 0
    return [name for name in network.populations if name != network.input or has_input]


def drives(problem: RelaxationProblem) -> list[str]:
    """Return the projections to populations with a current gain, whose drive the simulation computes."""
    return [p.name for name in current_functions(problem) for p in _driving(problem, name)]


def _driving(problem: RelaxationProblem, name: str) -> list[Projection]:
    """Return the projections that drive a population; in a captured network the bias includes the stimulus's drive."""
    network, is_captured = problem.network, isinstance(problem.network, CapturedNetwork)
    return [p for p in network.incoming[name] if not (is_captured and p.source == network.input)]


def pooled(problem: RelaxationProblem) -> list[str]:
    """Return the populations with pooling after their function, whose units form a group with the current gain."""
    return [name for name, function in current_functions(problem).items() if not function.is_whole]


def population_text(problem: RelaxationProblem, name: str, delays: Mapping[str, int]) -> PopulationText:
    """Return the equations of a population; `delays` maps projections to steps."""
    tag = identifiers(connection_names(problem))
    outgoing, incoming = ([c for c in connections_of(problem).values() if getattr(c, e) == name] for e in _ENDS)
    parts, constants = dynamics_text(problem, name)
    parts.append(sum_text("received", [f"{tag[c.name]}_feedback" for c in outgoing]))
    if name in pooled(problem):
        incoming = [c for c in incoming if c.gain != "current"]
    return _sending(problem, name, parts, constants, incoming, delays)


_ENDS = "source", "target"


def function_text(problem: RelaxationProblem, name: str, delays: Mapping[str, int]) -> PopulationText:
    """Return the equations of a function's units before pooling, whose x is the transposed activity."""
    sending = [c for c in connections_of(problem).values() if c.target == name and c.gain == "current"]
    return _sending(problem, name, [sum_text("x", ["result"])], {}, sending, delays)


RESULT_TEXT = "w : 1 (constant)\nresult_post = w * x_pre : 1 (summed)"
"""Equations of the synapses from a population to its function's units."""


def _sending(
    problem: RelaxationProblem,
    name: str,
    parts: list[str],
    constants: Constants,
    incoming: Sequence[Connection],
    delays: Mapping[str, int],
) -> PopulationText:
    """Add the gains and delay lines of a group's outgoing connections."""
    tag, of_drive = identifiers(connection_names(problem)), identifiers(problem.network.projections)
    if any(c.gain == "current" for c in incoming):
        summed = [f"{of_drive[p.name]}_drive" for p in _driving(problem, name)]
        parts.append(sum_text("a", [*summed, "bias"], constant={"bias"}))
        parts.append(f"current_gain = {formula_of(current_functions(problem)[name].population).derivative} : 1")
    if any(c.gain == "feedforward" for c in incoming):
        parts.append("gain : 1 (constant)")
    lines = {}
    for c in incoming:
        steps = c.steps(delays)
        if steps:
            equations, _ = delay_line(f"{tag[c.name]}_sent", steps)
            parts.append(equations)
            lines[c.name] = (f"{tag[c.name]}_sent", _gain_times_activity(c), steps)
    return PopulationText("\n".join(part for part in parts if part), constants, lines)


def feedback_text(problem: RelaxationProblem, connection: str, delays: Mapping[str, int]) -> str:
    """Return the equations of a connection's feedback: synapses from its target to its source."""
    tag, found = identifiers(connection_names(problem))[connection], connections_of(problem)[connection]
    steps = found.steps(delays)
    sent = _gain_times_activity(found, "_pre")
    if steps:
        _, delayed = delay_line(f"{tag}_sent", steps)
        sent = f"{delayed}_pre"
    return f"w : 1 (constant)\n{tag}_feedback_post = w * {sent} : 1 (summed)"


def drive_text(problem: RelaxationProblem, projection: str) -> str:
    """Return the equations of a projection's drive: synapses from its source to its target."""
    tag = identifiers(problem.network.projections)[projection]
    return f"w : 1 (constant)\n{tag}_drive_post = w * x_pre : 1 (summed)"


def leak_text(target: str, tau: str = "tau") -> str:
    """Return dx/dt of a leaky unit that approaches an expression."""
    return f"({target} - x) / {tau}"


def sum_text(name: str, terms: Sequence[str], constant: Collection[str] = ()) -> str:
    """Return the equations of a variable that sums parameters; an empty text without terms."""
    if not terms:
        return ""
    parameters = [f"{term} : 1{' (constant)' if term in constant else ''}" for term in terms]
    return "\n".join([f"{name} = {' + '.join(terms)} : 1", *parameters])


def formula_of(population: Population) -> Formula:
    """Return f and f' of a population as text; refuse an activation without a formula."""
    formula = population.activation.formula
    if formula is None:
        raise ActrelaxError(missing_formula([population]) or "")
    return formula


def missing_formula(populations: Iterable[Population], *, is_captured: bool = False) -> str | None:
    """Return None if all activations have a formula, else one sentence about the first population without one.

    A captured network takes its activations from its module: there the sentence lists the module's choices.
    """
    population = next((p for p in populations if p.activation.formula is None), None)
    if population is None:
        return None
    known = ", ".join(FORMULATED if is_captured else [a.name for a in ACTIVATIONS.values() if a.formula])
    remedy = f"let the module use one of {known}" if is_captured else f"give it one, or choose among {known}"
    return (
        f"activation {population.activation.name!r} of population {population.name!r} has no formula for Brian2: "
        f"{remedy}."
    )


def dynamics_text(problem: InitialValueProblem, name: str) -> tuple[list[str], Constants]:
    """Return the differential equations of a population that receives `received`, and their constants."""
    network = problem.network
    if name not in problem.units:
        return ["x : 1 (constant)"], {}
    unit = problem.units[name]
    if isinstance(unit, StateSpace):
        return _state_space(unit, noisy=name in problem.noise_levels)
    rate, constants = leak_text("stimulus" if name == network.input else "received"), Constants()
    if problem.clip is not None and name != network.input:
        rate, constants = "clip(received - x, -bound, bound) / tau", {"bound": (problem.clip, False)}
    noisy = name in problem.noise_levels
    noise = " + sigma * sqrt(2 / tau) * xi" if noisy else ""
    parts = [f"dx/dt = {rate}{noise} : 1", "tau : second (constant)"]
    parts += ["sigma : 1 (constant)"] * noisy + ["stimulus : 1 (constant)"] * (name == network.input)
    return parts + ["bound : 1 (shared, constant)"] * bool(constants), constants


def _state_space(unit: StateSpace, *, noisy: bool) -> tuple[list[str], Constants]:
    """Return ds/dt = A s + b received, x = c s; each nonzero coefficient is a shared parameter.

    Noise is n xi with one xi for all of a unit's variables; its parameter is n^2, a rate.
    """
    d = unit.dynamics
    parts: list[str] = ["sigma : 1 (constant)"] * noisy
    constants: Constants = {}
    for i, (row, b) in enumerate(zip(d.A, d.b, strict=True)):
        factors = {f"A_{i}_{j}": (value, f"s{j}") for j, value in enumerate(row)} | {f"b_{i}": (b, "received")}
        terms = {key: variable for key, (value, variable) in factors.items() if value != 0}
        noise = d.noise[i] if noisy else 0.0
        kick = f" {'+' if noise > 0 else '-'} sigma * sqrt(n_{i}) * xi" if noise else ""
        parts.append(f"ds{i}/dt = {' + '.join(f'{key} * {v}' for key, v in terms.items()) or '0 * Hz'}{kick} : 1")
        if noise:
            parts.append(f"n_{i} : Hz (shared, constant)")
            constants[f"n_{i}"] = noise**2, True
        parts += [f"{key} : Hz (shared, constant)" for key in terms]
        constants |= {key: (factors[key][0], True) for key in terms}
    outputs = {f"c_{i}": (c, False) for i, c in enumerate(d.c) if c != 0}
    parts.append(f"x = {' + '.join(f'{key} * s{key[2:]}' for key in outputs)} : 1")
    parts += [f"{key} : 1 (shared, constant)" for key in outputs]
    return parts, constants | outputs


def _gain_times_activity(connection: Connection, side: str = "") -> str:
    """Return g_c x_c in variables of the connection's target, with the suffix `_pre` in synapses."""
    gain = {"none": "", "feedforward": f"gain{side} * ", "current": f"current_gain{side} * "}
    return f"{gain[connection.gain]}x{side}"
