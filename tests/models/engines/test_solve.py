"""`solve`: schedules, recording, stopping, divergence; each engine behind it."""

import gc
import weakref

import numpy as np
import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.models.engines import ENGINES, INTEGRATORS, solve, unsupported
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Status

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("integrator", STEPPED)
def test_recording(engine, integrator):
    case = graph_case()
    reason = unsupported(problem_of(case), integrator, engine)
    if reason is not None:
        pytest.skip(reason)
    trajectory = solve(problem_of(case), integrator, steps=7, eta=0.2, record=True, every=2, engine=engine)
    assert trajectory.times == pytest.approx((0.0, 0.4, 0.8, 1.2))
    assert list(trajectory.recorded) == list(trajectory.final) == [*case.network.hidden, "output"]
    stepped = {"method": "stepped"} if engine == "torch" else {}
    for i, steps in enumerate((0, 2, 4, 6)):
        final = solve(problem_of(case), integrator, steps=steps, eta=0.2, engine=engine, **stepped).final
        for name, x in final.items():
            assert torch.equal(trajectory.recorded[name][i], x)
    assert (trajectory.steps, trajectory.status, trajectory.integrator) == (7, Status.COMPLETED, integrator)
    assert trajectory.engine == engine


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


def test_times_are_the_numbers_one_would_type():
    trajectory = solve(problem_of(mlp_case()), "euler", dt=0.1, steps=7, record="output")
    assert trajectory.times == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert trajectory.time == 0.7
    adaptive = solve(problem_of(mlp_case()), "scipy:RK45", dt=0.1, steps=7, record="output")
    assert adaptive.times == trajectory.times


def test_a_function_may_return_arrays_and_numbers():
    """They are copied: one buffer for all times is as good as new ones."""
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
        solve(problem_of(mlp_case()), steps=3, record=lambda _: returned, path=tmp_path / "x.nc" if to_file else None)
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


def test_defaults_are_the_papers():
    problem = problem_of(mlp_case())
    plain, papers = solve(problem), solve(problem, "sequential", eta=0.1, steps=100)
    assert torch.equal(plain.final["hidden1"], papers.final["hidden1"])
    assert repr(plain) == "Trajectory(completed after 100 steps of 0.1 by sequential on torch, closed-form, 0 recorded)"


@pytest.mark.parametrize(
    ("integrator", "options", "sentence"),
    [
        (
            "euler",
            {"eta": 2.5},
            r'^eta must lie between 0 and 2 for "euler", got 2\.5: take more steps of a smaller dt',
        ),
        ("rk4", {"eta": 2.8}, r'^eta must lie between 0 and 2\.785 for "rk4", got 2\.8'),
        ("euler", {"eta": 0.0}, r"^eta must be a positive number, got 0\.0\.$"),
        ("euler", {"dt": "0.1"}, r"^dt must be a positive number, got '0\.1'\.$"),
        ("euler", {"duration": "1"}, r"^duration must be a number, 0 or more, got '1'\.$"),
        ("euler", {"stop_change": "a"}, r"^stop_change must be positive, got 'a'\.$"),
        ("euler", {"dt": -1.0}, r"^dt must be a positive number, got -1\.0\.$"),
        ("euler", {"dt": 0.1, "eta": 0.1}, r"^dt and eta exclude each other: give one of them\.$"),
        ("euler", {"steps": 3, "duration": 1.0}, r"^steps and duration exclude each other: give one of them\.$"),
        ("euler", {"dt": 0.3, "duration": 1.0}, r"^duration must be a whole number of dt, got 1 with dt 0\.3\.$"),
        ("euler", {"duration": -1.0}, r"^duration must be a number, 0 or more, got -1\.0\.$"),
        ("euler", {"steps": 2.5}, r"^steps must be a whole number, 0 or more, got 2\.5\.$"),
        ("euler", {"steps": -1}, r"^steps must be a whole number, 0 or more, got -1\.$"),
        (
            "equilibrium",
            {"steps": 3, "eta": 1.0},
            r'^"equilibrium" is a single sweep without time: leave out eta and',
        ),
        ("euler", {"stop_change": 0.0}, r"^stop_change must be positive, got 0\.0\.$"),
        ("euler", {"every": 0}, r"^every must be a whole number, 1 or more, got 0\.$"),
        ("euler", {"record": ["hidden9"]}, r"^record names an unknown population 'hidden9'; known: hidden1"),
        ("euler", {"record": {"hidden1": [0, 7]}}, r"^population 'hidden1' has units 0 to 6, got 7\.$"),
        *[
            (
                "euler",
                {"record": {"hidden1": chosen}},
                r"^units of 'hidden1' must be a list of whole numbers, 0 to 6, got " + said,
            )
            for chosen, said in (([0.5], r"\[0\.5\]\.$"), (3, r"3\.$"), ([], r"\[\]\.$"), ([True], r"\[True\]\.$"))
        ],
        *[
            (
                "euler",
                {"record": record},
                r"^record must be True or False, names of populations, population -> units, or a function, got "
                rf"{record}\.$",
            )
            for record in (None, 3)
        ],
        ("euler", {"engine": "tensorflow"}, r"^unknown engine 'tensorflow'; known: torch"),
        ("rk5", {}, r"^unknown integrator 'rk5'; known: euler"),
    ],
)
def test_what_is_refused(integrator, options, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), integrator, **options)


def test_equilibrium_needs_constant_gains():
    with pytest.raises(ActrelaxError, match=r'^"equilibrium" takes a single sweep: leave out stop_change\.$'):
        solve(problem_of(mlp_case()), "equilibrium", stop_change=1e-6)
    with pytest.raises(ActrelaxError, match=r'^"equilibrium" can.t be used here: it needs a constant activity gain'):
        solve(problem_of(mlp_case(), assumptions="unfrozen"), "equilibrium")
    solve(problem_of(mlp_case(), assumptions="unfrozen-weights"), "equilibrium")


def test_memory_does_not_grow_over_a_thousand_steps():
    """At most the state before, the state after and intermediate stages are alive at any time."""
    references: list[weakref.ref] = []
    most = 0

    def watch(state):
        nonlocal most
        references[:] = [reference for reference in references if reference() is not None]
        references.extend(weakref.ref(x) for name, x in state.items() if name != "output")
        most = max(most, len(references))
        return {}

    for name in STEPPED:
        solve(problem_of(graph_case()), name, steps=1000, record=watch)
    hidden = len(graph_case().network.hidden)
    assert hidden <= most <= 3 * hidden


def test_memory_does_not_grow_over_a_thousand_calls():
    case = mlp_case()

    def tensors():
        gc.collect()
        return sum(type(thing) in (torch.Tensor, torch.nn.Parameter) for thing in gc.get_objects())

    for _ in range(10):
        relax_backward(case.network, case.x, case.y, steps=2)
    before = tensors()
    for _ in range(1000):
        relax_backward(case.network, case.x, case.y, steps=2)
    assert tensors() == before
