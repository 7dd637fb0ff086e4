"""Problems that Brian2 can't run are refused in one sentence."""

import re

import pytest
from brian2.stateupdaters.base import StateUpdateMethod
from networks import mlp_case

from actrelax.models.engines import BRIAN2, unsupported
from actrelax.models.problem import RelaxationProblem, UnitDynamics


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_every_updater_that_brian2_has_is_known():
    assert set(StateUpdateMethod.stateupdaters) == set(BRIAN2)


@pytest.mark.parametrize(
    ("fields", "integrator", "sentence"),
    [
        ({}, "sequential", r"^Brian2 has no such integrator; use euler, exponential, \"brian2:rk4\""),
        ({}, "scipy:RK45", r'^"scipy:RK45" is a method of another engine\.$'),
        ({"noise": 0.1}, "brian2:rk4", r"^it does not support noise"),
        ({"clip": 1.0}, "brian2:exact", r"^Brian2's exact does not accept the equations: "),
        ({"assumptions": "continuous"}, "euler", r"^continuous plasticity changes weights during the relaxation"),
        (
            {"dynamics": {"hidden1": UnitDynamics.second_order(1.0, 0.5)}},
            "brian2:exact",
            r"^Brian2's exact does not solve units with mutually coupled variables",
        ),
    ],
)
def test_what_is_refused(fields, integrator, sentence):
    reason = unsupported(problem_of(mlp_case(), **fields), integrator, "brian2")
    assert reason is not None
    assert re.match(sentence, reason)
