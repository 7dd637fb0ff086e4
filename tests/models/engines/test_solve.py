"""`solve`: defaults, recording times and refused calls, with every engine."""

import gc
import weakref

import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.models.engines import (
    ENGINES,
    INTEGRATORS,
    Brian2Options,
    SciPyOptions,
    Steps,
    TorchOptions,
    solve,
    unsupported,
)
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Record, Status

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
    trajectory = solve(problem_of(case), integrator, steps=7, eta=0.2, record=Record(every=2), engine=engine)
    assert trajectory.times == pytest.approx((0.0, 0.4, 0.8, 1.2))
    assert list(trajectory.recorded) == list(trajectory.final) == [*case.network.hidden, "output"]
    stepped = {"evaluation": "stepped"} if engine == "torch" else {}
    for i, steps in enumerate((0, 2, 4, 6)):
        final = solve(problem_of(case), integrator, steps=steps, eta=0.2, engine=engine, **stepped).final
        for name, x in final.items():
            assert torch.equal(trajectory.recorded[name][i], x)
    assert (trajectory.steps, trajectory.status, trajectory.integrator) == (7, Status.COMPLETED, integrator)
    assert trajectory.engine == engine


def test_times_are_the_numbers_one_would_type():
    trajectory = solve(problem_of(mlp_case()), "euler", dt=0.1, steps=7, record="output")
    assert trajectory.times == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert trajectory.time == 0.7
    adaptive = solve(problem_of(mlp_case()), "scipy:RK45", dt=0.1, steps=7, record="output")
    assert adaptive.times == trajectory.times


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("steps", [0, 3])
def test_the_final_state_can_be_changed_without_changing_the_problem(engine, steps):
    problem = problem_of(mlp_case())
    method = "scipy:RK45" if engine == "scipy" else "euler"
    before = {"output": problem.clamped, **problem.initial_state()}
    kept = {name: x.clone() for name, x in before.items()}
    for x in solve(problem, method, steps, dt=0.1, engine=engine).final.values():
        x.zero_()
    assert all(torch.equal(x, kept[name]) for name, x in before.items())


def test_defaults_are_euler_and_the_papers_steps():
    problem = problem_of(mlp_case())
    plain, papers = solve(problem), solve(problem, "euler", eta=0.1, steps=100)
    assert torch.equal(plain.final["hidden1"], papers.final["hidden1"])
    assert repr(plain) == "Trajectory(completed after 100 steps of 0.1 by euler on torch, closed-form, 0 recorded)"


def test_shorthand_stands_for_steps():
    problem = problem_of(mlp_case(), tau=2.0)
    for steps, shorthand, same in (
        (12, {"eta": 0.2}, Steps(12, eta=0.2)),
        (12, {"dt": 0.4}, Steps(12, dt=0.4)),
        (12, {}, Steps(12)),
        (None, {"eta": 0.3}, Steps(100, eta=0.3)),
        (None, {"duration": 6.0}, Steps(duration=6.0)),
        (None, {"dt": 0.5, "duration": 6.0}, Steps(dt=0.5, duration=6.0)),
    ):
        given = solve(problem, "rk4", **({} if steps is None else {"steps": steps}), **shorthand)
        expected = solve(problem, "rk4", same)
        assert (given.steps, given.dt) == (expected.steps, expected.dt)
        assert all(torch.equal(given.final[name], x) for name, x in expected.final.items())


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
        ("euler", {"dt": -1.0}, r"^dt must be a positive number, got -1\.0\.$"),
        ("euler", {"dt": 0.1, "eta": 0.1}, r"^dt and eta exclude each other: give one of them\.$"),
        ("euler", {"steps": 3, "duration": 1.0}, r"^a number of steps and duration exclude each other: give one of"),
        ("euler", {"dt": 0.3, "duration": 1.0}, r"^duration must be a whole number of dt, got 1 with dt 0\.3\.$"),
        ("euler", {"duration": -1.0}, r"^duration must be a number, 0 or more, got -1\.0\.$"),
        ("euler", {"steps": 2.5}, r"^steps must be a whole number, 0 or more, got 2\.5\.$"),
        ("euler", {"steps": -1}, r"^steps must be a whole number, 0 or more, got -1\.$"),
        (
            "equilibrium",
            {"steps": 3, "eta": 1.0},
            r'^"equilibrium" is a single sweep without time: leave steps out, got Steps\(3, eta=1\.0\)\.$',
        ),
        ("euler", {"rtol": 1e-6}, r"^unknown keyword 'rtol'; known: eta, dt, duration\.$"),
        ("euler", {"stop_change": 1e-6}, r"^unknown keyword 'stop_change'; known: eta, dt, duration\.$"),
        ("euler", {"options": SciPyOptions()}, r"^torch takes TorchOptions, got options=SciPyOptions\(check_finite="),
        ("euler", {"options": Brian2Options()}, r"^torch takes TorchOptions, got options=Brian2Options\(check_finite="),
        ("euler", {"options": {"check_finite": False}}, r"^torch takes TorchOptions, got options=\{'check_finite': F"),
        ("euler", {"engine": "brian2", "options": TorchOptions()}, r"^brian2 takes Brian2Options, got options=TorchO"),
        ("euler", {"engine": "brian2", "evaluation": "closed-form"}, r'^the closed form needs engine="torch", got '),
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


def test_what_is_no_problem():
    with pytest.raises(
        ActrelaxError, match=r"^a RelaxationProblem or a ForwardProblem is needed, got Network: make one"
    ):
        solve(mlp_case().network)


def test_equilibrium_needs_constant_gains():
    with pytest.raises(ActrelaxError, match=r'^"equilibrium" can.t be used here: it needs a constant activity gain'):
        solve(problem_of(mlp_case(), assumptions="unfrozen"), "equilibrium")
    solve(problem_of(mlp_case(), assumptions="unfrozen-weights"), "equilibrium")


def test_memory_does_not_grow_over_a_thousand_steps():
    """At most the previous state, the next state and intermediate stages are alive at any time."""
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
