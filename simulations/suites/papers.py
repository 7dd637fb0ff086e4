"""Suites of the papers' experiments, and of further ones with the papers' networks."""

from __future__ import annotations

from dataclasses import replace

from actrelax.simulations.suites.shared import BACKPROP, CONVERGED, ar, forgetting, on, without
from actrelax.simulations.suites.suite import Suite
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation, protocol

MLP = {
    "backprop": BACKPROP,
    "AR": ar(),
    "learned feedback": ar("learned-feedback"),
    "no derivatives in the relaxation": ar("no-derivatives-relaxation"),
    "both": ar("simplified-relaxation"),
    "random feedback": ar("random-feedback"),
}
"""The first paper's conditions, and fixed random feedback."""

UNFROZEN = {
    "backprop": BACKPROP,
    "AR, frozen": ar(),
    "current activity in the weight update": ar("current-presynaptic"),
    "current gain in the relaxation": ar("unfrozen-relaxation"),
    "current gain in the weight update": ar("unfrozen-weights"),
    "current gain in both": ar("unfrozen"),
}
"""The second paper's conditions without frozen feedforward values, and the frozen control."""

CNN = {
    "backprop": BACKPROP,
    "AR": ar(),
    "no derivatives, dense": ar("no-derivatives-dense"),
    "no derivatives, conv": ar("no-derivatives-conv"),
    "no derivatives": ar("no-derivatives"),
    "learned feedback, dense": ar("learned-feedback-dense"),
    "learned feedback, conv": ar("learned-feedback-conv"),
    "simplified, dense": ar("simplified-dense"),
    "simplified": ar("simplified"),
    "random feedback": ar("random-feedback"),
    "sign feedback": ar("sign-feedback"),
    "Kolen-Pollack feedback": ar("kolen-pollack", decay=forgetting),
}
"""The second paper's eight conditions, and three alternatives to weight transport in all layers."""

CONTROLS = {
    "backprop": BACKPROP,
    "AR": CNN["AR"],
    "AR, weight decay": ar(weight_decay=forgetting),
    "Kolen-Pollack feedback": CNN["Kolen-Pollack feedback"],
    "simplified": CNN["simplified"],
    "simplified, clipped": ar("simplified", clip=50.0),
}
"""Controls for CNN: the effects of Kolen-Pollack's decay and of the papers' clip of 50.

Only "simplified" reaches the clip, which costs ten times as much because relaxations must be stepped.
"""

TUNED = {
    "loss": "cross-entropy",
    "optimiser": "adam",
    "lr": 0.001,
    "reduction": "mean",
    "conv_factor": 1.0,
    "update_clip": None,
}
"""Options that learn faster than the papers' protocol, without its clip of weight steps."""

_MLP = replace(protocol("paper-mlp"), epochs=10)
PAPER_CNN = replace(protocol("paper-cnn"), epochs=10)
"""The second paper's protocol, with a third of its epochs."""


PAPERS: dict[str, Suite] = {
    "smoke": Suite(
        "On the bundled digits, in a minute: does everything run, and come out as it should?",
        Experiment(
            epochs=6,
            images=Images("digits"),
            model=Model("digits-cnn", loss="cross-entropy"),
            optimisation=Optimisation("sgd", lr=0.1, momentum=0.9, weight_decay=0.003, schedule="cosine"),
        ),
        {
            "backprop": BACKPROP,
            "AR": ar(),
            "simplified": ar("simplified"),
            "random feedback": ar("random-feedback"),
        },
        seeds=3,
        execution=Execution(threads=1, measure_alignment=10),
    ),
    "mlp-mnist": Suite(
        "Do learned feedback and dropped derivatives keep an MLP's accuracy? (first paper, MNIST)",
        on(_MLP, "mnist"),
        MLP,
        {"tanh": {"activation": "tanh"}, "relu": {"activation": "relu"}},
        seeds=10,
    ),
    "mlp-fashion": Suite(
        "Do learned feedback and dropped derivatives keep an MLP's accuracy? (first paper, Fashion-MNIST)",
        on(_MLP, "fashion-mnist"),
        MLP,
        {"tanh": {"activation": "tanh"}, "relu": {"activation": "relu"}},
        seeds=10,
    ),
    "mlp-mnist-ce": Suite(
        "The same under softmax and cross-entropy (first paper, MNIST)",
        on(_MLP, "mnist", loss="cross-entropy", activation="relu"),
        MLP,
        seeds=10,
    ),
    "unfrozen-mnist": Suite(
        "Can the frozen feedforward pass be relaxed? (second paper, MNIST)",
        replace(on(_MLP, "mnist"), epochs=5),
        UNFROZEN,
    ),
    "unfrozen-fashion": Suite(
        "Can the frozen feedforward pass be relaxed? (second paper, Fashion-MNIST)",
        replace(on(_MLP, "fashion-mnist"), epochs=5),
        UNFROZEN,
    ),
    "cnn-cifar10": Suite(
        "Do the simplifications keep a CNN's accuracy? (second paper, CIFAR-10)", on(PAPER_CNN, "cifar10"), CNN
    ),
    "cnn-cifar10-long": Suite(
        "Do the simplifications keep a CNN's accuracy over the paper's thirty epochs? (CIFAR-10)",
        replace(on(PAPER_CNN, "cifar10"), epochs=30),
        CNN,
    ),
    "cnn-cifar100": Suite(
        "Do the simplifications keep a CNN's accuracy? (second paper, CIFAR-100)", on(PAPER_CNN, "cifar100"), CNN
    ),
    "cnn-svhn": Suite("Do the simplifications keep a CNN's accuracy? (second paper, SVHN)", on(PAPER_CNN, "svhn"), CNN),
    "cnn-svhn10k": Suite(
        "Do the simplifications keep a CNN's accuracy? (10,000 of SVHN's test images, in its place)",
        on(PAPER_CNN, "svhn10k"),
        CNN,
    ),
    "cnn-cifar10-controls": Suite(
        "Do clip or weight decay make the difference in cnn-cifar10?", on(PAPER_CNN, "cifar10"), CONTROLS
    ),
    "cnn-svhn10k-controls": Suite(
        "Do clip or weight decay make the difference in cnn-svhn10k?", on(PAPER_CNN, "svhn10k"), CONTROLS
    ),
    "cnn-cifar10-converged": Suite(
        "Do the simplifications keep a CNN's accuracy where relaxations settle? (CIFAR-10)",
        on(PAPER_CNN, "cifar10", **CONVERGED),
        CNN,
    ),
    "cnn-cifar10-start": Suite(
        "Is what relaxations keep of the feedforward pass the reason why AR falls behind backprop? (CIFAR-10)",
        on(PAPER_CNN, "cifar10"),
        {
            "backprop": BACKPROP,
            "AR": ar(),
            "AR, from zero": ar(start="zero"),
            "AR, converged": ar(**CONVERGED),
            "AR, 202 steps": ar(steps=202),  # as many as "converged" takes, with the error that remains
        },
    ),
    "cnn-cifar10-adam": Suite(
        "Do they keep a CNN's accuracy under cross-entropy and Adam? (CIFAR-10, relaxed until settled)",
        on(PAPER_CNN, "cifar10", **TUNED, **CONVERGED),
        without(CNN, "Kolen-Pollack feedback"),  # its decay assumes plain gradient descent
    ),
    "graph-cifar10": Suite(
        "Does AR learn on a graph that is no chain, and what survives its skips? (CIFAR-10)",
        on(PAPER_CNN, "cifar10", network="cnn-skip"),
        {
            "backprop": BACKPROP,
            "AR, converged": ar(**CONVERGED),
            "AR, 100 steps": ar(),
            "no derivatives": ar("no-derivatives"),
            "learned feedback": ar("learned-feedback"),
            "simplified": ar("simplified"),
            "random feedback": ar("random-feedback"),
        },
    ),
    "continuous-digits": Suite(
        "Can weights learn while activities relax? (digits)",
        Experiment(
            epochs=20,
            images=Images("digits"),
            model=Model("digits-mlp"),
            optimisation=Optimisation("sgd", lr=0.1),
        ),
        {
            "backprop": BACKPROP,
            "AR, from zero": ar(start="zero"),
            "continuous plasticity": ar("continuous"),
        },
    ),
}
"""Name -> suite. The first paper's figure 1 involves no training: see `figure1`."""
