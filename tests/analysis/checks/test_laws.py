"""SciPy's distributions equal the powers of the schemes' matrices, and predict the relaxation."""

import pytest
import torch
from modules import MODULES
from networks import graph_case, mlp_case
from torch import nn

from actrelax.analysis.checks.laws import CapturedLinearRelaxation, LinearRelaxation, law_of
from actrelax.models.engines import BRIAN2, INTEGRATORS, SCIPY, integrator_named, solve
from actrelax.models.integrators import chain_matrix, coefficients
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

TIMED = [name for name, scheme in INTEGRATORS.items() if scheme.takes_time]
EVERY = [*TIMED, *(f"brian2:{method}" for method in BRIAN2), *(f"scipy:{method}" for method in SCIPY)]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("eta", "steps"), [(0.2, 12), (0.1, 100), (0.7, 1), (1.0, 3), (1.5, 4), (0.2, 0), (0.1, 101), (0.3, 2000)]
)
def test_a_law_is_the_power_of_the_one_step_matrix(name, eta, steps):
    scheme, hops = integrator_named(name), 5
    law = law_of(scheme, eta, steps, hops)
    C = coefficients(scheme.transition, chain_matrix([1.0] * hops), eta, steps)
    assert law.weights == pytest.approx(C[0, :hops], rel=1e-9, abs=1e-14)
    assert law.tails == pytest.approx(C[:hops, hops][::-1], rel=1e-9, abs=1e-14)


def test_laws_are_named():
    names = {name: law_of(integrator_named(name), 0.2, 12, 3).name for name in EVERY}
    assert names["euler"] == names["exponential"] == names["brian2:rk4"] == "binomial law"
    assert names["sequential"] == "negative binomial law"
    assert names["exact"] == names["scipy:DOP853"] == "Poisson law"
    assert names["heun"] == names["rk4"] == "law of its stability function"


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("name", TIMED)
def test_predicts_the_relaxation(make, name):
    case = make()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, tau=3.0)
    linear = LinearRelaxation(problem)
    value, magnitude = linear.predict(law_of(INTEGRATORS[name], 0.2, 12, linear.hops))
    relaxed = solve(problem, name, eta=0.2, steps=12).final
    gradients = activity_gradients(case.network, case.x, case.y)
    for v in case.network.hidden:
        assert relative_error(relaxed[v], gradients[v]) > 1e-3
        assert relative_error(value[v], relaxed[v]) < 1e-13
        assert bool((magnitude[v] >= value[v].abs() * (1 - 1e-12)).all())


@pytest.mark.parametrize("name", TIMED)
def test_predicts_the_relaxation_of_any_module(name):
    """Hop by hop, as the matrix of the same network does; with a relay and a skip, as the relaxation does."""
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 3))
    x, y = torch.randn(3, 6), torch.tensor([0, 2, 1])
    pair = [Network.from_sequential(module, (6,)), Network.from_module(module, x)]
    problems = [RelaxationProblem.from_batch(network, x, y, tau=3.0) for network in pair]
    matrix, hop_by_hop = LinearRelaxation(problems[0]), CapturedLinearRelaxation(problems[1])
    law = law_of(INTEGRATORS[name], 0.2, 12, 2)
    expected, found = (linear.predict(law) for linear in (matrix, hop_by_hop))
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(pair[1].hidden, pair[0].hidden, strict=True):
            assert relative_error(ours[one], theirs[other]) < 1e-13
    case = MODULES["pre-activation"]
    network, x = Network.from_module(case.make(), case.stimuli()), case.stimuli()
    assert network.relays
    problem = RelaxationProblem.from_batch(network, x, torch.arange(len(x)) % 3)
    linear = CapturedLinearRelaxation(problem)
    value, _ = linear.predict(law_of(INTEGRATORS[name], 0.2, 12, linear.hops))
    relaxed = solve(problem, name, eta=0.2, steps=12).final
    assert all(relative_error(value[v], relaxed[v]) < 1e-13 for v in network.hidden)


def test_the_fixed_point_is_backprops():
    case = graph_case()
    tau = {"conv1": 2.0, "hidden2": torch.linspace(1.0, 3.0, 6)}
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, tau=tau)
    found, gradients = LinearRelaxation(problem).fixed_point(), activity_gradients(case.network, case.x, case.y)
    for v in case.network.hidden:
        assert relative_error(found[v], gradients[v]) < 1e-12


def test_tails_are_relative_to_themselves():
    """Small tails are accurate relative to themselves, where 1 - cumsum would be rounding error."""
    law = law_of(INTEGRATORS["rk4"], 0.001, 1, 5)
    assert law.tails[3] == pytest.approx(0.001**4 / 24, rel=1e-9)
    assert law.tails[0] == pytest.approx(0.001, rel=1e-3)
    assert law.tails[4] == 0  # one step of four stages reaches four hops
