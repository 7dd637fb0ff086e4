"""Only options without an effect are reported. Oracle: runs with and without them."""

import pytest
import torch

from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.configuration import changed
from actrelax.simulations.training.experiment import PROTOCOLS, Experiment
from actrelax.simulations.training.idle import idle_in_all, idle_in_one_relaxation, idle_options
from actrelax.simulations.training.relaxation import Relaxation

BASE = {"network": "digits-cnn", "batch_size": 8}
IDLE = [
    {"rule": "backprop", "steps": 7, "assumptions": "random-feedback"},
    {"optimiser": "adamw", "lr": 0.001, "conv_factor": 5.0, "reduction": "sum"},
    {"step_epochs": 3.0, "step_factor": 0.5},
    {"tau": 3.0},
    {"integrator": "equilibrium", "start": "zero", "tau": 2.0},
    {"integrator": "equilibrium", "tau_spread": 0.5, "tau_spread_over": "populations"},
    {"tau_spread_over": "populations"},
    {"input_noise": 0.5, "integrator": "euler"},
]
EFFECTIVE = [
    {"optimiser": "adam", "weight_decay": 0.5, "conv_factor": 5.0},
    {"optimiser": "torch.optim.SGD", "lr": 0.01, "reduction": "sum"},
    {"optimiser": "torch.optim.NAdam", "weight_decay": 0.5, "conv_factor": 5.0},
    {"optimiser": "adam", "clip_norm": 1.0, "lr": 0.1, "conv_factor": 20.0},
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
    kept = ("rule", "optimiser", "schedule", "integrator", "weight_decay", "clip_norm", "dt", "lr")
    return {name: value for name, value in options.items() if name in kept}


@pytest.mark.parametrize("options", IDLE, ids=str)
def test_options_without_an_effect_are_named(options):
    sentences = " ".join(idle_options(changed(Experiment(), options)))
    asked = [name for name in options if name not in without(options)]
    assert all(f"--{name.replace('_', '-')}" in sentences for name in asked)
    if "input_noise" in options:
        return  # noise draws random numbers
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


def test_constant_statistics_without_batch_norm():
    said = r"^--assumptions constant-statistics has no effect: digits-mlp has no BatchNorm\.$"
    with pytest.warns(UserWarning, match=said):
        assemble(changed(Experiment(), {"network": "digits-mlp", "assumptions": "constant-statistics"}))


def test_a_suite_names_what_is_idle_in_all_of_its_runs():
    base = Experiment()
    given = changed(base, {"tau": 3.0, "step_factor": 0.5})
    backprop = changed(given, {"rule": "backprop"})
    stepped = changed(given, {"schedule": "step"})
    said = idle_in_all([given, backprop], base)
    assert said == [
        "--tau has no effect: steps are relative to tau unless --dt is given.",
        "--step-factor has no effect: they belong to --schedule step.",
    ]
    assert idle_in_all([given, stepped], base) == said[:1]
    assert idle_in_all([given, backprop], given) == []
    assert idle_in_all([changed(given, {"dt": 0.1}), backprop], base) == said[1:]


def test_one_relaxation_names_what_is_idle_without_learning():
    assert idle_in_one_relaxation(Relaxation(input_noise=0.5, tau_spread_over="populations")) == [
        "--tau-spread-over has no effect: without --tau-spread all neurons have one tau.",
        "--input-noise has no effect: under ar gains are those of the feedforward pass.",
    ]
    assert idle_in_one_relaxation(Relaxation(assumptions="unfrozen", input_noise=0.5)) == []
    assert idle_in_one_relaxation(Relaxation("constant-statistics", tau_spread=0.1)) == [
        "--assumptions has no effect: without learning a BatchNorm is in evaluation mode, where its statistics are "
        "constant."
    ]
    assert idle_in_one_relaxation(Relaxation(), 5) == [
        "--batch-size has no effect: with noise, copies of the first image relax."
    ]
