"""Suites on the causes of what `papers` found for the second paper's CNN on CIFAR-10."""

from __future__ import annotations

from itertools import pairwise

from actrelax.simulations.suites.papers import PAPER_CNN, UNFROZEN
from actrelax.simulations.suites.shared import BACKPROP, CONVERGED, ar, on, without
from actrelax.simulations.suites.suite import Options, Suite

BASE = on(PAPER_CNN, "cifar10")
ACTIVATIONS = ("tanh", "relu", "softplus")
RATES = (0.00025, 0.0005)
"""Half the papers' learning rate, and the papers'."""

STEPS = (60, 80, 140, 200)
"""Numbers of steps beside the papers' 100."""


def _by_steps(assumptions: str) -> dict[str, Options]:
    return {f"{steps} steps": ar(assumptions, steps=steps) for steps in STEPS} | {"100 steps": ar(assumptions)}


def _one_at_a_time() -> dict[str, Options]:
    """Return conditions that lift one derivative, or the transport of one weight."""
    populations = ("input", "conv1", "conv2", "hidden1", "hidden2", "output")
    names = [f"{source}->{target}" for source, target in pairwise(populations)]
    derivatives = {
        f"no derivative of {target}": ar(lift=(f"{name}.activity-gain=none", f"{name}.weight-gain=none"))
        for name, target in zip(names[:-1], populations[1:], strict=False)  # the output is linear
    }
    feedback = {f"learned feedback, {name}": ar(lift=(f"{name}.feedback=learned",)) for name in names[1:]}
    return {**derivatives, **feedback}


FURTHER: dict[str, Suite] = {
    "cnn-cifar10-derivatives": Suite(
        "What does dropping convolutions' derivatives cost, with activations that saturate or don't? (CIFAR-10)",
        BASE,
        {
            "backprop": BACKPROP,
            "AR": ar(),
            "no derivatives, conv": ar("no-derivatives-conv"),
            "no derivatives, conv, converged": ar("no-derivatives-conv", **CONVERGED),
        },
        {f"{name}, rate {lr:g}": {"activation": name, "lr": lr} for name in ACTIVATIONS for lr in RATES},
    ),
    "cnn-cifar10-steps": Suite(
        "After how many steps do dropped derivatives do harm? (CIFAR-10)",
        BASE,
        {
            "backprop": BACKPROP,
            "AR": ar(),
            **{f"AR, {steps} steps": ar(steps=steps) for steps in STEPS},
            **{f"no derivatives, conv, {name}": options for name, options in _by_steps("no-derivatives-conv").items()},
        },
        seeds=3,
    ),
    "cnn-cifar10-single": Suite(
        "Which layer's derivative, or which weight's transport, is needed? (CIFAR-10, relaxed until settled)",
        on(PAPER_CNN, "cifar10", **CONVERGED),
        {"backprop": BACKPROP, "AR": ar(), **_one_at_a_time()},
    ),
    "unfrozen-cifar10": Suite(
        "Can the frozen feedforward pass of a CNN be relaxed? (CIFAR-10)",
        on(PAPER_CNN, "cifar10", epochs=5),
        without(UNFROZEN, "current activity in the weight update"),  # it fails on MLPs already
        seeds=3,
    ),
}
"""Name -> suite."""
