"""What --watch writes. Oracle: eigenvalues of Jacobians by autograd, and runs without it."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from outcomes import differing, outcome

from actrelax.analysis.runs import RunFolder
from actrelax.models.engines import settle
from actrelax.simulations import cli
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.callbacks import Alignment
from actrelax.simulations.training.configuration import as_config, from_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model
from actrelax.simulations.training.forward_phase import ForwardPhase
from actrelax.simulations.training.loop import measure, train
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.watch import IMAGES, Watch


def observed(experiment):
    training = assemble(experiment).training
    measure(training)
    return training, Watch(experiment, training.network).observe(training)


@pytest.mark.parametrize("assumptions", ["ar", "random-feedback"])
def test_abscissae_are_the_largest_over_eight_images(assumptions):
    forward = ForwardPhase(settle_tolerance=1e-5, settle_steps=2000)
    experiment = Experiment(
        model=Model("digits-rec"), forward=forward, precision="fp64", relaxation=Relaxation(assumptions)
    )
    training, row = observed(experiment)
    network, loop = training.network, training.network.projections["hidden1->hidden1"]
    x = training.batches.preprocess(training.batches.data.train.images[:IMAGES])
    rates = settle(network, x, forward.settle).activities["hidden1"]
    psi = loop.feedback if assumptions == "random-feedback" else loop.weight
    gains = (1 - rates.detach() ** 2).numpy()
    expected = {
        "forward": [np.linalg.eigvals(g[:, None] * loop.weight.detach().numpy()).real.max() for g in gains],
        "backward": [np.linalg.eigvals(psi.detach().numpy().T * g).real.max() for g in gains],
    }
    for phase, alphas in expected.items():
        assert row[f"abscissa {phase}"] == pytest.approx(max(alphas), abs=1e-4)
        assert max(alphas) - min(alphas) > 1e-3
    if assumptions == "ar":
        assert row["abscissa forward"] == pytest.approx(row["abscissa backward"], abs=1e-6)
    assert math.isnan(row["unsettled share"])


def test_steps_are_those_of_the_phases():
    experiment = Experiment(model=Model("digits-rec"))
    _, row = observed(experiment)
    assert 3 < row["steps forward"] < 100
    assert 3 < row["steps backward"] < 100
    fixed = replace(experiment, forward=ForwardPhase(settle_steps=7), relaxation=Relaxation(steps=9))
    assert [observed(fixed)[1][f"steps {phase}"] for phase in ("forward", "backward")] == [7, 9]
    assert observed(replace(experiment, rule="backprop"))[1]["steps backward"] == 0
    solved = replace(experiment, relaxation=Relaxation(integrator="equilibrium"))
    assert 3 < observed(solved)[1]["steps backward"] < 100  # GMRES's products


@pytest.mark.parametrize("options", [[], ["--integrator", "euler", "--steps", 5, "--noise", 0.01]])
def test_it_changes_nothing_but_the_table(tmp_path, npz, options):
    quick = ["--network", "digits-rec", "--threads", 1, "--batch-size", 25, "--epochs", 2, "--quiet", *options]
    for name, more in (("with", ["--watch"]), ("without", [])):
        arguments = ["train", "--dataset", npz, *quick, *more, "--out", tmp_path / name]
        assert cli.main(list(map(str, arguments))) == 0
    ours, theirs = (outcome(tmp_path / name) for name in ("with", "without"))
    columns = {"abscissa forward", "abscissa backward", "unsettled share", "steps forward", "steps backward"}
    assert all("metrics" in where or "config" in where for where in differing(ours, theirs))
    rows, plain = (RunFolder(tmp_path / name).table("metrics") for name in ("with", "without"))
    for row, other in zip(rows, plain, strict=True):
        assert row.keys() - other.keys() == columns
        assert {key: row[key] for key in other} == pytest.approx(other, nan_ok=True)
    assert all(0 < row["abscissa forward"] < 1.2 for row in rows)
    assert [row["unsettled share"] * 100 for row in rows[1:]] == pytest.approx([row["unsettled"] for row in rows[1:]])


def test_each_warning_is_said_once_per_run(npz):
    forward = ForwardPhase(settle_steps=3, settle_tolerance=1e-6)
    relaxation = Relaxation(steps="auto", max_steps=4)
    images = Images(str(npz))
    experiment = Experiment(epochs=2, images=images, model=Model("digits-rec"), forward=forward, relaxation=relaxation)
    parts = assemble(experiment)
    alignment = Alignment(1, parts.loss, parts.options, relaxation.knobs)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        train(parts.training, [Watch(experiment, parts.training.network), alignment])
    assert sorted(str(each.message).split(":")[0] for each in said) == [
        "not settled after 4 steps",
        "some samples have not settled after 3 steps of the forward phase",
    ]


def test_it_enters_a_configuration_only_where_it_is_given():
    assert "watch" not in as_config(Experiment(), Execution())["execution"]
    config = as_config(Experiment(), Execution(watch=True))
    assert config["execution"]["watch"] is True
    assert from_config(config)[1] == Execution(watch=True)
    assert from_config(as_config(Experiment(), Execution()))[1] == Execution()


def test_gradients_of_the_rule_are_left_alone():
    training, _ = observed(Experiment(model=Model("digits-rec")))
    assert all(p.grad is None for p in training.network.parameters())
    assert torch.is_grad_enabled()
