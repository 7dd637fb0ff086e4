"""A relaxation as a `brian2.Network`: a NeuronGroup a population, a Synapses a projection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import brian2 as b2
import numpy as np
from scipy import sparse

from actrelax.models._names import is_number, known
from actrelax.models.engines.brian2 import equations as relaxing
from actrelax.models.engines.brian2.codegen import generating
from actrelax.models.engines.brian2.delay_line import shift
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.engines.brian2.support import unsupported
from actrelax.models.engines.methods import integrator_named
from actrelax.models.engines.sparse_problem import SparseProblem, vector
from actrelax.models.engines.steps import whole_number
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import Leaky, RelaxationProblem, StateSpace

UNIT = b2.ms
"""One unit of a problem's time."""

Units = bool | Sequence[int]


@dataclass(frozen=True)
class Simulation:
    """A relaxation in Brian2, by the names of its problem.

    populations  population -> NeuronGroup of batch * units neurons, sample after sample
    feedback     projection -> Synapses from its target to its source
    drives       projection -> Synapses from its source to its target, where gains are current
    monitors     population -> StateMonitor of x
    network      all of these; objects of your own are added to it
    clock        of everything
    """

    populations: Mapping[str, Any]
    feedback: Mapping[str, Any]
    drives: Mapping[str, Any]
    monitors: Mapping[str, Any]
    network: Any
    clock: Any


def build(
    problem: RelaxationProblem,
    method: str = "euler",
    *,
    dt: float = 0.1,
    monitor: Mapping[str, Units] | Sequence[str] = (),
    every: int = 1,
) -> Simulation:
    """Build the populations and synapses of a relaxation; nothing runs yet.

    Parameters
    ----------
    problem : RelaxationProblem
    method : str, default "euler"
        A state updater of Brian2, "rk4", "exact" ...
    dt : float, default 0.1
        The step, in the problem's unit of time, which is a millisecond in Brian2.
    monitor : mapping or sequence of str, optional
        Populations whose activity is recorded; population -> True for all its units, or some indices, below
        batch * units. The input is there only where somebody reads it, or where it is noisy.
    every : int, default 1
        Record every so many steps.

    Returns
    -------
    Simulation

    Raises
    ------
    ActrelaxError
        For what Brian2, or the state updater, can't do, unknown populations, and values out of range.

    Examples
    --------
    >>> import torch
    >>> from actrelax.models.network import build as build_network
    >>> network = build_network("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> simulation = build(problem, dt=0.1, monitor=["hidden1"])
    >>> simulation.network["hidden1"]
    NeuronGroup(clock=Clock(dt=100. * usecond, name='actrelax_steps'), when=start, order=0, name='hidden1')
    >>> simulation.network.run(10 * UNIT, namespace={})
    >>> simulation.monitors["hidden1"].x.shape
    (96, 100)
    """
    method = method.removeprefix("brian2:")
    _check(problem, method, dt)
    every = whole_number("every", every, least=1)
    flat, clock = SparseProblem(problem), b2.Clock(dt * UNIT, name="actrelax_steps")
    delays = problem.delay.steps(dt)
    wanted = monitor if isinstance(monitor, Mapping) else dict.fromkeys(monitor, True)
    for name in wanted:
        known("population to monitor", name, relaxing.needed(problem))
    parts = [f"{p} {part}" for p in problem.network.projections for part in ("feedback", "drive")]
    names = identifiers([*problem.network.populations, *parts, *(f"{v} monitor" for v in wanted)])
    with generating("numpy"):  # what is built is built once, not worth compiling
        groups = {v: _group(flat, v, names[v], method, delays, clock) for v in relaxing.needed(problem)}
        feedback = {
            p: _synapses(
                groups[projection.target],
                groups[projection.source],
                relaxing.feedback_text(problem, p, delays),
                flat.feedback[p].matrix,
                names[f"{p} feedback"],
                relaxing.FEEDBACK,
                clock,
            )
            for p, projection in problem.feedback_projections.items()
        }
        drives = {p: _drive(flat, p, groups, names[f"{p} drive"], clock) for p in relaxing.drives(problem)}
        often = b2.Clock(every * dt * UNIT, name="actrelax_records") if every > 1 else clock
        monitors = {
            v: b2.StateMonitor(groups[v], "x", record=units, clock=often, name=names[f"{v} monitor"])
            for v, units in wanted.items()
        }
    network = b2.Network(*groups.values(), *feedback.values(), *drives.values(), *monitors.values())
    return Simulation(groups, feedback, drives, monitors, network, clock)


def _check(problem: RelaxationProblem, method: str, dt: float) -> None:
    if not (is_number(dt) and 0 < dt < math.inf):
        raise ActrelaxError(f"dt must be a positive number, got {dt!r}.")
    scheme = integrator_named(f"brian2:{method}")
    reason = scheme.unsupported(problem) or unsupported(problem, scheme)
    if reason is not None:
        raise ActrelaxError(f"Brian2's {method} can't be used here: {reason}")


def own_variables(problem: RelaxationProblem, simulation: Simulation) -> dict[str, tuple[Any, str]]:
    """Return variable of a state -> the NeuronGroup that has it, and what it is called there."""
    found: dict[str, tuple[Any, str]] = {}
    for name, unit in problem.units.items():
        own = [f"s{i}" for i in range(len(unit.variables))] if isinstance(unit, StateSpace) else ["x"]
        found |= {v: (simulation.populations[name], o) for v, o in zip(unit.variables, own, strict=True)}
    return found


def _group(flat: SparseProblem, name: str, word: str, method: str, delays: Mapping[str, int], clock: Any) -> Any:
    text = relaxing.population_text(flat.problem, name, delays)
    group = b2.NeuronGroup(flat.sizes[name], text.equations, method=method, clock=clock, name=word, namespace={})
    for variable, value in _values(flat, name).items():
        if variable in group.variables:
            setattr(group, variable, value)
    for constant, (value, is_rate) in text.constants.items():
        setattr(group, constant, value / UNIT if is_rate else value)
    _delay(flat, group, text, clock)
    return group


def _values(flat: SparseProblem, name: str) -> dict[str, Any]:
    """Return the values at t = 0 of all variables that a population can have."""
    unit, noisy = flat.problem.units.get(name), flat.problem.noisy
    values: dict[str, Any] = {"gain": flat.gains.get(name)}
    if name in flat.drives:
        values["bias"] = flat.drives[name].bias
    if isinstance(unit, StateSpace):
        start = flat.split(flat.initial_state)
        return values | {f"s{i}": start[variable] for i, variable in enumerate(unit.variables)}
    values["x"] = flat.activities(flat.initial_state)[name]
    if isinstance(unit, Leaky):
        values["tau"] = flat.per_neuron(unit.tau) * UNIT
    if name in noisy:
        values["sigma"] = flat.per_neuron(noisy[name])
    if name == flat.network.input:
        values["stimulus"] = flat.stimulus
    return values


def _delay(flat: SparseProblem, group: Any, text: relaxing.PopulationText, clock: Any) -> None:
    """Shift the group's delay lines once drives are known; before t = 0 they hold what is sent at the start."""
    problem = flat.problem
    for name, (line, sent, steps) in text.lines.items():
        shift(group, line, sent, steps, clock=clock, when="groups", order=relaxing.LINE)
        before = vector(problem.sent(problem.feedback_projections[name], problem.initial_units()))
        for k in range(steps + 1):
            setattr(group, f"{line}_{k}", before)


def _drive(flat: SparseProblem, name: str, groups: Mapping[str, Any], word: str, clock: Any) -> Any:
    p = flat.network.projections[name]
    text = relaxing.drive_text(flat.problem, name)
    return _synapses(groups[p.source], groups[p.target], text, flat.drive_matrix(p), word, relaxing.DRIVE, clock)


def _synapses(pre: Any, post: Any, text: str, matrix: Any, word: str, order: int, clock: Any) -> Any:
    """Connect two groups by a matrix (post, pre)."""
    synapses = b2.Synapses(pre, post, text, clock=clock, name=word, namespace={})
    entries = matrix.tocsc().tocoo()  # source after source, as Brian2 itself connects: summing is faster so
    if entries.nnz == 0:  # Brian2 can't sum over no synapse at all
        entries = sparse.coo_array(([0.0], ([0], [0])), shape=matrix.shape)
    synapses.connect(i=entries.col.astype(np.int32), j=entries.row.astype(np.int32))
    synapses.w = entries.data
    for updater in synapses.summed_updaters.values():
        updater.order = order
    return synapses
