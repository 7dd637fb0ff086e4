"""A relaxation or a forward phase as a `brian2.Network`: groups for populations, synapses for projections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import brian2 as b2
import numpy as np
from scipy import sparse

from actrelax.models._names import known, whole_number
from actrelax.models.engines import SparseForward, SparseProblem, Steps, integrator_named, schedule
from actrelax.models.engines.brian2 import equations, forward
from actrelax.models.engines.brian2.codegen import generating
from actrelax.models.engines.brian2.delay_line import shift
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.engines.brian2.support import OURS, text_of, unsupported
from actrelax.models.engines.brian2.unused import forgotten_on_error
from actrelax.models.engines.connections import connection_names
from actrelax.models.engines.sparse_forward import sparse_system
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import InitialValueProblem, Leaky, StateSpace
from actrelax.models.results.recording import chosen_units

UNIT = b2.ms
"""Brian2's unit for a problem's time: one millisecond."""

Units = Literal[True] | Sequence[int]
Monitor = Mapping[str, Units] | Sequence[str]
"""Populations to record, or population -> which of its neurons."""


@dataclass(frozen=True)
class Simulation:
    """The Brian2 objects of a problem, by the names of its populations and projections.

    populations  population -> NeuronGroup of batch * units neurons, sample after sample
    feedback     projection -> Synapses from its target to its source; on a captured network "source->target"
    drives       projection -> Synapses from its source to its target, for current gains and the forward phase
    functions    population of a captured network -> NeuronGroup of its function's units, if pooling follows
    monitors     population -> StateMonitor of x, and of s0, s1, ... of units with dynamics
    network      brian2.Network of all these objects; add further objects to it
    clock        clock of all objects
    """

    populations: Mapping[str, Any]
    feedback: Mapping[str, Any]
    drives: Mapping[str, Any]
    functions: Mapping[str, Any]
    monitors: Mapping[str, Any]
    network: Any
    clock: Any


def build(
    problem: InitialValueProblem,
    method: str = "euler",
    *,
    dt: float = 0.1,
    monitor: Monitor = (),
    every: int = 1,
) -> Simulation:
    """Build the populations and synapses of a relaxation or a forward phase, ready to run.

    Standalone programs are supported: ``brian2.set_device("cpp_standalone", build_on_run=False)``.

    Parameters
    ----------
    problem : RelaxationProblem or ForwardProblem
    method : str, default "euler"
        State updater of Brian2: "euler", "rk4", "exact" ...
    dt : float, default 0.1
        Step size in the problem's unit of time: milliseconds in Brian2.
    monitor : mapping, str or sequence of str, optional
        Populations to record, or population -> True for all units, or their indices below batch * units. A relaxation
        includes the input only if a drive reads it or it is noisy, a forward phase only if it is noisy.
    every : int, default 1
        Record every `every`-th step.

    Returns
    -------
    Simulation

    Raises
    ------
    ActrelaxError
        If Brian2 or the state updater can't run the problem; for steps at which it is unstable, unknown populations and
        values out of range.

    Examples
    --------
    >>> import torch
    >>> import actrelax
    >>> from actrelax import RelaxationProblem
    >>> from actrelax.brian2 import UNIT, build
    >>> network = actrelax.build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> simulation = build(problem, dt=0.1, monitor=["hidden1"])
    >>> simulation.network["hidden1"]
    NeuronGroup(clock=Clock(dt=100. * usecond, name='actrelax_steps'), when=start, order=0, name='hidden1')
    >>> simulation.network.run(10 * UNIT, namespace={})
    >>> simulation.monitors["hidden1"].x.shape
    (96, 100)
    """
    method, every = method.removeprefix("brian2:"), whole_number("every", every, least=1)
    method = OURS.get(method, method)
    scheme = integrator_named(f"brian2:{method}")
    grid = schedule(problem, scheme, Steps(0, dt=dt))
    reason = unsupported(problem, scheme)
    if reason is not None:
        raise ActrelaxError(f'"{scheme.name}" can\'t be used here: {reason}')
    return assemble(problem, method, grid.dt, _units_to_monitor(problem, monitor), every)


def assemble(
    problem: InitialValueProblem,
    method: str,
    dt: float,
    monitored: Mapping[str, Units],
    every: int = 1,
) -> Simulation:
    """Build what `build` has checked, or `solve`; dt is in the problem's unit of time."""
    flat, clock = sparse_system(problem), b2.Clock(dt * UNIT, name="actrelax_steps")
    delays = problem.delay.steps(dt)
    taking_part = text_of(problem).participants(problem)
    names = _names(problem, monitored)
    with generating("numpy"), forgotten_on_error():  # this code runs once: compiling would not pay off
        groups = {v: _group(flat, v, names[v], method, delays, clock) for v in taking_part}
        feedback, functions, results = dict[str, Any](), dict[str, Any](), list[Any]()
        if isinstance(flat, SparseProblem):
            functions = {v: _function(flat, v, names[f"{v} function"], delays, clock) for v in flat.results}
            results = [
                _synapses(groups[v], functions[v], equations.RESULT_TEXT, matrix, names[f"{v} result"], equations.DRIVE)
                for v, matrix in flat.results.items()
            ]
            senders = groups, functions
            feedback = {p: _feedback(flat, p, senders, names[f"{p} feedback"], delays) for p in flat.feedback}
        driven = groups | functions
        drives = {
            p: _drive(flat, p, groups, driven, names[f"{p} drive"], delays) for p in text_of(problem).drives(problem)
        }
        often = b2.Clock(every * dt * UNIT, name="actrelax_records") if every > 1 else clock
        monitors = _monitors(problem, groups, monitored, names, often)
    everything = [functions, groups, feedback, drives, monitors]
    network = b2.Network(*(each for named in everything for each in named.values()), *results)
    return Simulation(groups, feedback, drives, functions, monitors, network, clock)


def _monitors(
    problem: InitialValueProblem,
    groups: Mapping[str, Any],
    wanted: Mapping[str, Units],
    names: Mapping[str, str],
    clock: Any,
) -> dict[str, Any]:
    return {
        v: b2.StateMonitor(groups[v], _monitored(problem, v), record=units, clock=clock, name=names[f"{v} monitor"])
        for v, units in wanted.items()
    }


def _names(problem: InitialValueProblem, monitored: Iterable[str]) -> dict[str, str]:
    """Return the names of all objects that the simulation can contain."""
    populations = list(problem.network.populations)
    ways = dict.fromkeys([*connection_names(problem), *text_of(problem).drives(problem)])
    parts = [f"{p} {part}" for p in ways for part in ("feedback", "drive")]
    further = [f"{v} {part}" for v in populations for part in ("function", "result")]
    return identifiers([*populations, *parts, *(f"{v} monitor" for v in monitored), *further])


def _feedback(
    flat: SparseProblem,
    name: str,
    senders: tuple[Mapping[str, Any], Mapping[str, Any]],
    word: str,
    delays: Mapping[str, int],
) -> Any:
    """Connect the target of a connection, or the units of its function, to its source."""
    c, text = flat.connections[name], equations.feedback_text(flat.problem, name, delays)
    groups, functions = senders
    sender = functions[c.target] if c.gain == "current" and c.target in functions else groups[c.target]
    return _synapses(sender, groups[c.source], text, flat.feedback[name].matrix, word, equations.SUM)


def _drive(
    flat: SparseProblem | SparseForward,
    name: str,
    groups: Mapping[str, Any],
    driven: Mapping[str, Any],
    word: str,
    delays: Mapping[str, int],
) -> Any:
    """Connect the source of a projection to its target; in the forward phase drives read delay lines."""
    p, is_forward = flat.network.projections[name], isinstance(flat, SparseForward)
    text = forward.drive_text(flat.problem, name, delays) if is_forward else equations.drive_text(flat.problem, name)
    order = equations.SUM if is_forward else equations.DRIVE
    return _synapses(groups[p.source], driven[p.target], text, flat.drive_matrix(p), word, order)


def _monitored(problem: InitialValueProblem, name: str) -> list[str]:
    """Return the names of the variables to monitor in a population."""
    unit = problem.units.get(name)
    return ["x", *(f"s{i}" for i in range(len(unit.variables)))] if isinstance(unit, StateSpace) else ["x"]


def _units_to_monitor(problem: InitialValueProblem, monitor: Monitor) -> dict[str, Units]:
    """Return population -> indices of its neurons, or True for all."""
    names = [monitor] if isinstance(monitor, str) else list(monitor)
    for name in names:
        known("population", name, text_of(problem).participants(problem), where="monitor")
    wanted: Mapping[str, Units] = monitor if isinstance(monitor, Mapping) else dict.fromkeys(names, True)
    neurons = {name: len(problem.like) * math.prod(problem.network.populations[name].shape) for name in wanted}
    return {name: True if units is True else chosen_units(name, units, neurons[name]) for name, units in wanted.items()}


def state_variables(problem: InitialValueProblem, simulation: Simulation) -> dict[str, tuple[Any, str]]:
    """Return state variable -> (NeuronGroup, name in the group)."""
    found: dict[str, tuple[Any, str]] = {}
    for name, unit in problem.units.items():
        own = [f"s{i}" for i in range(len(unit.variables))] if isinstance(unit, StateSpace) else ["x"]
        found |= {v: (simulation.populations[name], o) for v, o in zip(unit.variables, own, strict=True)}
    return found


def _group(
    flat: SparseProblem | SparseForward, name: str, word: str, method: str, delays: Mapping[str, int], clock: Any
) -> Any:
    text = text_of(flat.problem).population_text(flat.problem, name, delays)
    group = b2.NeuronGroup(flat.sizes[name], text.equations, method=method, clock=clock, name=word, namespace={})
    for variable, value in _values(flat, name).items():
        if variable in group.variables:
            setattr(group, variable, value)
    for constant, (value, is_rate) in text.constants.items():
        setattr(group, constant, value / UNIT if is_rate else value)
    _delay(flat, group, text, clock)
    if text.response:
        group.run_regularly(f"received = {text.response}", clock=clock, when="groups", order=equations.RESPONSE)
    return group


def _function(flat: SparseProblem, name: str, word: str, delays: Mapping[str, int], clock: Any) -> Any:
    """Return the group of a function's units before pooling, which have the current gain."""
    text = equations.function_text(flat.problem, name, delays)
    group = b2.NeuronGroup(flat.results[name].shape[0], text.equations, clock=clock, name=word, namespace={})
    group.bias = flat.drives[name].bias
    _delay(flat, group, text, clock)
    return group


def _values(flat: SparseProblem | SparseForward, name: str) -> dict[str, Any]:
    """Return variable -> initial value, for all possible variables of a population."""
    unit, noisy = flat.problem.units.get(name), flat.problem.noise_levels
    values: dict[str, Any] = {"gain": flat.gains.get(name)} if isinstance(flat, SparseProblem) else {}
    if name in noisy:
        values["sigma"] = flat.per_neuron(name, noisy[name])
    if name in flat.drives:
        values["bias"] = forward.biases(flat, name) if isinstance(flat, SparseForward) else flat.drives[name].bias
    if isinstance(unit, StateSpace):
        start = flat.split(flat.initial_state)
        return values | {f"s{i}": start[variable] for i, variable in enumerate(unit.variables)}
    values["x"] = flat.activities(flat.initial_state)[name]
    if isinstance(unit, Leaky):
        values["tau"] = flat.per_neuron(name, unit.tau) * UNIT
    if name == flat.network.input:
        values["stimulus"] = flat.stimulus
    return values


def _delay(flat: SparseProblem | SparseForward, group: Any, text: equations.PopulationText, clock: Any) -> None:
    """Make the group shift its delay lines after the drives are summed, and fill them with the initial signals."""
    for name, (line, sent, steps) in text.lines.items():
        shift(group, line, sent, steps, clock=clock, when="groups", order=equations.LINE)
        before = flat.sent_at_first(name)
        for k in range(steps + 1):
            setattr(group, f"{line}_{k}", before)


def _synapses(pre: Any, post: Any, text: str, matrix: Any, word: str, order: int) -> Any:
    """Connect two groups by a sparse matrix (post, pre)."""
    synapses = b2.Synapses(pre, post, text, clock=post.clock, name=word, namespace={})
    entries = matrix.tocsc().tocoo()  # sorted by source, Brian2's order: sums are faster
    if entries.nnz == 0:  # Brian2 can't sum over zero synapses
        entries = sparse.coo_array(([0.0], ([0], [0])), shape=matrix.shape)
    synapses.connect(i=entries.col.astype(np.int32), j=entries.row.astype(np.int32))
    synapses.w = entries.data
    for updater in synapses.summed_updaters.values():
        updater.order = order
    return synapses
