"""The Brian2 engine. Oracles: the PyTorch engine step by step, and each updater's binomial law."""

import logging

import numpy as np
import pytest
import torch
from networks import exploding_case, graph_case, make_case, mlp_case
from torch import nn

from actrelax.models.closed_form import predict
from actrelax.models.engines import BRIAN2, Brian2Options, Steps, integrator_named, solve, unsupported
from actrelax.models.engines.brian2 import UNIT, build, generating
from actrelax.models.engines.brian2.engine import _announce
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import ForwardProblem, RelaxationProblem, UnitDynamics
from actrelax.models.results import DivergenceError, Record, Status, relative_error

DT, STEPS = 0.2, 12


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def largest(found, expected):
    assert list(found) == list(expected)
    return max(relative_error(found[name], x) for name, x in expected.items())


PROBLEMS = {
    "frozen": (mlp_case, None, {}),
    "graph": (graph_case, None, {}),
    "graph, gains none": (graph_case, None, {"assumptions": "no-derivatives-conv"}),
    "unfrozen tanh": (mlp_case, None, {"assumptions": "unfrozen"}),
    "unfrozen sigmoid": (mlp_case, "sigmoid", {"assumptions": "unfrozen"}),
    "unfrozen relu": (mlp_case, "relu", {"assumptions": "unfrozen"}),
    "unfrozen softplus": (mlp_case, "softplus", {"assumptions": "unfrozen"}),
    "unfrozen leaky-relu": (mlp_case, "leaky-relu", {"assumptions": "unfrozen"}),
    "zero start": (mlp_case, None, {"start": "zero"}),
    "clip": (mlp_case, None, {"clip": 0.05}),
    "transform": (graph_case, None, {"feedback_transform": "sparse-0.5"}),
    "tau per neuron": (mlp_case, None, {"tau": {"hidden1": torch.linspace(0.5, 2, 7), "hidden3": 3.0}}),
    "delay": (mlp_case, None, {"delays": 0.4}),
    "delays, unfrozen": (
        mlp_case,
        None,
        {"delays": {"hidden2->hidden3": 0.2, "hidden1->hidden2": 0.6}, "assumptions": "unfrozen"},
    ),
    "own dynamics": (
        mlp_case,
        None,
        {"dynamics": {"hidden2": UnitDynamics.second_order(1.0, 0.4), "hidden3": UnitDynamics.adapting(1.0, 5.0, 2.0)}},
    ),
    "own dynamics, delay, unfrozen": (
        mlp_case,
        None,
        {"dynamics": {"hidden2": UnitDynamics.synaptic_filter(1.0, 2.0)}, "delays": 0.2, "assumptions": "unfrozen"},
    ),
}


def named(name):
    """Return a function that creates the case inside the test, in float64."""
    make, activation, fields = PROBLEMS[name]
    return (make() if activation is None else make(activation)), fields


@pytest.mark.parametrize("scheme", ["euler", "exponential"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_our_schemes_are_the_same_in_brian2_and_in_pytorch(name, scheme):
    case, fields = named(name)
    problem = problem_of(case, **fields)
    reason = unsupported(problem, scheme, "brian2")
    if reason is not None:
        assert scheme == "exponential"
        assert any(field in fields for field in ("delays", "dynamics", "clip"))
        with pytest.raises(ActrelaxError, match="can't be used"):
            solve(problem, scheme, dt=DT, steps=STEPS, engine="brian2")
        return
    expected = solve(problem, scheme, dt=DT, steps=STEPS, record=Record(every=3))
    found = solve(problem, scheme, dt=DT, steps=STEPS, record=Record(every=3), engine="brian2")
    assert largest(found.final, expected.final) < 1e-14
    assert largest(found.recorded, expected.recorded) < 1e-14
    assert found.times == expected.times
    assert all(relative_error(x, expected.state[v]) < 1e-14 for v, x in found.state.items())
    assert (found.engine, found.steps, found.feedback_applications) == ("brian2", STEPS, expected.feedback_applications)


@pytest.mark.parametrize("name", ["unfrozen tanh", "delay", "clip", "own dynamics", "tau per neuron", "transform"])
def test_what_these_problems_add_matters(name):
    case, fields = named(name)
    plain = solve(problem_of(case), "euler", dt=DT, steps=STEPS).final
    assert largest(solve(problem_of(case, **fields), "euler", dt=DT, steps=STEPS).final, plain) > 1e-3


@pytest.mark.parametrize("method", BRIAN2)
@pytest.mark.parametrize("make", [mlp_case, graph_case])
def test_every_updater_follows_the_binomial_law_of_its_stability_function(method, make):
    """The updater holds the summed input within a step, and so equals Euler with eta = 1 - R(-dt/tau)."""
    problem, scheme = problem_of(make()), f"brian2:{method}"
    reason = unsupported(problem, scheme, "brian2")
    if reason is not None:
        assert "GNU Scientific Library" in reason
        pytest.skip(reason)
    expected = predict(problem, integrator_named(scheme), dt=DT, steps=STEPS)
    found = solve(problem, scheme, dt=DT, steps=STEPS).final
    assert all(relative_error(found[name], x) < 1e-13 for name, x in expected.items())


def test_several_taus_follow_the_law_too():
    problem = problem_of(mlp_case(), tau={"hidden1": 0.5, "hidden2": 2.0})
    for method in ("rk2", "rk4", "exact", "euler"):
        expected = predict(problem, integrator_named(f"brian2:{method}"), dt=DT, steps=STEPS)
        found = solve(problem, f"brian2:{method}", dt=DT, steps=STEPS).final
        assert all(relative_error(found[name], x) < 1e-13 for name, x in expected.items())


def logged(caplog):
    return [record for record in caplog.record_tuples if record[0].startswith("actrelax.")]


def test_compiled_code_gives_the_same(caplog):
    _announce.cache_clear()
    case = mlp_case()
    fields = {"delays": {"hidden1->hidden2": 0.4}, "dynamics": {"hidden3": UnitDynamics.second_order(1.0, 0.4)}}
    problem = problem_of(case, assumptions="unfrozen", **fields)
    expected = solve(problem, "euler", dt=DT, steps=STEPS, record=Record(every=5))
    cython = Brian2Options(codegen="cython")
    for _ in range(2):
        found = solve(problem, "euler", dt=DT, steps=STEPS, record=Record(every=5), engine="brian2", options=cython)
        assert largest(found.final, expected.final) < 1e-14
        assert largest(found.recorded, expected.recorded) < 1e-14
        assert found.times == expected.times
    said = "Brian2 compiles code for cython unless it has done so before."
    assert logged(caplog) == [("actrelax.models.engines.brian2.engine", logging.WARNING, said)]


def test_nothing_is_said_where_nothing_is_compiled(capsys, caplog):
    problem = problem_of(mlp_case())
    solve(problem, "euler", steps=1, engine="brian2")
    assert capsys.readouterr() == ("", "")
    assert logged(caplog) == []
    with pytest.raises(ActrelaxError, match=r"^unknown Brian2 target 'fortran'; known: .*numpy"):
        solve(problem, "euler", steps=1, engine="brian2", options=Brian2Options(codegen="fortran"))


def test_noise_repeats_with_the_generator_and_leaves_numpys_alone():
    problem = problem_of(mlp_case(), noise=0.3, input_noise=0.2, assumptions="unfrozen")
    before = np.random.get_state()[1].tolist()  # noqa: NPY002

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return solve(problem, "euler", dt=DT, steps=STEPS, engine="brian2", generator=generator)

    one, same, other = run(1), run(1), run(2)
    assert largest(one.final, same.final) == 0
    assert largest(one.final, other.final) > 1e-3
    assert not torch.equal(one.state["input"], problem.feedforward.activities["input"])
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize("method", ["euler", "heun", "milstein"])
def test_a_lone_noisy_units_stationary_variance_is_eulers(method):
    """sigma^2 / (1 - eta/2), from thousands of units without input."""
    edges = [("input", "hidden1", [nn.Linear(2, 4000)]), ("hidden1", "output", [nn.Linear(4000, 2)])]
    case = make_case((2,), {"hidden1": "tanh", "output": "identity"}, edges, batch=3)
    problem = problem_of(case, noise=0.5, feedback_transform=torch.zeros_like, start="zero")
    generator = torch.Generator().manual_seed(0)
    final = solve(problem, f"brian2:{method}", dt=0.5, steps=60, generator=generator).final["hidden1"]
    variance, expected = float(final.var(correction=0)), 0.25 / (1 - 0.5 / 2)
    assert abs(variance / expected - 1) < 5 * (2 / final.numel()) ** 0.5
    assert abs(expected / 0.25 - 1) > 10 * (2 / final.numel()) ** 0.5


def test_stops_when_it_has_settled():
    problem = problem_of(mlp_case())
    options = {"steps": Steps.until(1e-4, of="change", dt=DT, most=500), "record": ["hidden1"]}
    expected, found = solve(problem, "euler", **options), solve(problem, "euler", engine="brian2", **options)
    assert (found.status, found.steps) == (Status.SETTLED, expected.steps)
    assert relative_error(found["hidden1"], expected["hidden1"]) < 1e-14


@pytest.mark.parametrize("of", ["activity", "change"])
@pytest.mark.parametrize("kind", [RelaxationProblem, ForwardProblem])
def test_signals_on_their_way_are_waited_for(kind, of):
    """With delays longer than everything else takes, it settles when PyTorch does, whose state holds the lines."""
    case = mlp_case()
    problem = problem_of(case, delays=4.0)
    if kind is ForwardProblem:
        problem = ForwardProblem(case.network, case.x, delays=4.0)
    until = Steps.until(1e-3, of=of, dt=DT, most=500)
    expected, found = solve(problem, "euler", until), solve(problem, "euler", until, engine="brian2")
    assert expected.steps > 3 * 4 / DT
    assert (found.status, found.steps) == (Status.SETTLED, expected.steps)
    assert largest(found.final, expected.final) < 1e-13


def test_divergence_names_population_and_step(generator):
    case = exploding_case(generator)
    problem = problem_of(case, assumptions="random-feedback", start="zero")
    with np.errstate(all="ignore"), pytest.raises(DivergenceError) as caught:
        solve(problem, "euler", steps=50, eta=0.5, record=True, engine="brian2")
    assert str(caught.value).startswith('population "hidden1" became non-finite at step 3 of 50')
    reached = caught.value.trajectory
    assert (reached.status, reached.steps, reached.times) == (Status.DIVERGED, 2, (0.0, 0.5, 1.0))


def test_an_exception_of_the_recorder_passes_through():
    with pytest.raises(KeyError, match="hidden7"):
        solve(problem_of(mlp_case()), "euler", record=lambda state: {"x": state["hidden7"]}, engine="brian2")


def test_populations_may_be_called_as_they_like():
    names = ["xi", "watch", "h", "h_monitor"]
    sizes = [5, 4, 3, 6, 2, 4]
    ends = ["input", *names, "a b"]
    edges = [(a, b, [nn.Linear(m, n)]) for a, b, m, n in zip(ends, ends[1:], sizes, sizes[1:], strict=False)]
    case = make_case((5,), dict.fromkeys(names, "tanh") | {"a b": "identity"}, edges)
    problem = problem_of(case, assumptions="unfrozen")
    found = solve(problem, "euler", dt=DT, steps=STEPS, engine="brian2", record=True).final
    assert largest(found, solve(problem, "euler", dt=DT, steps=STEPS).final) < 1e-14
    simulation = build(problem, dt=DT, monitor=names)
    with generating("numpy"):  # by default Brian2 compiles, for a minute
        simulation.network.run(STEPS * DT * UNIT, namespace={})
    assert set(simulation.monitors) == set(names)


def test_more_steps_than_brian2_counts_are_refused():
    """Brian2 would return the initial state as the result."""
    with pytest.raises(ActrelaxError, match=r"^Brian2 counts at most 2\*\*40 steps, got 1,099,511,627,777: take fewer"):
        solve(problem_of(mlp_case()), "euler", 2**40 + 1, engine="brian2")
