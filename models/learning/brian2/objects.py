"""The Brian2 objects of a learning network, with the text from `equations`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import brian2 as b2
import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from actrelax.models.assumptions import Assumptions
from actrelax.models.engines.brian2 import UNIT, generating
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.engines.brian2.unused import forgotten_on_error, own
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import refuse_hooks
from actrelax.models.learning.brian2 import equations
from actrelax.models.network import Network, Projection, check_network


@dataclass(frozen=True)
class Simulation:
    """The simulation of a learning network.

    dt        time step
    groups    population -> NeuronGroup
    synapses  projection -> Synapses
    read      EventMonitor of the output's rates at the end of each feedforward phase
    monitors  population -> StateMonitor of x, for all but the input; they record while they are `active`
    network   brian2.Network of all these objects
    """

    dt: Any
    groups: dict[str, Any]
    synapses: dict[str, Any]
    read: Any
    monitors: dict[str, Any]
    network: Any

    @property
    def step(self) -> int:
        """Number of time steps taken so far."""
        return round(float(self.network.t / self.dt))


@forgotten_on_error()
def assemble(network: Network, assumptions: Assumptions, loss: str, eta: float) -> Simulation:
    """Build the simulation of a network, with weights of 0 and time steps of eta ms."""
    dt = eta * UNIT
    clock = b2.Clock(dt, name="steps")
    tag = identifiers(network.populations)
    with generating("numpy"):  # this code runs once: compiling would not pay off
        groups = {name: _group(network, assumptions, name, loss, clock) for name in network.populations}
        synapses = {name: _synapses(network, assumptions, p, groups, clock) for name, p in network.projections.items()}
        output = groups[network.output]
        softmax = [_softmax(output, clock)] if loss == "cross-entropy" else []
    read = b2.EventMonitor(output, "hold", "r", when="end", name="read")
    monitors = {
        name: b2.StateMonitor(groups[name], "x", record=True, clock=clock, when="end", name=f"{tag[name]}_watch")
        for name in [*network.hidden, network.output]
    }
    for monitor in monitors.values():
        monitor.active = False
    everything = b2.Network(*groups.values(), *synapses.values(), *softmax, read, *monitors.values())
    own(everything)
    return Simulation(dt, groups, synapses, read, monitors, everything)


def _group(network: Network, assumptions: Assumptions, name: str, loss: str, clock: Any) -> Any:
    size = prod(network.populations[name].shape)
    options = {"name": f"{identifiers(network.populations)[name]}_population", "clock": clock}
    if name == network.input:
        return b2.NeuronGroup(size, equations.INPUT, **options)
    text = equations.population_text(network, assumptions, name, loss)
    group = b2.NeuronGroup(size, text.equations, method="euler", events=equations.EVENTS, **options)
    group.set_event_schedule("hold", when="groups", order=equations.HOLD_EVENT_ORDER)
    group.set_event_schedule("learn", when="thresholds")
    group.run_on_event("hold", text.hold, when="groups", order=equations.HOLD_ORDER)
    if text.learn:
        # after the synapses, whose current gains read the drive, biases included
        group.run_on_event("learn", text.learn, when="after_synapses")
    return group


def _synapses(network: Network, assumptions: Assumptions, p: Projection, groups: dict[str, Any], clock: Any) -> Any:
    text = equations.synapses_text(network, assumptions, p)
    synapses = b2.Synapses(
        groups[p.source],
        groups[p.target],
        text.equations,
        on_post={"learn": text.learn} if text.learn else None,
        on_event={"learn": "learn"},
        name=f"{identifiers(network.projections)[p.name]}_synapses",
        clock=clock,
    )
    if equations.is_sparse(p):
        pattern = matrix_of(network, p, None if p.weight is None else torch.ones_like(p.weight)).tocsc().tocoo()
        synapses.connect(i=pattern.col.astype(np.int32), j=pattern.row.astype(np.int32))
    else:
        synapses.connect(**({"j": "i"} if p.map is None else {}))
    # without these orders, Brian2 would compute the sums in the order of the objects' names
    for variable, order in text.orders.items():
        synapses.summed_updaters[variable].order = order
    return synapses


def matrix_of(network: Network, p: Projection, weight: Tensor | None) -> sparse.csr_array:
    """Return a projection's connections with these weights, (target units, source units)."""
    return p.as_sparse(p.find(_silent(network, p))[1], weight).tocsr()


def biases_of(network: Network, p: Projection) -> Tensor:
    """Return a projection's drive without activity, (target units,)."""
    return p.find(_silent(network, p))[0].flatten()


def _silent(network: Network, p: Projection) -> Tensor:
    like = next(network.parameters())
    return like.new_zeros(1, *network.populations[p.source].shape)


def _softmax(output: Any, clock: Any) -> Any:
    synapses = b2.Synapses(output, output, equations.SOFTMAX, name="softmax", clock=clock)
    synapses.connect()
    for updater in synapses.summed_updaters.values():
        updater.order = equations.NORMALISER_ORDER
    return synapses


def learning_in(network: Network) -> list[str]:
    """Return the names of the parameters that require a gradient."""
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def weights_of(network: Network, assumptions: Assumptions) -> Iterator[tuple[Projection, str, Tensor]]:
    """Yield (projection, "weight", "feedback" or "bias", tensor) of the weights and biases that Brian2 may change."""
    for p in network.projections.values():
        if equations.is_sparse(p):
            continue
        for kind in ("weight", "feedback", "bias"):
            tensor = getattr(p, kind)
            if tensor is not None and (kind != "feedback" or network.uses_psi(p, assumptions)):
                yield p, kind, tensor


def check_weights(network: Network, assumptions: Assumptions, learning: Sequence[str]) -> None:
    """Refuse hooks, shared weights and changed `requires_grad`, which Brian2 would ignore.

    `learning` is the result of `learning_in` when the Learner was made.
    """
    check_network(network)
    refuse_hooks(network, "weights that learn inside Brian2 have no gradient")
    plastic = [tensor for *_, tensor in weights_of(network, assumptions) if tensor.requires_grad]
    if len({id(tensor) for tensor in plastic}) < len(plastic):
        raise ActrelaxError("projections share a weight, which Brian2 would learn twice: give each a separate one.")
    if learning_in(network) != learning:
        raise ActrelaxError("requires_grad has changed since the Learner was made: make a new Learner.")
