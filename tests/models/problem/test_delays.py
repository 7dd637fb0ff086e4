"""Delays by projection, by hand. What they do to a relaxation is tested in engines/test_delays.py."""

import pytest

from actrelax.models.errors import ActrelaxError
from actrelax.models.problem.delays import Delays


def test_one_time_is_that_of_all_projections():
    assert Delays(0.3, ["a", "b"]).times == {"a": 0.3, "b": 0.3}
    assert Delays(0.0, ["a", "b"]).times == {}
    assert Delays({"a": 0.7, "b": 0}, ["a", "b", "c"]).times == {"a": 0.7}


def test_steps_are_whole_numbers_of_dt():
    assert Delays(0.3, ["a", "b"]).steps(0.1) == {"a": 3, "b": 3}  # though 0.3 / 0.1 < 3
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
