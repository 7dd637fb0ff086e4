"""Options of the engines: refused values, and options listed by a trajectory."""

import math

import numpy as np
import pytest
from networks import mlp_case

from actrelax.models.engines import Brian2Options, SciPyOptions, TorchOptions, solve
from actrelax.models.engines.solve import ENGINES, OPTIONS
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem


def problem():
    case = mlp_case()
    return RelaxationProblem.from_batch(case.network, case.x, case.y)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rtol": 1e-17}, r"^rtol must lie between 2\.22e-14 and 1, got 1e-17\.$"),
        ({"rtol": 1.0}, r"^rtol must lie between 2\.22e-14 and 1, got 1\.0\.$"),
        ({"rtol": math.nan}, r"^rtol must lie between 2\.22e-14 and 1, got nan\.$"),
        ({"rtol": "a"}, r"^rtol must lie between 2\.22e-14 and 1, got 'a'\.$"),
        ({"atol": -1.0}, r"^atol must be 0 or positive, got -1\.0\.$"),
        ({"atol": math.inf}, r"^atol must be 0 or positive, got inf\.$"),
        ({"atol": [0.1]}, r"^atol must be 0 or positive, got \[0\.1\]\.$"),
        ({"max_evaluations": "a"}, r"^max_evaluations must be a whole number, 1 or more, got 'a'\.$"),
        ({"max_evaluations": 0}, r"^max_evaluations must be a whole number, 1 or more, got 0\.$"),
        ({"max_evaluations": 1e5}, r"^max_evaluations must be a whole number, 1 or more, got 100000\.0\.$"),
    ],
)
def test_what_scipys_options_refuse(options, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        SciPyOptions(**options)


def test_options_are_given_by_name():
    """By position, a tolerance would be taken for check_finite."""
    for options in (TorchOptions, SciPyOptions, Brian2Options):
        with pytest.raises(TypeError, match="positional argument"):
            options(1e-6)
        with pytest.raises(TypeError, match="max_step"):
            options(max_step=0.1)


def test_given_are_those_that_differ_from_their_defaults():
    assert TorchOptions().given() == SciPyOptions().given() == Brian2Options().given() == {}
    assert TorchOptions(check_finite=False).given() == {"check_finite": False}
    assert Brian2Options(codegen="cython").given() == {"codegen": "cython"}
    given = {"rtol": 1e-5, "atol": 0, "max_evaluations": 7, "dense": True, "check_finite": False}
    assert SciPyOptions(**given).given() == given
    assert SciPyOptions(rtol=1e-8, atol=1e-12, max_evaluations=np.int32(100_000)).given() == {}


def test_a_trajectory_lists_them():
    assert solve(problem(), "RK45", 2).options == {}
    assert solve(problem(), "RK45", 2, options=SciPyOptions(rtol=1e-5)).options == {"rtol": 1e-5}
    assert solve(problem(), "euler", 2, options=TorchOptions(check_finite=False)).options == {"check_finite": False}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", OPTIONS.values())
def test_each_engine_takes_its_own(engine, options):
    integrator = "RK45" if engine == "scipy" else "euler"
    if options is OPTIONS[engine]:
        solve(problem(), integrator, 1, engine=engine, options=options())
        return
    with pytest.raises(ActrelaxError) as refused:
        solve(problem(), integrator, 1, engine=engine, options=options())
    assert str(refused.value) == f"{engine} takes {OPTIONS[engine].__name__}, got options={options()!r}."
