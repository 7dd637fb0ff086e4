"""`solve`: its defaults, the times of its recordings, what it refuses; each engine behind it."""

import gc
import weakref

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


def test_times_are_the_numbers_one_would_type():
    trajectory = solve(problem_of(mlp_case()), "euler", dt=0.1, steps=7, record="output")
    assert trajectory.times == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert trajectory.time == 0.7
    adaptive = solve(problem_of(mlp_case()), "scipy:RK45", dt=0.1, steps=7, record="output")
    assert adaptive.times == trajectory.times


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
