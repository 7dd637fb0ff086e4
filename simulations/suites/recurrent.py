"""Suites of networks with cycles: which of AR's assumptions can be lifted where rates and gradients have to settle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from actrelax.simulations.suites.suite import Options, Suite
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation

WITHIN_CYCLES = {
    "digits-rec": ("hidden1->hidden1",),
    "hierarchy": (
        "hidden1->hidden1",
        "hidden1->hidden2",
        "hidden2->hidden1",
        "hidden2->hidden2",
        "hidden2->hidden3",
        "hidden3->hidden2",
        "hidden3->hidden3",
    ),
    "conv-rec": ("conv1->conv1", "conv1->conv2", "conv2->conv1", "conv2->conv2"),
}
"""Network -> its recurrent projections, those inside a cycle."""
INPUT = {"digits-rec": "input->hidden1", "hierarchy": "input->hidden1", "conv-rec": "input->conv1"}
"""Network -> its projection from the input."""
DECAY = 0.01
"""Kolen-Pollack's decay of W and psi, normalised by Adam with the gradients; at 0.001 more samples do not settle."""

BY_HOPS: Options = {"integrator": "euler", "eta": 1.0}
"""Options of steps that are hops."""


def conditions(network: str) -> Mapping[str, Options]:
    """Return a network's conditions: exact gradients, AR's assumptions lifted one by one, and two controls.

    The reference "backprop" is implicit differentiation. Hops are Euler steps of eta = 1 from zero.
    """
    recurrent = WITHIN_CYCLES[network]
    hops = {"rule": "ar", "assumptions": "ar", **BY_HOPS}
    learned = {"rule": "ar", "unsettled": "drop"}
    plasticity = "ar,dense.weight-gain=none,conv.weight-gain=none"
    return {
        "backprop": {"rule": "backprop"},
        "AR": {"rule": "ar", "assumptions": "ar"},
        "backprop through time": {"rule": "bptt"},
        "AR, 3 hops": {**hops, "steps": 3},
        "AR, 1 hop": {**hops, "steps": 1},
        "sign feedback": {"rule": "ar", "assumptions": "sign-feedback"},
        "random feedback": {"rule": "ar", "assumptions": "random-feedback"},
        "learned feedback": {**learned, "assumptions": "learned-feedback"},
        "Kolen-Pollack feedback": {**learned, "assumptions": "kolen-pollack", "decay": DECAY},
        "no derivatives in the relaxation": {
            "rule": "ar",
            "assumptions": "no-derivatives-relaxation",
            "feedback_strength": 0.5,
        },
        "no derivatives in the plasticity": {"rule": "ar", "assumptions": plasticity},
        "recurrent weights frozen": {"rule": "backprop", "freeze": tuple(f"{name}.weight" for name in recurrent)},
        "readout only": {"rule": "backprop", "freeze": (INPUT[network], *recurrent)},
    }


def remedies() -> Mapping[str, Options]:
    """Return the rules whose relaxation can become unstable, each with several remedies, and two references.

    Without a remedy all samples learn, settled or not. Hops are Euler steps of eta = 1 from zero.
    """
    rules: Mapping[str, Options] = {
        "learned feedback": {"assumptions": "learned-feedback"},
        "Kolen-Pollack feedback": {"assumptions": "kolen-pollack", "decay": DECAY},
        "no derivatives": {"assumptions": "no-derivatives"},
        "simplified": {"assumptions": "simplified"},
        "current gains": {"assumptions": "unfrozen"},
    }
    ways: Mapping[str, Options] = {
        "": {},
        ", settled samples": {"unsettled": "drop"},
        ", feedback x 0.5": {"unsettled": "drop", "feedback_strength": 0.5},
        ", 10 hops": {**BY_HOPS, "steps": 10},
        ", 3 hops": {**BY_HOPS, "steps": 3},
    }
    return {
        "backprop": {"rule": "backprop"},
        "AR": {"rule": "ar", "assumptions": "ar"},
        **{name + way: {"rule": "ar", **rule, **how} for name, rule in rules.items() for way, how in ways.items()},
    }


_REMARK = (
    "backprop is implicit differentiation at the settled rates; a hop is an Euler step of eta = 1 from zero, and one "
    "hop is Jacobian-free backprop. Without derivatives in the relaxation feedback is scaled by 0.5. Samples that have "
    "not settled do not learn under learned and Kolen-Pollack feedback. The last two conditions are controls, with "
    "exact gradients of the weights that learn."
)


def _suite(title: str, epochs: int, images: Images, network: str, lr: float, seeds: int) -> Suite:
    optimisation = Optimisation("adam", lr=lr, schedule="cosine", clip_norm=1.0)
    return Suite(
        title,
        Experiment(epochs=epochs, images=images, model=Model(network), optimisation=optimisation),
        conditions(network),
        seeds=seeds,
        remark=_REMARK,
        # the eigenvalues of a CNN's cycles cost as much time as its training
        execution=Execution(threads=1, measure_alignment=50, watch=network != "conv-rec"),
    )


_MNIST = _suite(
    "Which of AR's assumptions can be lifted in a hierarchy with lateral and top-down connections? "
    "(10,000 images of MNIST)",
    4,
    Images("mnist", train_images=10_000),
    "hierarchy",
    0.001,
    3,
)

RECURRENT: dict[str, Suite] = {
    "recurrent-digits": _suite(
        "Which of AR's assumptions can be lifted in a recurrent network? (digits)",
        30,
        Images("digits"),
        "digits-rec",
        0.003,
        10,
    ),
    "recurrent-mnist": _MNIST,
    "recurrent-mnist-stability": replace(
        _MNIST,
        title="What keeps relaxations with loops from running away? (10,000 images of MNIST)",
        conditions=remedies(),
        remark=(
            "backprop is implicit differentiation at the settled rates. Without derivatives in the relaxation and in "
            "the plasticity; simplified: with learned feedback as well; current gains: f' at the activities of the "
            "moment, in both. Without a remedy all samples learn, settled or not; a hop is an Euler step of eta = 1 "
            "from zero."
        ),
        execution=Execution(threads=1),
    ),
    "recurrent-fashion": _suite(
        "Which of AR's assumptions can be lifted in a recurrent CNN? (6,000 images of Fashion-MNIST)",
        2,
        Images("fashion-mnist", train_images=6_000),
        "conv-rec",
        0.003,
        3,
    ),
}
