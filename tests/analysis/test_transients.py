"""Errors rise before they decay, within the bound of the closed form."""

from dataclasses import replace

import pytest
import torch
from networks import deep_case, graph_case

from actrelax.analysis.convergence import errors_over_time
from actrelax.analysis.transients import error_bounds, growth
from actrelax.models.closed_form import uncovered
from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.problem import RelaxationProblem

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.takes_time]


def expanding():
    """Return a chain whose feedback maps double their input, for samples that are almost learned.

    Gradients of the upper layers are then much smaller than activities, which grow on their way down.
    """
    case = deep_case(8, 2.0)
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions="random-feedback")
    problem = replace(problem, clamped=1e-3 * problem.clamped)
    return problem, solve(problem, "equilibrium").final


@pytest.mark.parametrize("eta", [0.1, 0.5])
@pytest.mark.parametrize("integrator", STEPPED)
def test_no_error_exceeds_its_bound(integrator, eta):
    problem, gradients = expanding()
    bounds = error_bounds(problem, gradients)
    measured = errors_over_time(problem, gradients, integrator=integrator, eta=eta, steps=200).recorded
    rises = {name: max(errors) / errors[0] for name, errors in measured.items()}
    assert max(rises.values()) > 3
    for name, errors in measured.items():
        assert max(errors) <= bounds[name] * (1 + 1e-9)
        # the bound must be tight: the coefficients of the closed form peak at about 1 / sqrt(n)
        assert bounds[name] < 10 * max(errors)


def test_the_bound_is_reached():
    """At eta = 1 each Euler step moves all activities down by one layer without loss."""
    problem, gradients = expanding()
    measured = errors_over_time(problem, gradients, integrator="euler", eta=1.0, steps=10).recorded
    assert error_bounds(problem, gradients) == pytest.approx({name: float(max(e)) for name, e in measured.items()})


def test_the_highest_layer_has_nothing_above_it():
    problem, gradients = expanding()
    highest = problem.network.hidden[-1]
    measured = errors_over_time(problem, gradients, integrator="euler", steps=5).recorded[highest]
    assert error_bounds(problem, gradients)[highest] == pytest.approx(float(measured[0]))


def test_on_a_graph():
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, 5 * case.x, case.y)
    gradients = activity_gradients(case.network, 5 * case.x, case.y)
    bounds = error_bounds(problem, gradients)
    measured = errors_over_time(problem, gradients, integrator="euler", steps=100).recorded
    for name, errors in measured.items():
        assert max(errors) <= bounds[name] * (1 + 1e-9)


@pytest.mark.filterwarnings("ignore:eta is 1.5, above 1")
@pytest.mark.parametrize("eta", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("integrator", ["euler", "sequential", "heun", "rk4"])
def test_growth_is_that_of_feedback_that_only_passes_on(integrator, eta):
    """A chain of single units with the worst signs of the errors, by steps."""
    depth, steps = 6, 40
    case = deep_case(depth + 1, 1.0, width=1, activation="identity")
    with torch.no_grad():
        for p in case.network.projections.values():
            if p.feedback is not None:
                p.feedback.fill_(1.0)
    problem = RelaxationProblem.from_batch(
        case.network, case.x[:1], torch.zeros(1, 1), loss="sum-of-squares", assumptions="random-feedback"
    )
    assert uncovered(problem) is None
    quiet = dict.fromkeys(case.network.hidden, torch.zeros(1, 1, dtype=case.x.dtype))
    columns = []
    for name in case.network.hidden:
        start = quiet | {name: torch.ones_like(quiet[name])}
        unit = RelaxationProblem(
            case.network, problem.feedforward, 0 * problem.clamped, problem.assumptions, start=start
        )
        recorded = solve(unit, integrator, eta=eta, steps=steps, record=case.network.hidden)
        columns.append(torch.stack([recorded[hidden].flatten() for hidden in case.network.hidden]))
    largest = float(torch.stack(columns).abs().sum(0).max())
    assert growth(integrator, eta=eta, depth=depth, steps=steps) == pytest.approx(largest, rel=1e-9)
    assert (largest > 2) == (eta == 1.5 and integrator != "rk4")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"eta": -0.1}, "eta must be a positive number, got -0.1."),
        ({"depth": 0}, "depth must be a whole number, 1 or more, got 0."),
        ({"steps": -3}, "steps must be a whole number, 0 or more, got -3."),
    ],
)
def test_growth_of_no_relaxation(given, sentence):
    with pytest.raises(ActrelaxError) as refused:
        growth("euler", **({"eta": 0.5, "depth": 3, "steps": 10} | given))
    assert str(refused.value) == sentence


def test_beyond_one_euler_grows_with_depth():
    assert growth("euler", eta=1.0, depth=20, steps=200) == pytest.approx(1)
    assert growth("euler", eta=1.5, depth=20, steps=400) > 1e7
