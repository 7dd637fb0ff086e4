"""Look-up by name, and validation of numbers."""

import numpy as np
import pytest
import torch

from actrelax.models._names import is_number, known, look_up, whole_number, whole_steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import ACTIVATIONS


def test_a_known_name_is_returned():
    assert known("integrator", "rk4", ["euler", "rk4"]) == "rk4"


@pytest.mark.parametrize("name", ["rk5", None, 4, ["euler"]])
def test_an_unknown_name_is_refused_with_a_list_of_the_known_ones(name):
    with pytest.raises(ActrelaxError) as refused:
        known("integrator", name, iter(["euler", "rk4"]), also="scipy:METHOD")
    assert str(refused.value) == f"unknown integrator {name!r}; known: euler, rk4, scipy:METHOD."
    with pytest.raises(ActrelaxError) as refused:
        known("population", name, ["hidden1"], where="tau")
    assert str(refused.value) == f"tau names an unknown population {name!r}; known: hidden1."


def test_an_entry_is_found_by_name_or_passed_through():
    tanh = ACTIVATIONS["tanh"]
    assert look_up("activation", "tanh", ACTIVATIONS) is tanh
    assert look_up("activation", tanh, ACTIVATIONS) is tanh
    with pytest.raises(ActrelaxError, match=r"^unknown activation <ufunc 'tanh'>; known: .*\.$"):
        look_up("activation", np.tanh, ACTIVATIONS)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.2), np.int64(3), float("nan")])
def test_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", ["1", None, 1j, np.ones(1), torch.ones(())])
def test_what_is_no_number(value):
    assert not is_number(value)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), torch.tensor(3)])
def test_whole_numbers_become_ints(value):
    number = whole_number("steps", value, least=3)
    assert (number, type(number)) == (3, int)


@pytest.mark.parametrize("value", [2, np.int64(-1), 3.0, "3", None, [3]])
def test_what_is_no_whole_number_or_too_small(value):
    with pytest.raises(ActrelaxError) as refused:
        whole_number("steps", value, least=3)
    assert str(refused.value) == f"steps must be a whole number, 3 or more, got {value!r}."


def test_times_in_whole_steps():
    assert [whole_steps("duration", time, 0.1) for time in (0.0, 0.1, 0.3, 1e6)] == [0, 1, 3, 10_000_000]


@pytest.mark.parametrize(("time", "dt"), [(1e300, 1e-300), (1e20, 1.0), (1e16, 1.0)])
def test_more_steps_than_a_time_can_count(time, dt):
    with pytest.raises(ActrelaxError, match=r"^duration must be at most 2\*\*53 dt, got 1e\+"):
        whole_steps("duration", time, dt)
