"""Analyses refuse problems and steps for which they would fail somewhere inside, or compute without meaning."""

import pytest
import torch
from networks import mlp_case
from torch import nn

from actrelax.analysis import convergence, delays, fixed_points, long_time, noise, spectra, stability, transients
from actrelax.analysis.initial_state_share import contamination
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Network, Projection
from actrelax.models.problem import ForwardProblem, RelaxationProblem

PREDICTIONS = {
    "predicted_errors": lambda problem, gradients, dt, steps: convergence.predicted_errors(
        problem, gradients, "euler", dt=dt, at=[0, steps]
    ),
    "contamination": lambda problem, _, dt, steps: contamination(problem, "euler", dt=dt, at=[0, steps]),
    "noise_shares": lambda problem, _, dt, steps: noise.noise_shares(problem, dt=dt, steps=steps),
    "expected_noise_angles": lambda problem, _, dt, steps: noise.expected_noise_angles(problem, dt=dt, steps=steps),
    "delayed_state": lambda problem, _, dt, steps: delays.delayed_state(problem, dt=dt, steps=steps),
}
"""Predictions from a step and a number of steps."""


def of_samples(case, count=None):
    return RelaxationProblem.from_batch(case.network, case.x[:count], case.y[:count])


@pytest.mark.parametrize(
    ("dt", "steps", "sentence"),
    [
        (-0.5, 3, r"dt must be a positive number, got -0\.5\."),
        (float("nan"), 3, r"dt must be a positive number, got nan\."),
        (5.0, 3, r'eta must lie between 0 and 2 for "euler", got 5: take more steps of a smaller dt\.'),
        (0.1, -3, r"(each number in at|steps) must be a whole number, 0 or more, got -3\."),
        (0.1, 1.5, r"(each number in at|steps) must be a whole number, 0 or more, got 1\.5\."),
    ],
)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_steps_that_solve_refuses(name, dt, steps, sentence):
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    with pytest.raises(ActrelaxError, match=f"^{sentence}$"):
        PREDICTIONS[name](of_samples(case), gradients, dt, steps)


@pytest.mark.parametrize("name", ["predicted_errors", "contamination"])
def test_one_tau_per_neuron_has_no_closed_form(name):
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    tau = {"hidden1": torch.ones(7), "hidden2": 1.0, "hidden3": 1.0}
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, tau=tau)
    with pytest.raises(ActrelaxError, match=r"^the closed form needs one tau per population, got one per neuron"):
        PREDICTIONS[name](problem, gradients, 0.1, 3)


def test_a_sweep_without_time_has_no_errors_over_time():
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    with pytest.raises(ActrelaxError, match=r'^a relaxation over time is needed, and "equilibrium" takes none: name'):
        convergence.predicted_errors(of_samples(case), gradients, "equilibrium", dt=0.1, at=[1])


NEED_A_RELAXATION = {
    "errors_over_time": lambda p: convergence.errors_over_time(p, {}, "euler", 3),
    "predicted_errors": lambda p: convergence.predicted_errors(p, {}, "euler", dt=0.1, at=[1]),
    "predicted_steps": lambda p: convergence.predicted_steps(p, {}, "euler", dt=0.1, tolerance=0.1),
    "distances": convergence.distances,
    "error_bounds": lambda p: transients.error_bounds(p, {}),
    "noise_shares": lambda p: noise.noise_shares(p, dt=0.1, steps=3),
    "noise_variances": lambda p: noise.noise_variances(p, dt=0.1, steps=3),
    "delayed_state": lambda p: delays.delayed_state(p, dt=0.1, steps=3),
    "ending": lambda p: long_time.ending(p, "euler"),
    "linear_part": spectra.linear_part,
    "fixed_point": lambda p: fixed_points.fixed_point(p, {}),
    "stability": stability.stability,
    "stability, forward": lambda p: stability.stability(p, "forward"),
    "jacobian": stability.jacobian,
    "worst_time_constants": lambda p: stability.worst_time_constants(p, 1, 0),
}


@pytest.mark.parametrize("name", NEED_A_RELAXATION)
def test_a_forward_phase_is_no_relaxation(name):
    case = mlp_case()
    with pytest.raises(ActrelaxError) as refused:
        NEED_A_RELAXATION[name](ForwardProblem(case.network, case.x[:1]))
    said = "needs a RelaxationProblem, got a ForwardProblem: pass RelaxationProblem.from_batch(network, x, y)"
    assert said in str(refused.value)
    assert ('and phase="forward" for its' in str(refused.value)) == str(refused.value).startswith("stability")


@pytest.mark.parametrize(
    "name", ["delayed_state", "ending", "stability", "stability, forward", "jacobian", "worst_time_constants"]
)
def test_without_hidden_populations_nothing_relaxes(name):
    network = Network((4,), {"output": "identity"}, [Projection("input", "output", nn.Linear(4, 3))])
    problem = RelaxationProblem.from_batch(network, torch.rand(1, 4), torch.tensor([1]))
    with pytest.raises(ActrelaxError, match=r" needs a network with hidden populations, got one without: add a hidden"):
        NEED_A_RELAXATION[name](problem)
