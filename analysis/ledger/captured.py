"""What feedback and weight updates in a captured network depend on, derived from one batch's graph and the knobs.

`analysis.ledger.pieces` tells from autograd's graph what signals need on their way. Whether they need other samples is
measured: a signal in the first sample that arrives in others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from actrelax.analysis.ledger.pieces import PieceGraph, Way
from actrelax.analysis.ledger.reads import FEEDBACK, Entry, Mixing, Read, has_weights
from actrelax.models.assumptions import Assumptions, Gain, Knobs
from actrelax.models.network import CapturedPass, CapturedProjection, Operation


@torch.no_grad()
def captured_entries(passed: CapturedPass, assumptions: Assumptions) -> Iterator[Entry]:
    """Yield what each projection uses, and the parameters of each piece, from the lowest population up."""
    passed = passed.under(assumptions)
    passed.check_current()
    network, path, synapses = passed.network, passed.path, _shared_by(passed)
    known = {each.node for each in passed.gains.known}
    scaled = {each.node for each in passed.gains.norms if assumptions.statistics == "constant"}
    for number in reversed(range(len(path.pieces))):
        graph = PieceGraph(passed.edges[number], set(passed.inputs(number)), known, scaled)
        coupled = _samples_coupled(passed, number)
        for wire, end in zip(path.incoming[number], passed.inputs(number), strict=True):
            p, way = network.projections[wire.name], graph.way(end)
            recorded = p.number is not None and hasattr(passed.operations[p.number], "leaves")
            yield _entry(passed, p, way, _mixing(way, coupled.get(p.name)), assumptions, synapses, recorded)
        ways = [graph.way(id(parameter)) for parameter in passed.own_parameters(number)]
        if ways:
            first = path.incoming[number]
            knobs = network.knobs(network.projections[first[0].name], assumptions) if first else Knobs()
            yield _of_parameters(passed, path.names[number], _joined(ways), any(coupled.values()), knobs)


def _entry(
    passed: CapturedPass,
    p: CapturedProjection,
    way: Way,
    mixing: Mixing,
    assumptions: Assumptions,
    synapses: dict[str, int],
    recorded: bool,
) -> Entry:
    """Return what one projection uses."""
    network = passed.network
    knobs, learns = network.knobs(p, assumptions), has_weights(p)
    is_fed_back = network.carries_feedback(p) or not (learns or p.source == network.input)
    feedback = FEEDBACK[knobs.feedback] if network.carries_feedback(p) else "" if learns else "copy"
    arrives, signal = {Read("activity", p.target)}, set[Read]()
    if is_fed_back:
        signal = arrives | _slope_reads(passed, way, p.target, knobs.activity_gain)
        signal |= {Read("weight", p.name)} if feedback in ("W", "sign(W)") else set()
        signal |= {Read("feedback", p.psi)} if feedback not in ("W", "copy") else set()
    is_now = knobs.presynaptic == "current" or p.source == network.input
    update = arrives | _slope_reads(passed, way, p.target, knobs.weight_gain)
    update |= {Read("activity" if is_now else "forward activity", p.source)}
    update |= {Read("weight", p.name)} if network.decays(p, assumptions) else set()
    gains = [knobs.activity_gain] * is_fed_back + [knobs.weight_gain] * learns
    slopes = ["slope"] * any(way.slopes_read(gain) for gain in gains)
    remembered = [*["activity"] * (learns and not is_now), *slopes, *["winners"] * bool(way.winners), *way.states]
    return Entry(
        p.name,
        p.source,
        p.target,
        feedback if is_fed_back else "",
        way.slope(knobs.activity_gain) if is_fed_back else "",
        way.slope(knobs.weight_gain) if learns else "",
        tuple(remembered),
        synapses.get(p.name, 0),
        mixing,
        way.length > 0 or recorded,
        frozenset(signal),
        frozenset(update) if learns else frozenset(),
    )


def _of_parameters(passed: CapturedPass, population: str, way: Way, is_coupled: bool, knobs: Knobs) -> Entry:
    """Return what the parameters of a piece use, whose update is what its signals become there."""
    update = {Read("activity", population), *(Read(f"saved by {name}", population) for name in way.own)}
    update |= _slope_reads(passed, way, population, knobs.weight_gain)
    slopes = ["slope"] * bool(way.slopes_read(knobs.weight_gain))
    remembered = (*["activity"] * bool(way.own), *slopes, *["winners"] * bool(way.winners), *way.states)
    mixing = _mixing(way, is_coupled and bool(way.states))
    name, slope = f"phi of {population}", way.slope(knobs.weight_gain)
    return Entry(name, "", population, "", "", slope, remembered, 0, mixing, True, frozenset(), frozenset(update))


def _slope_reads(passed: CapturedPass, way: Way, population: str, gain: Gain) -> set[Read]:
    """Return all that signals read on a way through a population's piece, as a knob has the slope."""
    found = {Read(f"saved by {name}", population) for name in way.functions(gain)}
    if gain == "current" and way.known:  # the drive of this moment
        for p in passed.network.incoming[population]:
            found.add(Read("activity", p.source))
            found |= {Read("weight", p.name)} if has_weights(p) else set()
    return found


def _joined(ways: list[Way]) -> Way:
    """Return the functions on any of several ways."""
    known, others, winners, states, own = (
        tuple(dict.fromkeys(name for way in ways for name in getattr(way, part)))
        for part in ("known", "others", "winners", "states", "own")
    )
    return Way(known, others, winners, states, own, max(way.length for way in ways))


def _mixing(way: Way, is_coupled: bool | None) -> Mixing:
    """Return whose states signals need; None where the coupling of samples could not be measured."""
    if is_coupled or (is_coupled is None and any(name.endswith("BatchNorm") for name in way.states)):
        return "batch"
    return "population" if way.states else "unit"


def _samples_coupled(passed: CapturedPass, number: int) -> dict[str, bool]:
    """Return projection -> whether a signal in the first sample of a population arrives in others, where this shows.

    It shows where samples are the first dimension of the population and of the drive, and where there are several.
    """
    node, slot = passed.edges[number]
    like, batch = passed.activities["output"], len(passed.stimulus)
    shape = tuple(node.variable.shape if hasattr(node, "variable") else node._input_metadata[slot].shape)
    if batch < 2 or shape[:1] != (batch,) or not passed.path.incoming[number]:
        return {}
    signal = like.new_zeros(shape)
    signal[0] = torch.randn(shape[1:], generator=torch.Generator().manual_seed(0)).to(like)
    found = passed.transposed(number, signal, keep=True, learn=False)
    arrived = zip(passed.path.incoming[number], found, strict=True)
    return {wire.name: bool(x[1:].count_nonzero()) for wire, x in arrived if x is not None and x.shape[:1] == (batch,)}


def _shared_by(passed: CapturedPass) -> dict[str, int]:
    """Return projection -> number of synapses of one sample that share each of its weights, over tied projections."""
    uses, users = dict[str, int](), dict[object, int]()
    weights = dict[str, object]()
    for p in passed.network.projections.values():
        if p.number is not None:
            operation = passed.operations[p.number]
            uses[p.name] = _uses(operation, len(passed.stimulus))
            place = operation.weight.data_ptr(), operation.weight.numel()  # a transposed weight is tied
            weights[p.name] = place if p.parameter else p.psi  # a computed weight has another address in each call
            users[weights[p.name]] = users.get(weights[p.name], 0) + uses[p.name]
    return {name: users[weights[name]] for name in uses}


def _uses(operation: Operation, batch: int) -> int:
    """Return how many synapses of one sample share a weight: the Hebbian product of ones, per sample."""
    x = operation.x
    assert x is not None
    if not x.is_floating_point():
        return math.ceil(x.numel() / batch)  # tokens, each of which may be the same
    of_ones = operation.reading(torch.ones_like(x))
    drive: Tensor = of_ones.call()
    _, counts, _ = of_ones.both(torch.ones_like(drive), (False, True, False), keep=True)
    assert counts is not None
    return math.ceil(float(counts.detach().abs().max()) / batch)
