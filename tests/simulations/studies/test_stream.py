"""A stream of digits: what starts anew, what goes on, and what learns."""

import json

import pytest
import torch
from outcomes import is_drawn

from actrelax.simulations.data import digits
from actrelax.simulations.studies import stream as study
from actrelax.simulations.studies.stream import (
    CHECKED,
    LATERAL,
    NETWORKS,
    ONE,
    RESTARTED,
    SCHEDULES,
    TWO,
    Stream,
    accuracies,
    built,
    learned,
)


def starts(monkeypatch, schedule):
    """Return the initial states of the phases of two updates, forward and backward in turn, with their final states."""
    seen = []

    def watched(problem, *args, **options):
        found = study_solve(problem, *args, **options)
        seen.append((dict(problem.initial_state()), dict(found.final)))
        return found

    study_solve = study.solve
    monkeypatch.setattr(study, "solve", watched)
    learned(CHECKED, schedule, 1, 0, batches=2)
    return seen


def test_phases_that_start_anew_start_from_zero(monkeypatch):
    for start, _ in starts(monkeypatch, RESTARTED):
        assert not start["hidden1"].any()


def test_two_variables_go_on_each_by_itself(monkeypatch):
    (_, rates), (_, gradients), (forward, _), (backward, _) = starts(monkeypatch, TWO)
    assert torch.equal(forward["hidden1"], rates["hidden1"])
    assert torch.equal(forward["output"], rates["output"])
    assert torch.equal(backward["hidden1"], gradients["hidden1"])


def test_one_variable_is_rate_and_gradient_in_turn(monkeypatch):
    (_, rates), (start, gradients), (forward, again), (backward, _) = starts(monkeypatch, ONE)
    assert torch.equal(start["hidden1"], rates["hidden1"])
    assert torch.equal(forward["hidden1"], gradients["hidden1"])
    assert torch.equal(forward["output"], rates["output"])
    assert torch.equal(backward["hidden1"], again["hidden1"])


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_said_to_learn_learns(kind):
    before, after = (dict(network.state_dict()) for network in (built(kind, 0), learned(kind, ONE, 1, 0, batches=2)))
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    expected = {name for name in before if "output" in name}
    if kind != "readout only":
        expected |= {name for name in before if "input" in name}
    if kind == "competition that learns":
        expected |= {name for name in before if "hidden1->hidden1" in name}
    assert changed == expected


def test_units_inhibit_all_others_alike():
    lateral = built(CHECKED, 0).projections[LATERAL].weight
    assert not lateral.diagonal().any()
    assert torch.allclose(lateral.sum(1), torch.tensor(-4.0))
    assert not built("no lateral connections", 0).projections[LATERAL].weight.any()


def test_long_phases_forget_the_last_digit():
    network = learned(CHECKED, ONE, 5, 0, batches=60)
    short, long = (accuracies(network, ONE, duration) for duration in (0.25, 20))
    assert long["stream"] == long["settled"]
    chance = 100 / len(digits().train.labels.unique())
    assert long["settled"] > 5 * chance
    assert short["stream"] < long["stream"] - 10
    assert short["settled"] == long["settled"]


def test_an_answer_is_read_before_the_relaxation():
    network = built(CHECKED, 0)
    x, y = digits().test.images[:4].flatten(1), digits().test.labels[:4]
    first, second = (Stream(network, ONE, 1) for _ in range(2))
    assert torch.equal(first.show(x, y)[0], second.show(x, (y + 1) % 10)[0])
    assert not torch.equal(first.show(x, y)[0], second.show(x, y)[0])  # gradients are where the next phase starts


def test_results_are_written(tmp_path):
    numbers = study.main(tmp_path, durations=(1, 2), seeds=1, batches=2, networks=[CHECKED])
    assert is_drawn(tmp_path / "stream.png")
    assert numbers["stream"][CHECKED].keys() == set(SCHEDULES)
    assert json.loads((tmp_path / "stream.json").read_text())["settled"][CHECKED][ONE].keys() == {"1", "2"}
