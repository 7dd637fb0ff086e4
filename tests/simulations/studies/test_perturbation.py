"""Trainings of the studies of robustness: one that is not perturbed is backprop's, and laws are asked on the way."""

import math
from dataclasses import replace

import pytest
import torch

from actrelax.models.network import build
from actrelax.models.problem import apply_transform
from actrelax.models.problem.feedback_transforms import Sparse
from actrelax.simulations.data import random_stream
from actrelax.simulations.studies.perturbation import (
    BASE,
    REFERENCES,
    feedback_angles,
    grid,
    learn,
    limits,
    reference,
    study,
)
from actrelax.simulations.studies.perturbation_results import Learned
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import load_images

SHORT = replace(BASE, epochs=3)


def trained(name, options, **more):
    return learn(name, 0.0, varied(SHORT, options), load_images(BASE.images), **more)


def test_undisturbed_is_backprop_and_silence_is_the_output_alone():
    exact, silent = (trained(name, options) for name, options in REFERENCES.items())
    plain = trained("AR", {"duration": 40.0})
    assert plain.accuracy == pytest.approx(exact.accuracy, abs=0.005)
    assert max(plain.angles.values()) < 1e-3
    assert exact.angles == silent.angles == {}
    assert silent.accuracy < exact.accuracy - 0.2


def test_angles_are_means_over_training_and_the_law_is_asked_where_they_are_measured():
    asked = []

    def law(experiment, network, x, y):
        asked.append(network.projections["hidden3->output"].weight.detach().clone())
        return {"input->hidden1": 10.0 * len(asked), "hidden3->output": 1.0}

    found = trained("coarse", {"feedback_transform": "quantised-4", "measure_alignment": 23}, predicted=law)
    assert len(asked) == 3  # 23 batches per epoch
    initial = build("mlp-4x32", input_shape=(64,), generator=random_stream(0, "weights")).double()
    assert torch.equal(asked[0], initial.projections["hidden3->output"].weight)
    assert not torch.equal(asked[0], asked[1])
    assert found.predicted == {"input->hidden1": 20.0}
    assert list(found.angles) == list(found.first) == ["input->hidden1", "hidden1->hidden2", "hidden2->hidden3"]
    assert found.first != found.angles
    asked.clear()
    assert trained("c", {"measure_alignment": 23}, predicted=law, first=True).predicted == {"input->hidden1": 10.0}


def test_feedback_angles_written_out():
    """The cosines between weights and what is left of them, from the top down; about sqrt(share) each."""
    network = build("mlp-4x32", input_shape=(64,), generator=random_stream(0, "weights")).double()
    experiment = varied(BASE, {"feedback_transform": "sparse-0.25", "seed": 3})
    found = feedback_angles(experiment, network, None, None)
    product, expected = 1.0, {}
    for above, below in (("3->output", "2->hidden3"), ("2->hidden3", "1->hidden2"), ("1->hidden2", "input->hidden1")):
        name = f"hidden{above}"
        W = network.projections[name].weight.detach().numpy()
        kept = apply_transform(Sparse(0.25, 3), torch.as_tensor(W), name).numpy()
        product *= (W * kept).sum() / ((W**2).sum() * (kept**2).sum()) ** 0.5
        expected[below if below.startswith("input") else f"hidden{below}"] = math.degrees(math.acos(product))
    assert found == pytest.approx(expected)
    assert math.cos(math.radians(found["input->hidden1"])) == pytest.approx(0.5**3, rel=0.2)
    assert feedback_angles(BASE, network, None, None) == dict.fromkeys(expected, 0.0)


def test_a_study_goes_through_levels_seeds_and_references(tmp_path, capsys):
    levels = {1.0: {"feedback_transform": "sparse-1.0"}, 0.1: {"feedback_transform": "sparse-0.1"}}
    rows = study(tmp_path / "s.png", {"sparse": levels}, xlabel="share", scale="log", seeds=2, base=SHORT)
    assert [(row.series, row.seed) for row in rows] == [
        (name, seed) for name in ("sparse", "sparse", *REFERENCES) for seed in range(2)
    ]
    assert rows[0].accuracy != rows[1].accuracy
    assert reference(rows, "backprop") == (rows[4].accuracy + rows[5].accuracy) / 2
    assert limits(rows, "sparse") == (0.1, None)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "sparse: a point lost from 0.1 on, worse than fixed hidden weights at no level"
    assert (tmp_path / "s.png").exists()
    assert (tmp_path / "s.csv").exists()


def test_limits():
    """A point below the first level, which need not be as good as backprop; and below the output alone."""
    accuracy = {0.0: 0.90, 0.1: 0.895, 0.2: 0.885, 0.4: 0.7, 0.8: 0.4}
    rows = [Learned("noise", level, 0, value) for level, value in accuracy.items()]
    rows += [Learned(name, math.nan, 0, value) for name, value in zip(REFERENCES, (0.96, 0.6), strict=True)]
    assert limits(rows, "noise") == (0.2, 0.8)


def test_grid():
    assert grid(BASE) == (0.2, 50)
