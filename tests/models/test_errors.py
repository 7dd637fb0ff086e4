"""Warnings point to the line of the user's program, and allocator errors become one sentence."""

import warnings

import numpy as np
import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import Steps, solve
from actrelax.models.errors import ActrelaxError, enough_memory, warn
from actrelax.models.learning import BackwardOptions, relax_backward, relax_continuously
from actrelax.models.network import build
from actrelax.models.problem import RelaxationProblem

THREE = Steps.until(most=3)
UNSETTLED = "^not settled after 3 steps"
UNSTABLE = r"^eta is 1\.5, above 1"
TRANSIENT = "^continuous plasticity from a start other than zero"


def by_solve(case, **options):
    solve(RelaxationProblem.from_batch(case.network, case.x, case.y), **options)


def by_relax_backward(case, **options):
    relax_backward(case.network, case.x, case.y, **options)


def by_relax_continuously(case, **options):
    relax_continuously(case.network, case.x, case.y, rate=0.1, **options)


@pytest.mark.parametrize(
    ("call", "options", "sentence"),
    [
        (by_solve, {"steps": THREE}, UNSETTLED),
        (by_solve, {"integrator": "euler", "eta": 1.5, "steps": 3}, UNSTABLE),
        (by_relax_backward, {"steps": THREE}, UNSETTLED),
        (by_relax_backward, {"steps": THREE, "options": BackwardOptions(evaluation="stepped")}, UNSETTLED),
        (by_relax_backward, {"integrator": "euler", "eta": 1.5, "steps": 3}, UNSTABLE),
        (by_relax_continuously, {"integrator": "euler", "eta": 1.5, "steps": 3}, UNSTABLE),
        (by_relax_continuously, {"start": "feedforward", "steps": 3}, TRANSIENT),
    ],
)
def test_warnings_point_at_the_callers_line(call, options, sentence):
    case = mlp_case()
    with pytest.warns(UserWarning, match=sentence) as caught:
        call(case, **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert caught[0].lineno == call.__code__.co_firstlineno + 1


def test_a_warning_without_a_caller_outside_is_given_all_the_same():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("warn('said.')", "library.py", "exec"), {"__name__": "actrelax.models.x", "warn": warn})
    assert [(str(w.message), w.filename) for w in caught] == [("said.", __file__)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(10**15),
        lambda: torch.zeros(10**18, 64),
        lambda: torch.zeros(10**20),
        lambda: np.zeros(10**15),
        lambda: np.zeros(10**19),
    ],
)
def test_what_needs_more_memory_than_there_is(make):
    with pytest.raises(ActrelaxError, match=r"^this needs more memory than there is: take less\.$"):  # noqa: SIM117
        with enough_memory("this", "take less"):
            make()


def test_other_errors_are_no_want_of_memory():
    with pytest.raises(RuntimeError, match=r"size mismatch|shapes cannot"), enough_memory("this", "take less"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_networks_and_delays_that_are_too_large():
    for name in ("mlp-3x10000000", "mlp-3x100000000000000000000"):
        with pytest.raises(ActrelaxError, match=r"^network 'mlp-.*' needs more memory than there is: choose a smaller"):
            build(name)
    with pytest.raises(ActrelaxError, match=r"has more than 10,000 layers: choose a smaller depth\.$"):
        build("mlp-100000000x1")
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, delays=1e12)
    with pytest.raises(ActrelaxError, match=r"^this relaxation needs more memory than there is: take smaller batches"):
        solve(problem, "euler", 3, dt=0.1)
