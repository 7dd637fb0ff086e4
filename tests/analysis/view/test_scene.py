"""Data of the viewer, against NumPy, SciPy's distributions, autograd and relaxations of the clamp alone."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from actrelax import Network, RelaxationProblem, Settle, Steps, build, settle, solve
from actrelax.analysis.view.scene import ARRIVED, COSINE, gradients_of, scene_of
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.results import relative_error


def problem_of(name="mlp-4x7", shape=(5,), *, batch=3, **fields):
    network = build(name, input_shape=shape, generator=0)
    x, y = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1)), torch.arange(batch)
    return RelaxationProblem.from_batch(network, x, y, **fields), x, y


def test_errors_are_those_of_each_sample():
    problem, x, y = problem_of()
    trajectory = solve(problem, "euler", 12, eta=0.2, record=True)
    scene = scene_of(trajectory)
    gradients = activity_gradients(problem.network, x, y)
    assert list(scene.populations) == ["hidden1", "hidden2", "hidden3"]
    assert [shown.hops for shown in scene.populations.values()] == [3, 2, 1]
    for name, shown in scene.populations.items():
        states, gradient = trajectory[name].numpy(), gradients[name].numpy()
        assert np.array_equal(shown.activities, states.transpose(1, 0, 2))
        assert shown.gradient == pytest.approx(gradient, rel=1e-12, abs=1e-15)
        expected = np.abs(states - gradient).max(2) / np.abs(gradient).max(1)
        assert shown.errors == pytest.approx(expected.T, rel=1e-9)
        assert np.ptp(shown.errors[:, 5]) > 1e-3  # samples differ
    assert (scene.labels, scene.unit, scene.no_law) == ([0, 1, 2], "units of tau", None)
    assert scene.stimuli == pytest.approx(x.numpy())


@pytest.mark.parametrize("integrator", ["euler", "sequential", "rk4", "scipy:DOP853"])
def test_predictions_are_the_errors(integrator):
    problem, *_ = problem_of()
    scene = scene_of(solve(problem, integrator, 12, eta=0.2, record=True))
    assert scene.points == pytest.approx(scene.times)
    for shown in scene.populations.values():
        assert shown.predicted == pytest.approx(shown.errors, rel=1e-5)


def test_on_a_chain_a_share_has_arrived_that_is_a_binomial_tail():
    problem, *_ = problem_of()
    scene = scene_of(solve(problem, "euler", 12, eta=0.2, record=True))
    assert scene.arrived == ARRIVED
    for shown in scene.populations.values():
        tail = binom.sf(shown.hops - 1, np.arange(13), 0.2)
        assert shown.arrived == pytest.approx(np.tile(tail, (3, 1)), abs=1e-12)


def test_along_skips_a_share_has_arrived_that_a_relaxation_from_zero_shows():
    problem, *_ = problem_of("digits-skip", (1, 8, 8))
    from_zero, *_ = problem_of("digits-skip", (1, 8, 8), start="zero")
    scene = scene_of(solve(problem, "euler", 12, eta=0.2, record=True))
    states, ends = solve(from_zero, "euler", 12, eta=0.2, record=True), gradients_of(problem)
    assert [shown.hops for shown in scene.populations.values()] == [2, 3, 2, 1]
    for name, shown in scene.populations.items():
        end = ends[name].flatten(1)
        share = (states[name].flatten(2) * end).sum(2) / end.square().sum(1)
        assert shown.arrived == pytest.approx(share.T.numpy(), abs=1e-10)
        assert np.ptp(shown.arrived) > 0.1


def test_without_a_law_the_cosine_stands_for_what_has_arrived():
    problem, *_ = problem_of(delays=0.4)
    trajectory = solve(problem, "euler", 12, dt=0.2, record=True)
    scene = scene_of(trajectory)
    assert scene.arrived == COSINE
    assert scene.no_law == "the closed form needs feedback without delays: leave delays out, or step the relaxation."
    for name, shown in scene.populations.items():
        assert shown.predicted is None
        x, g = trajectory[name].numpy(), shown.gradient
        expected = (x * g).sum(2) / np.linalg.norm(x, axis=2) / np.linalg.norm(g, axis=1)
        assert shown.arrived == pytest.approx(expected.T, abs=1e-12)


@pytest.mark.parametrize("loss", ["cross-entropy", "sum-of-squares"])
def test_gradients_follow_from_stimuli_and_clamp_alone(loss):
    network = build("digits-cnn", generator=0)
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([3, 4])
    found = gradients_of(RelaxationProblem.from_batch(network, x, y, loss=loss))
    for name, gradient in activity_gradients(network, x, y, loss=loss).items():
        assert torch.allclose(found[name], gradient, rtol=1e-12, atol=1e-16)


def test_first_samples_alone():
    problem, *_ = problem_of()
    trajectory = solve(problem, "euler", 12, eta=0.2, record=True)
    whole, first = scene_of(trajectory), scene_of(trajectory, samples=2)
    assert (len(first.stimuli), first.labels) == (2, [0, 1])
    for name, shown in first.populations.items():
        for field in ("activities", "gradient", "errors", "arrived", "predicted"):
            assert np.array_equal(getattr(shown, field), getattr(whole.populations[name], field)[:2])


def test_a_captured_module_with_relays():
    """From a zero state, a population first moves after as many steps as it is hops from the output."""
    layers = [nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 3)]

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x):
            a, norm, b, c = self.layers
            h = torch.tanh(a(x))
            return c(norm(h + torch.tanh(b(norm(h)))))

    x = torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
    network = Network.from_module(Skip(), x)
    assert network.relays
    problem = RelaxationProblem.from_batch(network, x, torch.arange(3))
    scene = scene_of(solve(problem, "euler", 12, eta=0.2, record=True))
    from_zero = RelaxationProblem.from_batch(network, x, torch.arange(3), start="zero")
    states = solve(from_zero, "euler", 12, eta=0.2, record=True).recorded
    for name, shown in scene.populations.items():
        assert shown.hops == int((states[name].flatten(1).abs().amax(1) > 0).nonzero()[0])
    for name, gradient in activity_gradients(network, x, torch.arange(3)).items():
        if name in scene.populations:
            assert scene.populations[name].gradient == pytest.approx(gradient.numpy(), abs=1e-14)
    for shown in scene.populations.values():
        assert shown.predicted == pytest.approx(shown.errors, rel=1e-9)


def test_refusals():
    problem, *_ = problem_of()
    for record in (False, "hidden1", {"hidden1": [0], "hidden2": [0], "hidden3": [0]}):
        trajectory = solve(problem, "euler", 3, record=record)
        with pytest.raises(ActrelaxError, match=r"was not recorded with all its units.*: pass record=True to solve\."):
            scene_of(trajectory)
    trajectory = solve(problem, "euler", 3, record=True)
    for samples in (0, 4):
        with pytest.raises(ActrelaxError, match=f"between 1 and 3, the relaxation's batch, got {samples}"):
            scene_of(trajectory, samples=samples)


def test_a_network_with_cycles():
    """A population that only feeds a cycle is farther from the output; gradients are those of the held rates."""
    network = build("ei", input_shape=(5,), generator=0)
    x, y = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)), torch.arange(3)
    problem = RelaxationProblem.from_batch(network, settle(network, x, Settle(Steps(3, eta=0.5))), y)
    settled = solve(problem, "equilibrium", Steps.until(1e-12, dt=1.0)).final
    for name in network.hidden:
        assert relative_error(gradients_of(problem)[name], settled[name]) < 1e-10
    scene = scene_of(solve(problem, "euler", 12, eta=0.2, record=True))
    assert {name: shown.hops for name, shown in scene.populations.items()} == {"excitatory": 1, "inhibitory": 2}
    assert scene.no_law.startswith("the closed form needs a network without cycles")
