"""A network that learns, as text for Brian2: the two phases of THEORY.md section 1 and the local rule.

Time is cut into stimuli of equally many steps, the same for all units. In the *feedforward* steps a unit follows its
drive; at the end of the last one the event `hold` keeps its rate r and its gain g = f'(a). In the *relaxing* steps
it follows its feedback. In the last step nothing moves but the weights, at the event `learn`.
"""

from __future__ import annotations

from dataclasses import dataclass

from actrelax.models.assumptions import Assumptions, Gain
from actrelax.models.engines.brian2 import formulas
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.network import Network, Projection
from actrelax.models.network.pooling import Flatten

TOP_GRADIENTS = {
    "cross-entropy": "total / normaliser - target",
    "sum-of-squares": "2 * (r - target)",
    "half-sum-of-squares": "r - target",
}
"""Loss -> its gradient in the output's held rate r, what the output sends while the others relax."""

SOFTMAX = """
normaliser_post = exp(clip(r_pre - r_post, -700, 700)) : 1 (summed)
total_post = target_pre : 1 (summed)
"""
"""From every output unit to every one: softmax(r) = 1 / normaliser, which needs no largest r to be stable."""

_CLOCK = """
step = (t_in_timesteps - begin) % period : integer (shared)
feedforward = int(step < held) : 1 (shared)
relaxing = int(step >= held) * int(step < relaxed) : 1 (shared)
"""
_UNIT = """
dx/dt = feedforward * ({function} - x) / tau_feedforward + relaxing * (feedback - x) / tau : 1
a = {drives} : 1
feedback = {feedbacks} : 1
signal = {signal} : 1
now = {derivative} : 1
r : 1
g : 1
"""
_STIMULUS = "{name} = {array}(t - begin * dt, i) : 1 (constant over dt)\n"
INPUT = _STIMULUS.format(name="x", array="stimuli")
EVENTS = {"hold": "step == held - 1", "learn": "step == relaxed"}


@dataclass(frozen=True)
class Population:
    """A group of units: its equations, and what it does at the two events."""

    equations: str
    hold: str
    learn: str


@dataclass(frozen=True)
class Synapses:
    """A projection: its equations, what it does at `learn`, and the orders of its sums within a step."""

    equations: str
    learn: str
    orders: dict[str, int]


def unsupported(network: Network, assumptions: Assumptions) -> str | None:
    """Say in one sentence why Brian2 can't learn with this network under these assumptions; None if it can."""
    if assumptions.is_continuous:
        return "in Brian2 weights change after the relaxation, not during it: choose plasticity at equilibrium."
    for p in network.projections.values():
        stages = (*p.before, *p.after)
        if network.kind(p) == "conv" or not all(isinstance(stage, Flatten) for stage in stages):
            return (
                f"in Brian2 projections are dense or copies, {p.name!r} is {p.pipeline}: "
                "choose a network like digits-mlp."
            )
    for population in network.populations.values():
        reason = formulas.lacking(population)
        if reason is not None:
            return reason
    return None


def depth(network: Network) -> int:
    """Return the number of projections on the longest path from the input to the output."""
    hops = {network.input: 0}
    for name in list(network.populations)[1:]:
        hops[name] = 1 + max(hops[p.source] for p in network.incoming[name])
    return hops[network.output]


def population_text(network: Network, assumptions: Assumptions, name: str, loss: str) -> Population:
    """Write down a population other than the input."""
    tag = identifiers(network.projections)
    incoming, outgoing = network.incoming[name], network.outgoing[name]
    drives = [f"{tag[p.name]}_drive" for p in incoming]
    biases = [f"{tag[p.name]}_bias" for p in incoming if p.bias is not None]
    feedbacks = [f"{tag[p.name]}_feedback" for p in outgoing]
    formula = formulas.of(network.populations[name])
    top = TOP_GRADIENTS[loss]
    equations = _CLOCK + _UNIT.format(
        function=formula.function,
        derivative=formula.derivative,
        drives=" + ".join(drives + biases),
        feedbacks=" + ".join(feedbacks) or top,
        signal="x" if outgoing else top,
    )
    equations += "".join(f"{variable} : 1\n" for variable in drives + biases + feedbacks)
    if not outgoing:
        equations += _STIMULUS.format(name="target", array="targets") + "normaliser : 1\ntotal : 1\n"
    trained = [p for p in incoming if p.bias is not None and p.bias.requires_grad]
    # all changes first: with a current gain they depend on all biases
    learn = [
        f"{tag[p.name]}_change = rate * {_gain(network.knobs(p, assumptions).weight_gain)} * signal" for p in trained
    ]
    learn += [f"{tag[p.name]}_bias -= {tag[p.name]}_change" for p in trained]
    return Population(equations, "r = x\ng = now", "\n".join(learn))


def synapses_text(network: Network, assumptions: Assumptions, p: Projection) -> Synapses:
    """Write down a projection: a drive for its target, feedback for its source, and the local rule."""
    tag, knobs = identifiers(network.projections)[p.name], network.knobs(p, assumptions)
    weight = "1" if p.map is None else "w"
    psi, own = weight, network.carries_feedback(p) and knobs.feedback != "transpose"
    if own:
        psi = "sign(w) * psi" if knobs.feedback == "sign" else "psi"
    lines = [f"{tag}_drive_post = {weight} * x_pre : 1 (summed)"]
    lines += ["w : 1"] * (p.map is not None) + ["psi : 1"] * own
    orders = {f"{tag}_drive_post": DRIVE_ORDER}
    if p.source != network.input:
        lines.append(f"{tag}_feedback_pre = {psi} * {_gain(knobs.activity_gain, '_post')} * signal_post : 1 (summed)")
        orders[f"{tag}_feedback_pre"] = FEEDBACK_ORDER
    presynaptic = "x_pre" if p.source == network.input or knobs.presynaptic == "current" else "r_pre"
    learned = [
        name
        for name, parameter in (("w", p.weight), ("psi", p.feedback if own else None))
        if parameter is not None and parameter.requires_grad
    ]
    decay = " + rate * decay * {}" if own and knobs.feedback == "kolen-pollack" else ""
    learn = [f"change = rate * {presynaptic} * {_gain(knobs.weight_gain, '_post')} * signal_post"] * bool(learned)
    learn += [f"{name} -= change{decay.format(name)}" for name in learned]
    return Synapses("\n".join(lines), "\n".join(learn), orders)


NORMALISER_ORDER, DRIVE_ORDER, FEEDBACK_ORDER = -3, -2, -1
"""Of the sums within a step: what the output sends, drives (current gains are theirs), feedback; then states."""


def _gain(gain: Gain, side: str = "") -> str:
    return {"feedforward": f"g{side}", "current": f"now{side}", "none": "1"}[gain]
