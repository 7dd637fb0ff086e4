"""What the feedback and the weight update of a projection depend on, derived from the network and the knobs.

A network of populations and projections reads tensors that `Read` names. docs/theory.md, section 2, has the equations;
the tests disturb each tensor, and compare which signals and updates change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from actrelax.models.assumptions import Assumptions, Gain
from actrelax.models.network import CapturedProjection, Network, Projection

Mixing = Literal["unit", "population", "batch"]
"""Whose states a signal needs on its way through a population: the unit's own, other units', other samples'."""


class Read(NamedTuple):
    """A tensor that is read.

    what  "weight", "bias", "feedback" (psi) and "winners" of a projection; "activity" (at this moment), "forward
          activity", "forward response" and "forward drive" of a population; in captured networks "saved by FUNCTION",
          what autograd has saved in the piece of a population
    of    name of the projection or population
    """

    what: str
    of: str


Reads = frozenset[Read]


@dataclass(frozen=True)
class Entry:
    """What one projection used.

    projection      its name
    source, target  names of its populations
    feedback        weights of its feedback: "W", "sign(W)", "learned psi", "learned psi, decaying", "fixed psi" or
                    "copy"; "" where it carries none
    feedback_slope  slope f' in its feedback: "forward pass", "now", "dropped", or "constant" if f' is; "" for none
    update_slope    slope in its weight update, likewise
    remembered      what is read of the forward pass after it has changed: the presynaptic "activity", the "slope" of
                    the target, the "winners" of pools, and functions that need states of other units, by name
    synapses        number of synapses that share each weight, within a sample; 0 for a copy
    mixing          whose states its signals need in the target: "unit", "population" or "batch"
    by_autograd     whether autograd computes how its signals pass the target
    feedback_reads  all that its feedback depends on
    update_reads    all that its weight update depends on, given the activities
    """

    projection: str
    source: str
    target: str
    feedback: str
    feedback_slope: str
    update_slope: str
    remembered: tuple[str, ...]
    synapses: int
    mixing: Mixing
    by_autograd: bool
    feedback_reads: Reads
    update_reads: Reads

    @property
    def not_local(self) -> list[str]:
        """Name what a synapse and its two neurons can't know."""
        transport = any(read.what == "weight" for read in self.feedback_reads if read.of == self.projection)
        found = [("signs of W" if self.feedback == "sign(W)" else "weight transport")] if transport else []
        if self.synapses > 1:
            found.append("weight sharing")
        return found + {"unit": [], "population": ["other units"], "batch": ["other samples"]}[self.mixing]


FEEDBACK = {
    "transpose": "W",
    "learned": "learned psi",
    "kolen-pollack": "learned psi, decaying",
    "random": "fixed psi",
    "sign": "sign(W)",
}
"""The feedback knob in words."""
SLOPES: dict[Gain, str] = {"feedforward": "forward pass", "current": "now", "none": "dropped"}
"""The gain knobs in words."""


def entries(network: Network, assumptions: Assumptions) -> Iterator[Entry]:
    """Yield what each projection of a network of populations and projections uses, in the network's order."""
    synapses = shared_by(network)
    for p in network.projections.values():
        knobs, flat = network.knobs(p, assumptions), has_constant_slope(network, p.target)
        is_fed_back, learns = p.source != network.input, p.map is not None
        slopes = {gain: "constant" if flat else SLOPES[gain] for gain in SLOPES}
        feedback = FEEDBACK[knobs.feedback] if network.carries_feedback(p) else "copy"
        yield Entry(
            p.name,
            p.source,
            p.target,
            feedback if is_fed_back else "",
            slopes[knobs.activity_gain] if is_fed_back else "",
            slopes[knobs.weight_gain] if learns else "",
            tuple(_remembered(network, p, assumptions)),
            synapses.get(p.name, 0),
            "unit",
            False,
            feedback_reads(network, p, assumptions),
            update_reads(network, p, assumptions),
        )


def feedback_reads(network: Network, projection: Projection, assumptions: Assumptions) -> Reads:
    """Return all that op^T(g_v x_v; psi) depends on; nothing for a projection from the input."""
    if projection.source == network.input:
        return frozenset()
    knobs, found = network.knobs(projection, assumptions), {Read("activity", projection.target)}
    if projection.map is not None:
        if knobs.feedback in ("transpose", "sign"):
            found.add(Read("weight", projection.name))
        if knobs.feedback != "transpose":
            found.add(Read("feedback", projection.name))  # of sign-concordant feedback the scale
    return frozenset(found | winners(projection)) | slope_reads(network, projection.target, knobs.activity_gain)


def update_reads(network: Network, projection: Projection, assumptions: Assumptions) -> Reads:
    """Return all that the update of a weight depends on; nothing for a copy."""
    if projection.map is None:
        return frozenset()
    knobs = network.knobs(projection, assumptions)
    found = {Read("activity", projection.target), _presynaptic(network, projection, assumptions)}
    if network.decays(projection, assumptions):
        found.add(Read("weight", projection.name))
    return frozenset(found | winners(projection)) | slope_reads(network, projection.target, knobs.weight_gain)


def slope_reads(network: Network, population: str, gain: Gain) -> Reads:
    """Return all that f' of a population depends on, as a knob has it."""
    if gain == "none" or has_constant_slope(network, population):
        return frozenset()
    if gain == "feedforward":
        if network.populations[population].activation.needs_drive:
            return frozenset({Read("forward drive", population)})
        return frozenset({Read("forward response" if network.is_recurrent else "forward activity", population)})
    found: set[Read] = set()
    for p in network.incoming[population]:  # the drive of this moment
        found |= {Read("activity", p.source), *(Read(slot, p.name) for slot in ("weight", "bias") if slot in p.slots)}
        found |= winners(p)
    return frozenset(found)


def has_weights(projection: Projection | CapturedProjection) -> bool:
    """Return whether a projection is more than a copy."""
    return (projection.number if isinstance(projection, CapturedProjection) else projection.map) is not None


def has_constant_slope(network: Network, population: str) -> bool:
    """Return whether f' of a population is 1 at any drive."""
    return network.populations[population].activation.derivative is torch.ones_like


def winners(projection: Projection) -> set[Read]:
    """Return what the projection reads of its max pooling."""
    return {Read("winners", projection.name)} if projection.has_winners else set()


@torch.no_grad()
def shared_by(network: Network) -> dict[str, int]:
    """Return projection -> number of synapses of one sample that share each of its weights.

    Hebbian products of ones count them: the update of a weight adds up one product per synapse. Projections that share
    a Parameter are counted together.
    """
    uses, users = dict[str, int](), dict[int, int]()
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    for p in network.projections.values():
        if p.map is not None:
            source = like.new_zeros(1, *network.populations[p.source].shape)
            drive, route = p.find(source)
            pre, post = p.presynaptic(source, route), p.postsynaptic(drive, route)
            counts = p.plasticity(torch.ones_like(pre), torch.ones_like(post))["weight"]
            uses[p.name] = math.ceil(float(counts.max()))
            users[id(p.weight)] = users.get(id(p.weight), 0) + uses[p.name]
    return {name: users[id(network.projections[name].weight)] for name in uses}


def _presynaptic(network: Network, projection: Projection, assumptions: Assumptions) -> Read:
    """Return the presynaptic factor; the input holds the stimulus at all times."""
    is_now = network.knobs(projection, assumptions).presynaptic == "current" or projection.source == network.input
    return Read("activity" if is_now else "forward activity", projection.source)


def _remembered(network: Network, projection: Projection, assumptions: Assumptions) -> Iterator[str]:
    """Yield the values of the forward pass that a projection reads after they have changed."""
    knobs, target = network.knobs(projection, assumptions), projection.target
    learns, is_fed_back = projection.map is not None, projection.source != network.input
    if learns and _presynaptic(network, projection, assumptions).what != "activity":
        yield "activity"
    gains = [knobs.activity_gain] * is_fed_back + [knobs.weight_gain] * learns
    if "feedforward" in gains and not has_constant_slope(network, target):
        yield "slope"
    if winners(projection):
        yield "winners"
