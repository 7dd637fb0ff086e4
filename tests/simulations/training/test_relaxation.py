"""Relaxation options, and the corresponding arguments of the models."""

import pytest
import torch

from actrelax.models.closed_form import uncovered
from actrelax.models.engines import INTEGRATORS, PAPERS, Steps, schedule
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import build
from actrelax.models.problem import RelaxationProblem
from actrelax.models.problem.feedback_transforms import Sparse
from actrelax.simulations.training.relaxation import Relaxation


def test_time_constants():
    network = build("mlp", input_shape=(20,)).double()
    assert Relaxation(tau=3.0).time_constants(network, 0) == 3.0
    drawn = Relaxation(tau=3.0, tau_spread=0.4).time_constants(network, 0)
    assert {name: tau.shape for name, tau in drawn.items()} == {
        name: network.populations[name].shape for name in network.hidden
    }
    together = torch.cat(list(drawn.values()))
    assert together.mean() == pytest.approx(3.0, rel=0.05)
    assert together.std() / together.mean() == pytest.approx(0.4, rel=0.1)
    assert together.min() > 0
    again = Relaxation(tau=3.0, tau_spread=0.4).time_constants(network, 0)
    other = Relaxation(tau=3.0, tau_spread=0.4).time_constants(network, 1)
    assert torch.equal(drawn["hidden1"], again["hidden1"])
    assert not torch.equal(drawn["hidden1"], other["hidden1"])
    assert not torch.equal(drawn["hidden1"], drawn["hidden2"])
    noisy = Relaxation(tau=3.0, tau_spread=0.4, input_noise=0.1).time_constants(network, 0)
    assert noisy["input"] == 3.0
    assert torch.equal(noisy["hidden1"], drawn["hidden1"])


def test_time_constants_of_whole_populations():
    """All neurons of a population share a tau, so the closed form holds; the spread is the requested one."""
    network = build("mlp", input_shape=(20,)).double()
    spread = Relaxation(tau=3.0, tau_spread=0.4, tau_spread_over="populations")
    drawn = [spread.time_constants(network, seed) for seed in range(300)]
    assert set(drawn[0]) == set(network.hidden)
    assert len(set(drawn[0].values())) == 3
    together = torch.tensor([tau for taus in drawn for tau in taus.values()])
    assert together.mean() == pytest.approx(3.0, rel=0.05)
    assert together.std() / together.mean() == pytest.approx(0.4, rel=0.1)
    x, y = torch.rand(2, 20).double(), torch.tensor([0, 1])
    neuronwise = Relaxation(tau_spread=0.4).time_constants(network, 0)
    assert uncovered(RelaxationProblem.from_batch(network, x, y, tau=drawn[0])) is None
    assert uncovered(RelaxationProblem.from_batch(network, x, y, tau=neuronwise)) is not None


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, PAPERS),
        ({"steps": 7, "eta": 0.2}, Steps(7, eta=0.2)),
        ({"steps": 0}, Steps(0)),
        ({"eta": 0.2}, Steps(100, eta=0.2)),
        ({"duration": 3.0, "dt": 0.5}, Steps(duration=3.0, dt=0.5)),
        ({"steps": "auto"}, Steps.until()),
        (
            {"steps": "auto", "tolerance": 1e-3, "tolerance_of": "gradient", "max_steps": 9, "dt": 0.5},
            Steps.until(1e-3, of="gradient", dt=0.5, most=9),
        ),
        ({"steps": "auto", "eta": 0.2}, Steps.until(eta=0.2)),
    ],
)
def test_steps(options, steps):
    """Steps set the duration of a relaxation; without them every integrator has a default, also "equilibrium"."""
    found = Relaxation(**options).as_steps
    network = build("digits-mlp")
    problem = RelaxationProblem.from_batch(network, torch.rand(2, 64), torch.tensor([0, 1]))
    assert (found is PAPERS) == (steps is PAPERS)
    assert schedule(problem, INTEGRATORS["euler"], found) == schedule(problem, INTEGRATORS["euler"], steps)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 3, "duration": 1.0}, "--steps and --duration exclude each other: give one of them."),
        ({"steps": "auto", "duration": 1.0}, "--steps and --duration exclude each other: give one of them."),
        ({"dt": 0.1, "eta": 0.1}, "--dt and --eta exclude each other: give one of them."),
    ],
)
def test_options_that_exclude_each_other(options, sentence):
    with pytest.raises(ActrelaxError) as refused:
        Relaxation(**options).check()
    assert str(refused.value) == sentence


def test_problem_fields():
    network = build("digits-mlp")
    fields = Relaxation("ar", "euler", 7, eta=0.2, tau=2.0, clip=3.0).problem_fields(network, 0)
    assert fields == {
        "tau": 2.0,
        "start": "feedforward",
        "clip": 3.0,
        "noise": 0.0,
        "input_noise": 0.0,
        "delays": 0.0,
        "feedback_transform": None,
    }
    biological = Relaxation(noise=0.1, input_noise=0.2, delay=0.3, feedback_transform="sparse-0.5")
    given = biological.problem_fields(network, 7)
    assert [given[name] for name in ("noise", "input_noise", "delays", "feedback_transform")] == [
        0.1,
        0.2,
        0.3,
        Sparse(0.5, seed=7),
    ]
    assert Relaxation("continuous").problem_fields(network, 0)["start"] == "zero"
    assert Relaxation("ar", start="zero").problem_fields(network, 0)["start"] == "zero"


def test_the_integrators_of_one_engine_are_no_option_of_training():
    Relaxation(integrator="scipy:DOP853").check_problem()
    with pytest.raises(ActrelaxError, match=r"^unknown integrator 'scipy:DOP853'; known: euler, sequential, "):
        Relaxation(integrator="scipy:DOP853").check()
    with pytest.raises(ActrelaxError, match=r"^unknown feedback transform 'blurred'; known: sparse-SHARE"):
        Relaxation(feedback_transform="blurred").check()
