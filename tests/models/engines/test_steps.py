"""Step size and number of steps: dt or eta, steps or duration, or a tolerance. Each refusal is one sentence."""

import copy
import math
import pickle

import numpy as np
import pytest
from networks import mlp_case

from actrelax.models.engines import PAPERS, Steps, solve
from actrelax.models.engines.steps import as_steps, step_size
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


@pytest.mark.parametrize(
    "text",
    [
        "Steps()",
        "Steps(0)",
        "Steps(100, eta=0.1)",
        "Steps(7, dt=2.5)",
        "Steps(dt=1.0, duration=200.0)",
        "Steps(eta=0.5)",
        "Steps.until(1e-06, of='activity', most=10000)",
        "Steps.until(0.001, of='gradient', eta=0.1, most=10000)",
        "Steps.until(0.001, of='change', dt=2.0, most=1)",
    ],
)
def test_the_repr_is_the_call(text):
    steps = eval(text, {"Steps": Steps})
    assert repr(steps) == text
    for same in (pickle.loads(pickle.dumps(steps)), copy.deepcopy(steps), eval(text, {"Steps": Steps})):
        assert same == steps
        assert hash(same) == hash(steps)


def test_a_number_of_numpys_is_a_number():
    steps = Steps(np.int64(7), eta=np.float32(0.5))
    assert (steps, type(steps.number)) == (Steps(7, eta=0.5), int)
    assert Steps.until(most=np.int8(7)) == Steps.until(1e-6, of="activity", most=7)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Steps(-1), r"^steps must be a whole number, 0 or more, got -1\.$"),
        (lambda: Steps(2.5), r"^steps must be a whole number, 0 or more, got 2\.5\.$"),
        (lambda: Steps("auto"), r"^steps must be a whole number, 0 or more, got 'auto'\.$"),
        (lambda: Steps(3, duration=1.0), r"^a number of steps and duration exclude each other: give one of them\.$"),
        (lambda: Steps(dt=0.1, eta=0.1), r"^dt and eta exclude each other: give one of them\.$"),
        *[
            (
                lambda name=name, value=value: Steps(3, **{name: value}),
                rf"^{name} must be a positive number, got {said}\.$",
            )
            for name in ("dt", "eta")
            for value, said in ((0.0, r"0\.0"), (-1, "-1"), (math.inf, "inf"), (math.nan, "nan"), ("1", "'1'"))
        ],
        (lambda: Steps(duration=-1.0), r"^duration must be a number, 0 or more, got -1\.0\.$"),
        (lambda: Steps(duration=math.inf), r"^duration must be a number, 0 or more, got inf\.$"),
        (lambda: Steps(duration="1"), r"^duration must be a number, 0 or more, got '1'\.$"),
        (lambda: Steps(tolerance=0.1), r"^a tolerance needs a largest number of steps: use Steps\.until\.$"),
        *[
            (lambda value=value: Steps.until(value), rf"^tolerance must lie between 0 and 1, got {said}\.$")
            for value, said in ((0.0, r"0\.0"), (1, "1"), (math.nan, "nan"), ("a", "'a'"))
        ],
        (lambda: Steps.until(of="w"), r"^unknown of 'w'; known: activity, gradient, change\.$"),
        (lambda: Steps.until(most=0), r"^most must be a whole number, 1 or more, got 0\.$"),
        (lambda: Steps.until(most=2.5), r"^most must be a whole number, 1 or more, got 2\.5\.$"),
        (lambda: Steps.until(dt=0.1, eta=0.1), r"^dt and eta exclude each other: give one of them\.$"),
    ],
)
def test_what_is_refused(make, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        make()


def test_as_steps():
    assert as_steps(PAPERS, {}) is PAPERS
    assert as_steps(PAPERS, {"eta": None, "dt": None}) is PAPERS
    assert as_steps(PAPERS, {"eta": 0.3}) == Steps(100, eta=0.3)
    assert as_steps(PAPERS, {"dt": 0.3}) == Steps(100, dt=0.3)
    assert as_steps(PAPERS, {"dt": 0.3, "duration": 3.0}) == Steps(dt=0.3, duration=3.0)
    assert as_steps(PAPERS, {"duration": 3.0}) == Steps(duration=3.0)
    assert as_steps(7, {"eta": 0.3}) == Steps(7, eta=0.3)
    assert as_steps(Steps(7), {"eta": None}) == Steps(7)


@pytest.mark.parametrize(
    ("steps", "shorthand", "sentence"),
    [
        (
            Steps(3),
            {"eta": 0.2},
            r"^eta can't be combined with Steps\(3\): pass Steps\(..., eta=0\.2\)\.$",
        ),
        (
            Steps(3, eta=0.1),
            {"dt": 0.2, "duration": 4.0},
            r"^dt and duration can't be combined with Steps\(3, eta=0\.1\): "
            r"pass Steps\(..., dt=0\.2, duration=4\.0\)\.$",
        ),
        (Steps.until(), {"eta": 0.2}, r"^eta can't be combined with Steps\.until\(1e-06, of='activity', most=10"),
        (3, {"duration": 4.0}, r"^a number of steps and duration exclude each other: give one of them\.$"),
        ("auto", {}, r"^steps must be a whole number, 0 or more, got 'auto'\.$"),
        (3, {"tolerance": 0.1}, r"^unknown keyword 'tolerance'; known: eta, dt, duration\.$"),
    ],
)
def test_what_is_refused_of_a_call(steps, shorthand, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        as_steps(steps, shorthand)
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), "euler", steps, **shorthand)


@pytest.mark.parametrize(
    "make", [lambda: Steps(10**20), lambda: Steps.until(1e-6, most=10**20), lambda: Steps(10**400)]
)
def test_more_steps_than_a_time_can_count(make):
    with pytest.raises(ActrelaxError, match=r"^(steps|most) must be at most 2\*\*53, got 1"):
        make()


@pytest.mark.parametrize(("given", "size"), [({}, 0.2), ({"eta": 0.3}, 0.6), ({"dt": 0.3}, 0.3)])
def test_the_step_size_is_that_of_a_relaxation(given, size):
    steps = Steps(3, **given)
    assert step_size(steps, 2.0) == pytest.approx(size)
    times = solve(problem_of(mlp_case(), tau=2.0), "euler", steps, record=True).times
    assert float(times[1]) == pytest.approx(size)
