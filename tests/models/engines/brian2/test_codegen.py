"""Brian2's target, precision and device, which belong to the user."""

import brian2 as b2
import numpy as np
import pytest
from networks import mlp_case

from actrelax.models.engines import solve
from actrelax.models.engines.brian2 import generating, target_named, targets
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

DT, STEPS = 0.2, 12


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_the_users_precision_and_device_are_left_alone():
    problem = problem_of(mlp_case())
    expected = solve(problem, "euler", dt=DT, steps=STEPS).final
    b2.prefs.core.default_float_dtype = np.float32
    try:
        found = solve(problem, "euler", dt=DT, steps=STEPS, engine="brian2").final
        assert all(relative_error(found[name], x) < 1e-14 for name, x in expected.items())
        assert b2.prefs.core.default_float_dtype == np.float32
    finally:
        b2.prefs.core.default_float_dtype = np.float64


def test_a_standalone_device_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(b2, "get_device", lambda: object())
    with pytest.raises(ActrelaxError, match=r"^Brian2 is set to write a standalone program: call brian2\.set_device"):
        solve(problem_of(mlp_case()), "euler", steps=1, engine="brian2")


def test_targets_are_chosen_by_name_for_a_block():
    assert target_named("numpy") == "numpy" in targets()
    before = b2.prefs.codegen.target
    with generating("numpy"):
        assert b2.prefs.codegen.target == "numpy"
    assert b2.prefs.codegen.target == before
    with pytest.raises(ActrelaxError, match=r"^unknown Brian2 target 'cpp_standalone'; known: .*numpy"):
        target_named("cpp_standalone")
