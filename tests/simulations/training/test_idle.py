"""Options without an effect are named, and those with one are not. Oracle: runs with and without them."""

import pytest
import torch

from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.configuration import changed
from actrelax.simulations.training.experiment import PROTOCOLS, Experiment
from actrelax.simulations.training.idle import idle_options

BASE = {"network": "digits-cnn", "batch_size": 8}
IDLE = [
    {"rule": "backprop", "steps": 7, "assumptions": "random-feedback"},
    {"optimiser": "adamw", "lr": 0.001, "conv_factor": 5.0, "reduction": "sum"},
    {"step_epochs": 3.0, "step_factor": 0.5},
    {"tau": 3.0},
    {"integrator": "equilibrium", "start": "zero", "tau": 2.0},
    {"tau_spread_over": "populations"},
    {"input_noise": 0.5, "integrator": "euler"},
]
EFFECTIVE = [
    {"optimiser": "adam", "weight_decay": 0.5, "conv_factor": 5.0},
    {"schedule": "step", "step_epochs": 0.01},
    {"tau": 3.0, "dt": 0.1},
    {"start": "zero"},
    {"assumptions": "unfrozen", "input_noise": 0.5, "integrator": "euler"},
]


def weights_after_batches(options):
    training = assemble(changed(Experiment(), BASE | options)).training
    for number, batch in enumerate(training.batches.epoch(0)):
        if number == 4:
            break
        training.optimiser.zero_grad()
        training.rule(training.network, *batch)
        training.optimiser.step()
        training.schedule.step()
    return torch.cat([w.detach().flatten() for w in training.network.parameters()])


def without(options):
    kept = ("rule", "optimiser", "schedule", "integrator", "weight_decay", "dt", "lr")
    return {name: value for name, value in options.items() if name in kept}


@pytest.mark.parametrize("options", IDLE, ids=str)
def test_options_without_an_effect_are_named(options):
    sentences = " ".join(idle_options(changed(Experiment(), options)))
    asked = [name for name in options if name not in without(options)]
    assert all(f"--{name.replace('_', '-')}" in sentences for name in asked)
    if "input_noise" in options:
        return  # it draws numbers
    torch.testing.assert_close(
        weights_after_batches(options), weights_after_batches(without(options)), rtol=1e-2, atol=1e-4
    )


@pytest.mark.parametrize("options", EFFECTIVE, ids=str)
def test_options_with_an_effect_are_not(options):
    assert idle_options(changed(Experiment(), options)) == []
    difference = weights_after_batches(options) - weights_after_batches(without(options))
    assert difference.abs().max() > 3e-4


def test_a_protocol_has_no_idle_options():
    assert [idle_options(experiment) for experiment in PROTOCOLS.values()] == [[], []]
    assert all(idle_options(suite.base) == [] for suite in SUITES.values())


def test_a_factor_of_convolutions_that_are_not_there():
    with pytest.warns(UserWarning, match=r"^--conv-factor has no effect: digits-mlp has no convolution\.$"):
        assemble(changed(Experiment(), {"network": "digits-mlp", "conv_factor": 2.0}))
