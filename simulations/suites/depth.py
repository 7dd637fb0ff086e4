"""Suites of deep networks: which assumptions can be lifted with and without skips, and with which normalisation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from actrelax.simulations.suites.papers import CNN, TUNED
from actrelax.simulations.suites.shared import BACKPROP, ar, forgetting, on, without
from actrelax.simulations.suites.suite import Options, Suite
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation
from actrelax.simulations.training.relaxation import Relaxation

LAYERS = (8, 14, 20, 32)
"""Layers of the residual networks for CIFAR images (He, Zhang, Ren & Sun 2016, arXiv 1512.03385)."""

NORMS = {"BatchNorm": "batch", "GroupNorm": "group"}
HUNDRED: dict[str, Any] = {"integrator": "sequential", "steps": 100}
"""The papers' relaxation, in place of the equilibrium."""

CONSTANT = ar("constant-statistics")


def rules(decay: Any = forgetting) -> dict[str, Options]:
    """Return nine rules, at equilibrium unless their names give a number of steps; `decay` is Kolen-Pollack's."""
    feedback = "dense.feedback=kolen-pollack,conv.feedback=kolen-pollack"
    return {
        "backprop": BACKPROP,
        "AR": ar(),
        "AR, 100 steps from zero": ar(start="zero", **HUNDRED),
        "AR, 100 steps": ar(**HUNDRED),
        "no derivatives": ar("no-derivatives"),
        "Kolen-Pollack feedback": ar("kolen-pollack", decay=decay),
        "Kolen-Pollack feedback, no derivatives": ar(f"no-derivatives,{feedback}", decay=decay),
        "sign feedback": ar("sign-feedback"),
        "random feedback": ar("random-feedback"),
    }


def networks(norms: Collection[str] = tuple(NORMS)) -> dict[str, Options]:
    """Return residual and plain networks of each depth and normalisation, by name."""
    return {
        f"{kind}-{layers} {norm}": {"network": f"digits-resnet-{layers}", "skips": skips, "norm": NORMS[norm]}
        for layers in LAYERS
        for norm in norms
        for kind, skips in (("ResNet", "yes"), ("plain", "no"))
    }


DIGITS = Experiment(
    epochs=20,
    images=Images("digits"),
    model=Model("digits-resnet-8", width=8),
    relaxation=Relaxation(integrator="equilibrium"),
    optimisation=Optimisation("sgd", lr=0.05, momentum=0.9, schedule="cosine"),
)
RESNET = replace(DIGITS, epochs=10, images=Images("cifar10", normalise="channels"), model=Model("resnet-8", width=8))
UNMEASURED = Execution(threads=1)

DEEP: dict[str, Suite] = {
    "depth-digits": Suite(
        "Up to what depth can AR's assumptions be lifted, with and without skips? (digits)",
        DIGITS,
        rules(decay=0.01),
        networks(),
        execution=UNMEASURED,
    ),
    "depth-digits-statistics": Suite(
        "Up to what depth can the feedback treat BatchNorm's statistics as constants? (digits)",
        DIGITS,
        {"backprop": BACKPROP, "AR": ar(), "constant statistics": CONSTANT},
        networks(norms=("BatchNorm",)),
        execution=UNMEASURED,
    ),
    "resnet-cifar10": Suite(
        "Which of AR's assumptions can be lifted in a residual network of 8 layers? (CIFAR-10)",
        RESNET,
        {**rules(), "constant statistics": CONSTANT},
    ),
    "resnet20-cifar10": Suite(
        "Which of AR's assumptions can be lifted in a residual network of 20 layers, over thirty epochs? (CIFAR-10)",
        on(RESNET, "cifar10", network="resnet-20", width=16, epochs=30, augment="flip,crop"),
        without(rules(), "AR, 100 steps from zero", "AR, 100 steps", "sign feedback", "random feedback"),
        seeds=3,
    ),
    "vgg-cifar10": Suite(
        "Do the second paper's simplifications keep a deeper CNN's accuracy? (CIFAR-10, relaxed until settled)",
        on(
            replace(RESNET, model=Model("vgg8", width=16)),
            "cifar10",
            **TUNED,
            momentum=0.0,
            epochs=30,
            augment="flip,crop",
        ),
        without(CNN, "random feedback", "sign feedback", "Kolen-Pollack feedback"),
        seeds=3,
    ),
}
"""Name -> suite."""
