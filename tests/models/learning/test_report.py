"""The report on both phases: what counts as settled, and its sentence."""

import pytest
import torch

from actrelax.models.learning.report import SettlingReport


def report(forward, backward, unsettled="keep"):
    residual = {"forward": torch.tensor(forward), "backward": torch.tensor(backward)}
    return SettlingReport(residual, {"forward": 0.1, "backward": 0.2}, {"forward": 7, "backward": 9}, unsettled)


def test_a_sample_has_settled_if_both_phases_have():
    found = report([0.1, 0.2, 0.0, float("nan")], [0.2, 0.0, 0.3, 0.0])
    assert found.settled["forward"].tolist() == [True, False, True, False]
    assert found.settled["backward"].tolist() == [True, True, False, True]
    assert found.in_both.tolist() == [True, False, False, False]
    assert found.count.shape == ()
    assert int(found.count) == 3


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            report([0.01], [0.02]),
            "the sample has settled; residual up to 0.01 after 7 forward and 0.02 after 9 backward steps",
        ),
        (
            report([0.5, 0.0], [0.0, 0.0], "drop"),
            "1 of 2 samples has not settled and doesn't learn; residual up to 0.5 after 7 forward and 0 after 9 "
            "backward steps",
        ),
        (
            report([0.5, 0.0, 0.0], [0.0, 3.0, 0.0]),
            "2 of 3 samples have not settled and learn; residual up to 0.5 after 7 forward and 3 after 9 "
            "backward steps",
        ),
    ],
)
def test_the_sentence(found, sentence):
    assert str(found) == sentence


def test_an_empty_batch_has_a_sentence():
    assert str(report([], [])).startswith("all 0 samples have settled; residual up to 0 after 7")
