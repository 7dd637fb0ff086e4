"""Initial part and clamp's part, each from a separate relaxation: without a clamp, and from silence."""

import math
from dataclasses import replace

import pytest
import torch
from modules import MODULES
from networks import graph_case, mlp_case

from actrelax.analysis.initial_state_share import contamination
from actrelax.models.engines import solve
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem


@pytest.mark.parametrize("integrator", ["euler", "sequential", "rk4"])
@pytest.mark.parametrize("make", [mlp_case, graph_case])
def test_left_and_come_are_what_two_relaxations_find(make, integrator):
    case = make()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    at = [0, 3, 12]
    found = contamination(problem, integrator, dt=0.2, at=at)
    unclamped = solve(replace(problem, clamped=0 * problem.clamped), integrator, dt=0.2, steps=12, record=True)
    silent = solve(replace(problem, start="zero"), integrator, dt=0.2, steps=12, record=True)
    for name in case.network.hidden:
        for n, ratio in zip(at, found[name], strict=True):
            come = torch.linalg.vector_norm(silent[name][n])
            if come == 0:
                assert math.isinf(ratio)
            else:
                assert ratio == pytest.approx(float(torch.linalg.vector_norm(unclamped[name][n]) / come), rel=1e-9)
    assert found["hidden1"][2] > 2 * found[case.network.hidden[-1]][2] > 0


def test_nothing_is_left_from_zero():
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, start="zero")
    assert contamination(problem, "euler", dt=0.1, at=[50])["hidden1"] == [0.0]


@pytest.mark.parametrize("name", ["residual", "pre-activation", "transformer"])
def test_captured_networks(name):
    """What two relaxations find: the part of the initial state is the relaxation with a clamp of 0."""
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli()).eval()
    problem = RelaxationProblem.from_batch(network, case.stimuli(3), torch.tensor([0, 1, 2]))
    left = solve(replace(problem, clamped=0 * problem.clamped), "euler", 12, eta=0.2, evaluation="stepped")
    come = solve(replace(problem, start="zero"), "euler", 12, eta=0.2, evaluation="stepped")
    for population, (ratio,) in contamination(problem, "euler", dt=0.2, at=[12]).items():
        expected = left.final[population].norm() / come.final[population].norm()
        assert ratio == pytest.approx(float(expected), rel=1e-9)
