"""Recordings. Oracles: slices of complete recordings, NumPy."""

import numpy as np
import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import Record, relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_recording_some_populations_or_a_function():
    problem = problem_of(mlp_case())
    some = solve(problem, steps=4, record=["hidden2"]).recorded
    assert torch.equal(solve(problem, steps=4, record="hidden2").recorded["hidden2"], some["hidden2"])
    assert {name: x.shape for name, x in some.items()} == {"hidden2": (5, 3, 6)}
    units = solve(problem, steps=4, record={"hidden2": [5, 0], "output": [1]}).recorded
    assert torch.equal(units["hidden2"], some["hidden2"][..., [5, 0]])
    assert units["output"].shape == (5, 3, 1)
    norms = solve(problem, steps=4, record=lambda state: {"norm": state["hidden2"].norm()}).recorded
    assert torch.equal(norms["norm"], torch.stack([x.norm() for x in some["hidden2"]]))
    assert solve(problem, steps=4).recorded == {}
    equilibrium = solve(problem, "equilibrium", record=True)
    assert equilibrium.times == (0.0, float("inf"))


def test_a_function_may_return_arrays_and_numbers():
    """Values are copied, so a function may reuse one buffer."""
    buffer = np.zeros((3, 6))

    def function(state):
        buffer[:] = state["hidden2"].numpy()
        return {"array": buffer[:, ::-1], "number": float(buffer.sum()), "count": 3}

    problem = problem_of(mlp_case())
    recorded = solve(problem, steps=4, record=function).recorded
    full = solve(problem, steps=4, record="hidden2").recorded["hidden2"]
    assert torch.equal(recorded["array"], full.flip(-1))
    np.testing.assert_allclose(recorded["number"], full.sum((1, 2)), rtol=1e-14)
    assert recorded["count"].tolist() == [3] * 5


@pytest.mark.parametrize("to_file", [False, True])
@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (torch.zeros(3), r"^a function to record must return a mapping, name -> tensor, got Tensor\.$"),
        (None, r"^a function to record must return a mapping, name -> tensor, got NoneType\.$"),
        (2.5, r"^a function to record must return a mapping, name -> tensor, got float\.$"),
        (
            {"a": "text"},
            r"^a function to record must return tensors, arrays or numbers, got str for 'a'\.$",
        ),
        ({"a": None}, r"^a function to record must return tensors, .* got NoneType for 'a'\.$"),
        ({3: 1.0}, r"^a function to record must return a mapping, name -> tensor, got the name 3\.$"),
    ],
)
def test_functions_that_return_something_else(returned, sentence, to_file, tmp_path):
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), record=Record(lambda _: returned, path=tmp_path / "x.nc" if to_file else None))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("later", "sentence"),
    [
        ({"a": 2.0}, r"^the recorded names were 'a', 'b' at first, got 'a' at time 0\.4: return the same names\.$"),
        ({}, r"^the recorded names were 'a', 'b' at first, got nothing at time 0\.4: return the same names\.$"),
        (
            {"a": 2.0, "b": 1.0, "c": 0.0},
            r"^the recorded names were 'a', 'b' at first, got 'a', 'b', 'c' at time 0\.4: return the same names\.$",
        ),
        (
            {"a": 2.0, "b": np.ones(1)},
            r"^'b' was recorded with shape \(\) in torch\.float64 at first and with shape \(1,\) in torch\.float64 at "
            r"time 0\.4: return the same shape and type\.$",
        ),
        ({"a": 2.0, "b": 1}, r"^'b' was recorded with .* with shape \(\) in torch\.int64 at time 0\.4: return"),
    ],
)
def test_functions_that_change_their_mind(later, sentence):
    returned = iter([{"a": 1.0, "b": 5.0}, {"b": 5.0, "a": 1.0}, later])
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), "euler", dt=0.2, record=lambda _: next(returned))


def test_an_exception_of_the_recorder_passes_through():
    with pytest.raises(KeyError, match="hidden7"):
        solve(problem_of(mlp_case()), record=lambda state: {"x": state["hidden7"]})


def test_chosen_units_of_a_population_with_a_shape():
    case = graph_case()
    some = solve(problem_of(case), "euler", steps=2, record={"conv1": [35, 1]})
    gradients = activity_gradients(case.network, case.x, case.y)
    assert tuple(some.to_xarray()["conv1"].attrs["shape"]) == (4, 3, 3)
    last = some.final["conv1"][:, [3, 0], [2, 0], [2, 1]]
    assert torch.equal(some["conv1"][-1], last)
    g = gradients["conv1"][:, [3, 0], [2, 0], [2, 1]]
    assert float(some.error(gradients)["conv1"][-1]) == relative_error(last, g)


@pytest.mark.parametrize("what", [True, "hidden2", ["hidden2", "output"], {"hidden2": [5, 0]}])
def test_a_record_is_every_so_many_steps_of_what_it_names(what):
    """A bare name or function is recorded at every step."""
    problem = problem_of(mlp_case())
    bare, record = (solve(problem, "euler", 7, record=each) for each in (what, Record(what)))
    some = solve(problem, "euler", 7, record=Record(what, every=3))
    assert record.times == bare.times
    assert some.times == bare.times[::3]
    assert list(some.recorded) == list(record.recorded) == list(bare.recorded)
    for name, x in bare.recorded.items():
        assert torch.equal(record[name], x)
        assert torch.equal(some[name], x[::3])


def test_a_record_of_nothing():
    problem = problem_of(mlp_case())
    assert solve(problem, "euler", 7, record=Record(False)).times == ()
    assert solve(problem, "euler", 7, record=Record(every=np.int64(8))).times == (0.0,)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Record(every=0), r"^every must be a whole number, 1 or more, got 0\.$"),
        (lambda: Record(every=1.5), r"^every must be a whole number, 1 or more, got 1\.5\.$"),
        (
            lambda: Record(False, path="x.nc"),
            r"^path needs values to record, got what=False: pass what=True\.$",
        ),
        (
            lambda: solve(problem_of(mlp_case()), record=Record(3)),
            r"^record must be True or False, names of populations, population -> units, or a function, got 3\.$",
        ),
        (
            lambda: solve(problem_of(mlp_case()), record=Record("hidden9", path="x.nc")),
            r"^record names an unknown population 'hidden9'; known: hidden1",
        ),
        (
            lambda: solve(problem_of(mlp_case()), record=True, every=2),
            r"^unknown keyword 'every'; known: eta, dt, duration\.$",
        ),
    ],
)
def test_records_that_are_refused(make, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        make()


DYNAMICS = {"hidden2": UnitDynamics.adapting(tau=0.6, tau_adaptation=2.5, strength=1.7)}


@pytest.mark.parametrize("integrator", ["euler", "rk4", "brian2:euler", "DOP853"])
def test_variables_of_units_with_dynamics(integrator):
    """The activity is c s at every time on every engine, and the last values are the final state."""
    problem = problem_of(mlp_case(), dynamics=DYNAMICS)
    found = solve(problem, integrator, dt=0.1, steps=8, record=["hidden2", "hidden2.0", "hidden2.1", "hidden1"])
    s = [found["hidden2.0"], found["hidden2.1"]]
    assert torch.allclose(found["hidden2"], sum(c * x for c, x in zip(DYNAMICS["hidden2"].c, s, strict=True)))
    assert all(torch.equal(x[-1], found.state[f"hidden2.{i}"]) for i, x in enumerate(s))
    assert not torch.allclose(*s)
    some = solve(problem, integrator, dt=0.1, steps=8, record={"hidden2.1": [4, 0]})
    assert torch.equal(some["hidden2.1"], s[1][..., [4, 0]])
    assert some.to_xarray()["hidden2.1"].dims == ("time", "sample", "hidden2.1_unit")
    own = solve(problem, integrator, dt=0.1, steps=8, record=lambda state: {"w": state["hidden2.1"]})
    assert torch.equal(own["w"], s[1])


def test_variables_are_recorded_when_asked_for():
    problem = problem_of(mlp_case(), dynamics=DYNAMICS)
    assert list(solve(problem, dt=0.1, steps=2, record=True).recorded) == ["hidden1", "hidden2", "hidden3", "output"]
    with pytest.raises(ActrelaxError, match=r"known: hidden1, hidden2, hidden3, output, hidden2\.0, hidden2\.1\.$"):
        solve(problem, dt=0.1, steps=2, record="hidden1.0")
