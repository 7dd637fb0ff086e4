"""Ends of relaxations: settled, after a number of steps, or by divergence."""

import pytest
import torch
from networks import exploding_case, mlp_case

from actrelax.models.engines import SciPyOptions, Steps, TorchOptions, solve
from actrelax.models.problem import ForwardProblem, RelaxationProblem
from actrelax.models.results import DivergenceError, Status, relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def residual(problem, state):
    """Return max |u - x| of each leaky population, relative to its largest activity."""
    inputs = {v: problem.unit_input(v, state) for v in problem.units}
    return {v: float((u - state[v]).abs().max() / state[v].abs().max()) for v, u in inputs.items()}


OWN_TAUS = {"hidden1": torch.linspace(0.3, 30, 7, dtype=torch.float64), "hidden2": 0.5, "hidden3": 4.0}


@pytest.mark.parametrize(("integrator", "dt"), [("euler", 0.2), ("exponential", 0.2), ("exponential", 5.0)])
def test_the_residual_is_measured_with_each_neurons_own_time_constant(integrator, dt):
    """Fast units with an input that moves slowly, and slow units that hardly move: both count by |u - x|."""
    case, tolerance = mlp_case(gain=2.0), 1e-5
    for problem in (
        problem_of(case, tau=OWN_TAUS, start="zero"),
        ForwardProblem(case.network, case.x, tau=OWN_TAUS | {"output": 1.0}),
    ):
        found = solve(problem, integrator, Steps.until(tolerance, dt=dt), record=True)
        assert found.status is Status.SETTLED
        before = [{v: found[v][k] for v in problem.units} for k in (-3, -2)]
        last = max(residual(problem, before[1]).values())
        assert 0.5 * tolerance < last <= 1.001 * tolerance  # |u - x| before the last step, which led to the change
        assert max(residual(problem, before[0]).values()) > tolerance


def test_scipy_ends_at_the_same_residual():
    problem = problem_of(mlp_case(gain=2.0), tau=OWN_TAUS, start="zero")
    found = solve(problem, "RK45", Steps.until(1e-5, dt=0.2), options=SciPyOptions(rtol=1e-9, atol=1e-12))
    assert found.status is Status.SETTLED
    assert max(residual(problem, found.state).values()) == pytest.approx(1e-5, rel=1e-2)


@pytest.mark.parametrize("start", ["feedforward", "zero"])
def test_stops_when_every_population_has_settled(start):
    case = mlp_case(gain=0.01)  # gradients shrink by 10 per layer: an absolute criterion would stop before they change
    problem = problem_of(case, start=start)
    exact = solve(problem, "equilibrium").final
    assert exact["hidden1"].abs().max() < 1e-3
    trajectory = solve(problem, "euler", Steps.until(1e-8, of="change", eta=0.2, most=1000))
    assert trajectory.status is Status.SETTLED
    assert 50 < trajectory.steps < 300
    for name, x in exact.items():
        assert relative_error(trajectory.final[name], x) < 1e-6
    with pytest.warns(UserWarning, match=f"^not settled after {trajectory.steps - 1} steps"):
        one_less = solve(problem, "euler", Steps.until(1e-8, of="change", eta=0.2, most=trajectory.steps - 1))
    assert one_less.status is Status.NOT_SETTLED
    assert one_less.steps == trajectory.steps - 1


def test_divergence_names_population_and_step_and_keeps_what_was_reached(generator):
    case = exploding_case(generator)
    problem = problem_of(case, assumptions="random-feedback", start="zero")
    with pytest.raises(DivergenceError) as caught:
        solve(problem, "euler", steps=50, eta=0.5, record=True)
    assert str(caught.value) == (
        'population "hidden1" became non-finite at step 3 of 50: '
        "lower eta, the learning rate or the scale of the feedback weights."
    )
    reached = caught.value.trajectory
    assert (reached.status, reached.steps, reached.times) == (Status.DIVERGED, 2, (0.0, 0.5, 1.0))
    assert torch.isfinite(reached.final["hidden2"]).all()
    assert reached.final["hidden2"].any()
    assert reached.recorded["hidden2"].shape[0] == 3


def test_bad_values_at_the_start_are_said_to_be_there():
    case = mlp_case()
    case.x[1, 2] = float("nan")
    with pytest.raises(DivergenceError, match=r'^population "input" is non-finite at the start: look for inf and nan'):
        solve(problem_of(case))


def test_without_a_look_divergence_is_left_to_the_caller():
    case = mlp_case()
    case.x[1, 2] = float("nan")
    final = solve(problem_of(case), options=TorchOptions(check_finite=False)).final
    assert torch.isnan(final["hidden1"][1]).all()
    assert torch.isfinite(final["hidden1"][[0, 2]]).all()
