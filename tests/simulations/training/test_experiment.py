"""Experiments: the papers' protocols, and impossible options."""

import math
from dataclasses import replace

import pytest

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import as_options
from actrelax.simulations.training.experiment import PROTOCOLS, Experiment, Images, Model, Optimisation, protocol
from actrelax.simulations.training.relaxation import Relaxation

COMMON = {
    "activation": "tanh",
    "batch_size": 64,
    "epochs": 30,
    "eta": None,  # 0.1, by `solve`
    "integrator": "sequential",
    "loss": "sum-of-squares",
    "lr": 0.0005,
    "momentum": 0.0,
    "optimiser": "sgd",
    "reduction": "sum",
    "schedule": "constant",
    "start": None,  # feedforward
    "steps": None,  # 100, by `solve`
    "weight_decay": 0.0,
    "weight_std": 0.05,
}
OWN = {
    "paper-mlp": {
        "dataset": "mnist",
        "network": "mlp",
        "normalise": "none",
        "clip": None,
        "update_clip": None,
        "conv_factor": 1.0,
    },
    "paper-cnn": {
        "dataset": "cifar10",
        "network": "cnn",
        "normalise": "half",
        "clip": None,  # 50 in the papers, which only one condition reaches
        "update_clip": 50.0,
        "conv_factor": 2.0,
    },
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_the_papers(name):
    """Protocols agree with arXiv 2010.06219."""
    options = as_options(protocol(name))
    expected = COMMON | OWN[name] | {"augment": "none", "validation": 0}
    assert {option: options[option] for option in expected} == expected


NO_DECAY = "--decay is for Kolen-Pollack feedback only: use --weight-decay instead."
KOLEN_POLLACK = Relaxation("kolen-pollack")
ADAM = Optimisation(optimiser="adam", momentum=0.9)
DESCENT = "continuous plasticity needs --optimiser sgd without momentum and weight decay: leave them out."
ROUNDED = "continuous plasticity does not support bf16: use fp32."


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "--epochs must be 1 or more, got 0."),
        ({"batch_size": 0}, "--batch-size must be 1 or more, got 0."),
        ({"seed": -1}, "--seed must be between 0 and 9.22337e+18, got -1."),
        ({"optimisation": Optimisation(lr=0)}, "--lr must be positive and at most 1e+30, got 0."),
        ({"optimisation": Optimisation(lr=math.nan)}, "--lr must be positive and at most 1e+30, got nan."),
        ({"optimisation": Optimisation(momentum=-0.1)}, "--momentum must be between 0 and 1, got -0.1."),
        ({"optimisation": Optimisation(weight_decay=-1)}, "--weight-decay must be 0 or more, got -1."),
        ({"optimisation": Optimisation(warmup=30)}, "--warmup must be between 0 and 20, got 30."),
        ({"optimisation": Optimisation(update_clip=0)}, "--update-clip must be positive, got 0."),
        ({"images": Images(validation=-5)}, "--validation must be 0 or more, got -5."),
        ({"images": Images(augment=True)}, "unknown augment True; known: none, flip, crop, flip,crop."),
        ({"relaxation": Relaxation(steps=-1)}, "--steps must be 0 or more, got -1."),
        ({"relaxation": Relaxation(eta=0)}, "--eta must be positive, got 0."),
        ({"relaxation": Relaxation(tau=-1)}, "--tau must be positive, got -1."),
        ({"relaxation": Relaxation(tau_spread=-1)}, "--tau-spread must be 0 or more, got -1."),
        ({"relaxation": Relaxation(clip=-1)}, "--clip must be positive, got -1."),
        ({"relaxation": Relaxation(noise=-1)}, "--noise must be 0 or more, got -1."),
        ({"relaxation": Relaxation(input_noise=math.inf)}, "--input-noise must be a finite number, got inf."),
        ({"relaxation": Relaxation(delay=-1)}, "--delay must be 0 or more, got -1."),
        ({"relaxation": Relaxation(feedback_transform="nix")}, "unknown feedback transform 'nix'; known: sparse-SHARE"),
        ({"optimisation": ADAM}, "adam has no --momentum: leave it out."),
        (
            {"optimisation": Optimisation(optimiser="torch.optim.Rprop", weight_decay=0.1)},
            "torch.optim.Rprop has no --weight-decay: leave it out.",
        ),
        ({"optimisation": Optimisation(optimiser="rmsprop")}, "unknown optimiser 'rmsprop'; known: sgd, adam, adamw, "),
        ({"optimisation": Optimisation(optimiser="torch.optim.LBFGS")}, "unknown optimiser 'torch.optim.LBFGS'; known"),
        ({"optimisation": Optimisation(clip_norm=0)}, "--clip-norm must be positive, got 0."),
        (
            {"optimisation": Optimisation(clip_norm=1), "relaxation": Relaxation("continuous")},
            "continuous plasticity does not support --clip-norm: leave it out.",
        ),
        ({"model": Model(label_smoothing=1.5)}, "--label-smoothing must be between 0 and 1, got 1.5."),
        (
            {"model": Model(label_smoothing=0.1, loss="sum-of-squares")},
            "--label-smoothing needs --loss cross-entropy, got sum-of-squares: leave it out.",
        ),
        ({"patience": 0, "images": Images(validation=9)}, "--patience must be 1 or more, got 0."),
        ({"patience": 3}, "--patience needs a validation accuracy: give --validation, too."),
        ({"images": Images(test_split=2)}, "--test-split must be positive and at most 1, got 2."),
        (
            {"images": Images(test_split=1)},
            "--test-split must be below 1, which would leave no images for training, got 1.",
        ),
        ({"relaxation": Relaxation("continuous"), "optimisation": Optimisation(momentum=0.5)}, DESCENT),
        ({"relaxation": Relaxation("continuous"), "optimisation": Optimisation(optimiser="adamw")}, DESCENT),
        ({"relaxation": Relaxation("continuous"), "precision": "bf16"}, ROUNDED),
        (
            {"relaxation": Relaxation("nix"), "rule": "backprop"},
            "unknown assumptions 'nix'; known: ar, learned-feedback,",
        ),
        ({"relaxation": Relaxation(integrator="nix"), "rule": "backprop"}, "unknown integrator 'nix'; known: euler,"),
        ({"optimisation": Optimisation(step_epochs=1e-320)}, "--step-epochs must be 0.001 or more, got "),
        (
            {"optimisation": Optimisation(step_factor=1e300)},
            "--step-factor must be positive and at most 1, got 1e+300.",
        ),
        ({"optimisation": Optimisation(decay=0.1)}, NO_DECAY),
        ({"optimisation": Optimisation(decay=0.1), "relaxation": KOLEN_POLLACK, "rule": "backprop"}, NO_DECAY),
        ({"relaxation": Relaxation("kolen-pollack")}, "Kolen-Pollack feedback needs a decay rate: give --decay."),
    ],
    ids=str,
)
def test_what_no_run_can_do(changes, sentence):
    Experiment().check()
    with pytest.raises(ActrelaxError) as refused:
        replace(Experiment(), **changes).check()
    assert str(refused.value).startswith(sentence)
