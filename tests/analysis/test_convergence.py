"""Errors over time are the relative errors of the states of `solve`."""

import pytest
import torch
from networks import deep_case, graph_case, mlp_case

from actrelax.analysis.convergence import (
    distances,
    errors_over_time,
    predicted_errors,
    predicted_steps,
    spread_out,
    stays_below,
)
from actrelax.models.closed_form import remainders
from actrelax.models.engines import Steps, integrator_named, schedule, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Design, Network, build_module
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import Record, relative_error


def test_errors_over_time():
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    gradients = activity_gradients(case.network, case.x, case.y)
    measured = errors_over_time(problem, gradients, integrator="euler", steps=400, eta=0.1, every=100)
    states = solve(problem, "euler", steps=400, eta=0.1, record=Record(every=100)).recorded
    for name in case.network.hidden:
        expected = [relative_error(x, gradients[name]) for x in states[name]]
        assert torch.equal(measured.recorded[name], torch.tensor(expected))
        assert expected[0] > 0.1
        assert expected[-1] < 1e-9


@pytest.mark.parametrize("length", [Steps(30, eta=0.1), Steps.until(1e-2, eta=0.1), Steps.until(1e-3, of="gradient")])
@pytest.mark.parametrize("integrator", ["euler", "DOP853"])
def test_distances(length, integrator):
    """Distances are those of the steps; `Steps.until` counts as its computed number of steps, not as equilibrium."""
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    steps, found = distances(problem, integrator, length)
    scheme = integrator_named(integrator)
    assert steps == schedule(problem, scheme, length).measured(problem, scheme).steps
    stepped = solve(problem, integrator, eta=0.1, steps=steps, evaluation="stepped").final
    gradients = activity_gradients(case.network, case.x, case.y)
    for name in case.network.hidden:
        assert found[name]["error"] == pytest.approx(relative_error(stepped[name], gradients[name]), rel=1e-9)
        assert found[name]["error"] > (1e-6 if length.of == "activity" else 1e-9)
    lowest = case.network.hidden[0]
    assert found[lowest]["initial"] == remainders(problem, scheme, dt=0.1, steps=steps)[lowest]
    assert (found[lowest]["initial"] < 1e-2) == (length.tolerance is not None)


@pytest.mark.parametrize(
    "fields",
    [
        {"dynamics": {"hidden1": UnitDynamics(A=((-1.0,),), b=(2.0,), c=(1.0,))}},
        {"noise": 1e-9, "input_noise": 1e-9, "tau": {"hidden2": 2.0, "input": 3.0}},
    ],
    ids=["gain of units", "noise"],
)
def test_distances_are_from_where_the_relaxation_rests(fields):
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)
    for found in distances(problem, "euler", Steps(400, dt=0.1)).by_population.values():
        assert found["error"] < 1e-7


def test_distances_need_a_known_equilibrium():
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions="unfrozen-relaxation")
    with pytest.raises(ActrelaxError, match=r'^"equilibrium" can\'t be used here: it needs a constant activity gain'):
        distances(problem, "euler", Steps(400, dt=0.1))


@pytest.mark.parametrize("integrator", ["sequential", "rk4", "scipy:DOP853"])
def test_predicted_errors(integrator):
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    gradients = activity_gradients(case.network, case.x, case.y)
    errors = predicted_errors(problem, gradients, integrator, dt=0.2, at=spread_out(40, 9))
    stepped = solve(problem, integrator, dt=0.2, steps=40, record=Record(every=5)).error(gradients)
    for name in case.network.hidden:
        assert errors[name] == pytest.approx(stepped[name].tolist(), rel=1e-4)
        assert errors[name][0] > 10 * errors[name][-1]


def test_spread_out():
    assert spread_out(40, 9) == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    assert spread_out(2) == [0, 1, 2]


@pytest.mark.parametrize(
    ("depth", "eta", "integrator"), [(2, 0.1, "euler"), (5, 0.5, "rk4"), (20, 0.1, "sequential"), (50, 0.5, "euler")]
)
def test_predicted_steps_are_the_measured_ones(depth, eta, integrator):
    """Predictions hold for every population of a deep network, for shrinking and for growing gradients."""
    tolerance, gain = 1e-3, {2: 0.5, 5: 1.3, 20: 0.8, 50: 1.1}[depth]
    case = deep_case(depth, gain)
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions="random-feedback")
    gradients = solve(problem, "equilibrium").final
    predicted = predicted_steps(problem, gradients, integrator, dt=eta, tolerance=tolerance)
    steps = max(predicted.values()) + 50
    measured = errors_over_time(problem, gradients, integrator=integrator, eta=eta, steps=steps)
    found = {name: stays_below(errors, tolerance) for name, errors in measured.recorded.items()}
    assert found == predicted
    assert (predicted["hidden1"] > predicted[f"hidden{depth - 1}"]) == (depth > 2)


def test_predicted_steps_on_a_graph():
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    gradients = activity_gradients(case.network, case.x, case.y)
    predicted = predicted_steps(problem, gradients, "euler", dt=0.1, tolerance=1e-6)
    measured = errors_over_time(problem, gradients, integrator="euler", eta=0.1, steps=400)
    assert {name: stays_below(errors, 1e-6) for name, errors in measured.recorded.items()} == predicted
    few = predicted_steps(problem, gradients, "euler", dt=0.1, tolerance=1e-6, most=min(predicted.values()) - 1)
    assert set(few.values()) == {None}
    with pytest.raises(ActrelaxError, match="steps can be predicted for dt / tau up to 1, got"):
        predicted_steps(problem, gradients, "euler", dt=1.5, tolerance=1e-6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"dt": -0.5}, "dt must be a positive number, got -0.5."),
        ({"tolerance": -1.0}, "tolerance must lie between 0 and 1, got -1.0."),
        ({"tolerance": float("nan")}, "tolerance must lie between 0 and 1, got nan."),
        ({"most": -1}, "most must be a whole number, 1 or more, got -1."),
    ],
)
def test_steps_are_not_predicted_from_what_is_out_of_range(given, sentence):
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    gradients = activity_gradients(case.network, case.x, case.y)
    with pytest.raises(ActrelaxError) as refused:
        predicted_steps(problem, gradients, "euler", **({"dt": 0.1, "tolerance": 1e-3} | given))
    assert str(refused.value) == sentence


def test_no_numbers_of_steps_have_no_errors():
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    gradients = activity_gradients(case.network, case.x, case.y)
    assert predicted_errors(problem, gradients, "euler", dt=0.1, at=[]) == {name: [] for name in case.network.hidden}


@pytest.mark.parametrize(
    ("errors", "first"),
    [
        ([0.1, 0.2], 0),
        ([2.0, 0.1, 3.0, 0.1, 0.1], 3),  # the first small one does not count
        ([0.1, 0.5], None),  # below, not at
        ([0.1, float("nan"), 0.1], 2),
        ([0.1, float("nan")], None),
    ],
)
def test_stays_below(errors, first):
    assert stays_below(errors, 0.5) == first


@pytest.mark.parametrize("name", ["digits-resnet-8", "digits-vit"])
def test_captured_networks(name):
    """BatchNorm over the batch, LayerNorm in relays: errors follow the closed form, and end as predicted."""
    torch.manual_seed(0)
    network = Network.from_module(build_module(name, design=Design(width=4), generator=0), torch.rand(3, 1, 8, 8))
    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    gradients = activity_gradients(network, x, y)
    problem = RelaxationProblem.from_batch(network, x, y)
    found = errors_over_time(problem, gradients, "sequential", 30, eta=0.2, every=10)
    predicted = predicted_errors(problem, gradients, "sequential", dt=0.2, at=[0, 10, 20, 30])
    steps = predicted_steps(problem, gradients, "sequential", dt=0.2, tolerance=1e-3)
    assert {*predicted} == {*steps} == {*network.hidden}
    end = solve(problem, "sequential", max(steps.values()), eta=0.2)
    for population, errors in predicted.items():
        assert found.recorded[population].tolist() == pytest.approx(errors, rel=1e-9)
        assert relative_error(end.final[population], gradients[population]) < 1e-3
    told = distances(problem, "sequential", Steps(30, eta=0.2)).by_population
    for population in network.hidden:
        assert told[population]["error"] == pytest.approx(predicted[population][-1], rel=1e-9)
