"""Trainings under perturbations: without perturbation they equal backprop, and predictions are evaluated."""

import json
import math

import pandas as pd
import pytest
import torch
from outcomes import is_drawn

from actrelax.models.network import build
from actrelax.models.problem import apply_transform
from actrelax.models.problem.feedback_transforms import Sparse
from actrelax.simulations.data import random_stream
from actrelax.simulations.studies.perturbation import (
    BASE,
    REFERENCES,
    feedback_angles,
    learn,
    limits,
    mean_angles,
    study,
)
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import load_images

SHORT = varied(BASE, {"epochs": 3})


def trained(options, **more):
    return learn(varied(SHORT, options), load_images(BASE.images), **more)


def test_undisturbed_is_backprop_and_silence_is_the_output_alone():
    exact, silent = (trained(options, every=None) for options in REFERENCES.values())
    plain = trained({"duration": 40.0})
    assert plain.pop("accuracy") == pytest.approx(exact["accuracy"], abs=0.005)
    assert max(plain.values()) < 1e-3
    assert list(exact) == list(silent) == ["accuracy"]
    assert silent["accuracy"] < exact["accuracy"] - 0.2


def test_angles_are_means_over_training_and_the_law_is_asked_where_they_are_measured():
    asked = []

    def law(experiment, network, x, y):
        asked.append(network.projections["hidden3->output"].weight.detach().clone())
        return {"input->hidden1": 10.0 * len(asked), "hidden3->output": 1.0}

    hidden = ["input->hidden1", "hidden1->hidden2", "hidden2->hidden3"]
    found = trained({"feedback_transform": "quantised-4"}, predicted=law, every=23)
    assert len(asked) == 3  # 23 batches per epoch
    initial = build("mlp-4x32", input_shape=(64,), generator=random_stream(0, "weights")).double()
    assert torch.equal(asked[0], initial.projections["hidden3->output"].weight)
    assert not torch.equal(asked[0], asked[1])
    assert list(found) == ["accuracy", *(f"angle {name}" for name in hidden), "predicted input->hidden1"]
    assert found["predicted input->hidden1"] == 20
    asked.clear()
    found = trained({}, predicted=law, first=True, every=23)
    assert found["predicted input->hidden1"] == 10
    assert all(found[f"first {name}"] != found[f"angle {name}"] for name in hidden)


def test_feedback_angles_written_out():
    """Cosines between full and sparse weights multiply from the top down; each is about sqrt(share)."""
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
    rows = study(tmp_path / "s.png", {"sparse": levels}, xlabel="share", scale="log", seeds=2, epochs=3)
    assert [*zip(rows["series"], rows["seed"], strict=True)] == [
        (name, seed) for name in ("sparse", "sparse", *REFERENCES) for seed in range(2)
    ]
    assert rows["accuracy"][0] != rows["accuracy"][1]
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "sparse: a point lost from 0.1 on, worse than fixed hidden weights at no level"
    assert is_drawn(tmp_path / "s.png")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "s.csv"), rows)
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["last line"] == said[-1]
    assert found["backprop"]["accuracy"] == pytest.approx(50 * (rows["accuracy"][4] + rows["accuracy"][5]), rel=1e-5)
    assert (found["sparse"]["a point lost from"], found["sparse"]["useless from"]) == (0.1, None)
    weak = found["sparse"]["levels"]["0.1"]
    assert weak["lowest accuracy"] == pytest.approx(100 * rows["accuracy"][2:4].min(), rel=1e-5)
    assert weak["angle"] == pytest.approx(mean_angles(rows)[2:4].mean(), rel=1e-5)
    assert weak["angle input->hidden1"] == pytest.approx(rows["angle input->hidden1"][2:4].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("levels", "accuracies", "expected"),
    [
        # a point below the first level, which may be worse than backprop; and below "output alone learns"
        ([0.0, 0.1, 0.2, 0.4, 0.8], [0.90, 0.895, 0.885, 0.7, 0.4], (0.2, 0.8)),
        # in the order of the levels; a level that is followed by a better one does not count
        ([1.0, 0.5, 0.2, 0.1], [0.9, 0.5, 0.9, 0.7], (0.1, None)),
    ],
)
def test_limits(levels, accuracies, expected):
    rows = [{"series": "noise", "level": level, "accuracy": x} for level, x in zip(levels, accuracies, strict=True)]
    rows += [
        {"series": name, "level": math.nan, "accuracy": x} for name, x in zip(REFERENCES, (0.96, 0.6), strict=True)
    ]
    assert limits(pd.DataFrame(rows), "noise") == expected
