"""Delays by projection, by hand; integrators/test_delay_lines.py tests their effect on a relaxation."""

import pytest
from networks import mlp_case

from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.problem.delays import Delays


def test_one_time_is_that_of_all_projections():
    assert Delays(0.3, ["a", "b"]).times == {"a": 0.3, "b": 0.3}
    assert Delays(0.0, ["a", "b"]).times == {}
    assert Delays({"a": 0.7, "b": 0}, ["a", "b", "c"]).times == {"a": 0.7}


def test_steps_are_whole_numbers_of_dt():
    assert Delays(0.3, ["a", "b"]).steps(0.1) == {"a": 3, "b": 3}  # although 0.3 / 0.1 < 3
    assert Delays({"a": 0.7, "b": 0}, ["a", "b"]).steps(0.1) == {"a": 7}
    with pytest.raises(ActrelaxError, match=r"^the delay of 'b' must be a whole number of dt, got 0\.25 with"):
        Delays({"a": 0.3, "b": 0.25}, ["a", "b"]).steps(0.1)


@pytest.mark.parametrize("delay", [-0.1, float("inf"), float("nan"), "0.1", None])
def test_only_times_are_delays(delay):
    for given in (delay, {"a": delay}):
        with pytest.raises(ActrelaxError, match=r"^a delay must be a time, 0 or more, got "):
            Delays(given, ["a"]).check()


def test_unknown_projections_are_refused():
    with pytest.raises(ActrelaxError, match=r"^delays names an unknown feedback projection 'c'; known: a, b\.$"):
        Delays({"c": 1.0}, ["a", "b"]).check()


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_solve_refuses_part_of_a_step():
    problem = problem_of(mlp_case(), delays={"hidden2->hidden3": 0.5})
    with pytest.raises(
        ActrelaxError, match=r"^the delay of 'hidden2->hidden3' must be a whole number of dt, got 0\.5 with dt 0\.2\.$"
    ):
        solve(problem, "euler", dt=0.2)
    with pytest.raises(ActrelaxError, match=r"must be a whole number of dt, got 0\.5 with dt 2\.$"):
        solve(problem_of(mlp_case(), delays={"hidden2->hidden3": 0.5}, tau=20.0), "euler", dt=2.0)
    solve(problem, "euler", dt=0.1, steps=1)


@pytest.mark.parametrize(
    ("delays", "sentence"),
    [
        (-0.2, r"^a delay must be a time, 0 or more, got -0\.2\.$"),
        ({"hidden1->hidden2": float("inf")}, r"^a delay must be a time, 0 or more, got inf\.$"),
        ("0.2", r"^a delay must be a time, 0 or more, got '0\.2'\.$"),
        (
            {"input->hidden1": 0.2},
            r"^delays names an unknown feedback projection 'input->hidden1'; known: hidden1->hidden",
        ),
    ],
)
def test_a_problem_refuses_what_is_no_delay(delays, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(mlp_case(), delays=delays)
