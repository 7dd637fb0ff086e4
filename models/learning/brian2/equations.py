"""A learning network as equations for Brian2: two phases and the local rule (docs/theory.md).

Every stimulus lasts the same number of steps. In the *feedforward* steps units follow their drive. In the next step,
once the drives a of their last rates r are summed, the event `hold` stores r and the gains f'(a); the output's rate is
f(a), which has no lag. In the *relaxing* steps units follow their feedback. In the last step the event `learn` changes
the weights, and activities stay constant.
"""

from __future__ import annotations

from dataclasses import dataclass

from actrelax.models.assumptions import Assumptions, Gain
from actrelax.models.engines.brian2.equations import formula_of, leak_text, missing_formula, sum_text
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.network import Network, Projection
from actrelax.models.network.layers import Conv2d
from actrelax.models.network.pooling import Flatten, MaxPool2d

TOP_GRADIENTS = {
    "cross-entropy": "total / normaliser - target",
    "sum-of-squares": "2 * (r - target)",
    "half-sum-of-squares": "r - target",
}
"""Loss -> its gradient with respect to the output's stored rate r, which the output sends during the relaxation."""

SOFTMAX = """
normaliser_post = exp(clip(r_pre - r_post, -700, 700)) : 1 (summed)
total_post = target_pre : 1 (summed)
"""
"""Synapses between all pairs of output units: softmax(r) = 1 / normaliser, stable without subtracting the largest r."""

_CLOCK = """
step = (t_in_timesteps - begin) % period : integer (shared)
feedforward = int(step < feedforward_end) : 1 (shared)
relaxing = int(step >= feedforward_end) * int(step < relaxing_end) : 1 (shared)
"""
_UNIT = """
dx/dt = feedforward * {forward} + relaxing * {backward} : 1
slowness : 1 (constant)
signal = {signal} : 1
current_gain = {derivative} : 1
r : 1
g : 1
"""
_STIMULUS = "{name} = {array}(t - begin * dt, i) : 1 (constant over dt)\n"
INPUT = _STIMULUS.format(name="x", array="stimuli")
EVENTS = {"hold": "step == feedforward_end", "learn": "step == learning"}


@dataclass(frozen=True)
class PopulationText:
    """The text of a population: its equations, and the statements at the events `hold` and `learn`."""

    equations: str
    hold: str
    learn: str


@dataclass(frozen=True)
class Synapses:
    """The text of a projection: its equations, the statements at `learn`, and the orders of its sums in a step."""

    equations: str
    learn: str
    orders: dict[str, int]


def unsupported(network: Network, assumptions: Assumptions) -> str | None:
    """Return None, or one sentence that says why Brian2 can't train the network under the assumptions."""
    if assumptions.is_continuous:
        return "in Brian2 weights change after the relaxation, not during it: choose plasticity at equilibrium."
    reasons = (_why_not_fixed(network, assumptions, p) for p in network.projections.values() if is_sparse(p))
    return next(filter(None, reasons), None) or missing_formula(network.populations.values())


def is_sparse(p: Projection) -> bool:
    """Return whether a projection's connections share weights or have none of their own: fixed ones, in Brian2."""
    return isinstance(p.map, Conv2d) or not all(isinstance(stage, Flatten) for stage in (*p.before, *p.after))


def _why_not_fixed(network: Network, assumptions: Assumptions, p: Projection) -> str | None:
    if any(isinstance(stage, MaxPool2d) for stage in (*p.before, *p.after)):
        remedy = "choose a network like digits-mlp, or average pooling with fixed weights"
    elif any(w is not None and w.requires_grad for w in (p.weight, p.bias)):
        remedy = "choose a network like digits-mlp, or fix its weights with requires_grad_(False)"
    elif network.uses_psi(p, assumptions):
        remedy = 'choose feedback="transpose" for it'
    else:
        return None
    return f"Brian2 learns in dense projections, {p.name!r} is {p.pipeline}: {remedy}."


def depth(network: Network) -> int:
    """Return the number of projections on the longest path from the input to the output."""
    hops = {network.input: 0}
    for name in list(network.populations)[1:]:
        hops[name] = 1 + max(hops[p.source] for p in network.incoming[name])
    return hops[network.output]


def population_text(network: Network, assumptions: Assumptions, name: str, loss: str) -> PopulationText:
    """Return the text of a population other than the input."""
    tag = identifiers(network.projections)
    incoming, outgoing = network.incoming[name], network.outgoing[name]
    drives = [f"{tag[p.name]}_drive" for p in incoming]
    biases = [f"{tag[p.name]}_bias" for p in incoming if p.bias is not None]
    feedbacks = [f"{tag[p.name]}_feedback" for p in outgoing]
    formula = formula_of(network.populations[name])
    signal = "x" if outgoing else TOP_GRADIENTS[loss]
    equations = _CLOCK + _UNIT.format(
        forward=leak_text(formula.function, "(tau_feedforward * slowness)"),
        backward=leak_text("received", "(tau * slowness)"),
        signal=signal,
        derivative=formula.derivative,
    )
    equations += sum_text("a", drives + biases) + "\n"
    equations += (sum_text("received", feedbacks) or f"received = {signal} : 1") + "\n"
    if not outgoing:
        equations += _STIMULUS.format(name="target", array="targets") + "normaliser : 1\ntotal : 1\n"
    trained = [p for p in incoming if p.bias is not None and p.bias.requires_grad]
    # compute all changes before applying any: with a current gain each depends on all biases
    learn = [
        f"{tag[p.name]}_change = rate * {_gain(network.knobs(p, assumptions).weight_gain)} * signal" for p in trained
    ]
    learn += [f"{tag[p.name]}_bias -= {tag[p.name]}_change" for p in trained]
    rate = "x" if outgoing else formula.function
    return PopulationText(equations, f"r = {rate}\ng = current_gain", "\n".join(learn))


def synapses_text(network: Network, assumptions: Assumptions, p: Projection) -> Synapses:
    """Return the text of a projection: a drive for its target, feedback for its source, and the local rule."""
    tag, knobs = identifiers(network.projections)[p.name], network.knobs(p, assumptions)
    weight = "1" if p.map is None and not is_sparse(p) else "w"
    psi, own = weight, network.uses_psi(p, assumptions)
    if own:
        psi = "sign(w) * psi" if knobs.feedback == "sign" else "psi"
    lines = [f"{tag}_drive_post = {weight} * x_pre : 1 (summed)"]
    lines += ["w : 1"] * (weight == "w") + ["psi : 1"] * own
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


HOLD_EVENT_ORDER, DRIVE_ORDER, HOLD_ORDER, NORMALISER_ORDER, FEEDBACK_ORDER = -5, -4, -3, -2, -1
"""Orders within a step, in the slot "groups": whether to hold, drives, hold, softmax, feedback; states change last."""


def _gain(gain: Gain, side: str = "") -> str:
    return {"feedforward": f"g{side}", "current": f"current_gain{side}", "none": "1"}[gain]
