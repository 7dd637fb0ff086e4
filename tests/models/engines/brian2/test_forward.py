"""The forward phase in Brian2. Oracles: the PyTorch engine step by step, and Euler's method with an equivalent tau."""

import numpy as np
import pytest
import torch
from networks import RECURRENT, conv_recurrent_case, graph_case, hierarchy_case, make_case, mlp_case
from torch import nn

from actrelax.models.engines import BRIAN2, Settle, Steps, settle, solve, unsupported
from actrelax.models.engines.brian2 import UNIT, build, generating
from actrelax.models.engines.brian2.forward import drive_text, population_text
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Activation
from actrelax.models.problem import ForwardProblem, UnitDynamics
from actrelax.models.results import Record, Status, relative_error

DT, STEPS = 0.2, 30


def hierarchy(activation="tanh"):
    return hierarchy_case(activation=activation, stem="softplus")  # gelu has no formula


def averaging():
    return conv_recurrent_case(pool=nn.AvgPool2d)


MAKE = {"dense": RECURRENT["dense"], "hierarchy": hierarchy, "conv": averaging, "chain": mlp_case}
FIELDS = {
    "one tau": {},
    "a tau per population": {"tau": {"a": 0.5, "b": 2.0, "c": 1.3, "stem": 0.8, "head": 1.0, "output": 0.7}},
    "a tau per neuron": {"tau": {"a": torch.linspace(0.5, 2, 7), "output": 3.0}},
    "delays": {"delays": {"a->b": 0.4, "b->a": 0.2, "c->head": 1.0, "b->b": 0.6}},
    "other units": {"dynamics": {"a": UnitDynamics.second_order(1.0, 0.8), "b": UnitDynamics.adapting(1.0, 5.0, 0.5)}},
}


def problem_of(case, **fields):
    return ForwardProblem(case.network, case.x, **fields)


def largest(found, expected):
    assert list(found) == list(expected)
    return max(relative_error(found[name], x) for name, x in expected.items())


def assert_same(problem, scheme):
    expected = solve(problem, scheme, dt=DT, steps=STEPS, record=Record(every=3))
    found = solve(problem, scheme, dt=DT, steps=STEPS, record=Record(every=3), engine="brian2")
    assert largest(found.final, expected.final) < 1e-12
    assert largest(found.recorded, expected.recorded) < 1e-12
    assert all(relative_error(x, expected.state[v]) < 1e-12 for v, x in found.state.items())  # no delay lines
    assert found.times == expected.times


@pytest.mark.parametrize("scheme", ["euler", "exponential"])
@pytest.mark.parametrize("name", MAKE)
def test_our_schemes_are_the_same_in_brian2_and_in_pytorch(name, scheme):
    assert_same(problem_of(MAKE[name](), tau=0.8), scheme)


@pytest.mark.parametrize("name", FIELDS)
def test_biology(name):
    problem = problem_of(hierarchy(), **FIELDS[name])
    assert_same(problem, "euler")
    if name != "one tau":
        plain = solve(problem_of(hierarchy()), "euler", dt=DT, steps=STEPS).final
        assert largest(solve(problem, "euler", dt=DT, steps=STEPS).final, plain) > 1e-4


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "leaky-relu", "identity"])
def test_activations_and_a_given_start(activation):
    case = hierarchy(activation=activation)
    shapes = {name: case.network.populations[name].shape for name in [*case.network.hidden, "output"]}
    start = {name: torch.full((3, *shape), 0.3) for name, shape in shapes.items()}
    assert_same(problem_of(case, start=start), "euler")


@pytest.mark.parametrize("method", BRIAN2)
@pytest.mark.parametrize("make", [hierarchy, averaging])
def test_every_updater_holds_the_response_within_a_step(method, make):
    """It equals Euler's method with eta = 1 - R(-dt/tau), R the updater's stability function."""
    case, scheme = make(), f"brian2:{method}"
    taus = {name: 0.5 + 0.1 * i for i, name in enumerate([*case.network.hidden, "output"])}
    reason = unsupported(problem_of(case, tau=taus), scheme, "brian2")
    if reason is not None:
        assert "GNU Scientific Library" in reason
        pytest.skip(reason)
    equivalent = {name: DT / (1 - float(BRIAN2[method][0](np.asarray(-DT / tau)))) for name, tau in taus.items()}
    expected = solve(problem_of(case, tau=equivalent), "euler", dt=DT, steps=STEPS).final
    assert largest(solve(problem_of(case, tau=taus), scheme, dt=DT, steps=STEPS).final, expected) < 1e-12


def test_it_settles_at_the_rates():
    case = hierarchy()
    found = solve(problem_of(case), "euler", Steps.until(1e-10, eta=0.3), engine="brian2")
    assert found.status is Status.SETTLED
    rates = settle(case.network, case.x, Settle(Steps.until(1e-13, eta=0.5)))
    for name in [*case.network.hidden, case.network.output]:
        assert relative_error(found.final[name], rates.activities[name]) < 1e-8


def test_noise_of_units_and_input():
    """A unit without drive has Euler's stationary variance sigma^2 / (1 - eta / 2); a noisy input is a group."""
    case = make_case((5,), {"a": "tanh", "output": "identity"}, [
        ("input", "a", [nn.Linear(5, 4)]),
        ("a", "output", [nn.Linear(4, 3)]),
    ])  # fmt: skip
    with torch.no_grad():
        case.network.projections["input->a"].weight.zero_()
        case.network.projections["input->a"].bias.zero_()
    problem = ForwardProblem(case.network, case.x[:1].expand(500, 5), noise={"a": 0.5}, input_noise=0.3)
    generator = torch.Generator().manual_seed(0)
    found = solve(problem, "euler", dt=0.5, steps=40, engine="brian2", generator=generator).state
    assert float(found["a"].var()) == pytest.approx(0.25 / 0.75, rel=0.1)
    assert float((found["input"] - case.x[0]).var()) == pytest.approx(0.09 / 0.75, rel=0.1)
    assert float((found["input"] - case.x[0]).mean()) == pytest.approx(0, abs=0.03)


def test_a_noisy_input_drives_once():
    """Its synapses drive the units above it, so that their bias must not."""
    problem = problem_of(mlp_case(), input_noise=1e-9)
    found, expected = (solve(problem, "euler", dt=0.5, steps=20, engine=name).final for name in ("brian2", "torch"))
    for name, rates in expected.items():
        assert relative_error(found[name], rates) < 1e-6


def test_a_simulation_has_drives_and_no_feedback():
    case = hierarchy()
    simulation = build(problem_of(case), "euler", dt=DT, monitor=["a", "output"])
    assert set(simulation.populations) == {*case.network.hidden, "output"}
    assert simulation.feedback == {}
    assert set(simulation.drives) == {p.name for p in case.network.projections.values() if p.source != "input"}
    with generating("numpy"):
        simulation.network.run(3 * DT * UNIT, namespace={})
    expected = solve(problem_of(case), "euler", dt=DT, steps=3).final
    assert relative_error(torch.tensor(np.array(simulation.populations["a"].x)).reshape(3, 7), expected["a"]) < 1e-13
    assert simulation.monitors["output"].x.shape == (12, 3)


def test_text():
    """Delay lines stand at the source; the drives of other populations and of the input are summed at the target."""
    problem = problem_of(RECURRENT["dense"](), delays={"a->output": 2 * DT})
    text = population_text(problem, "a", {"a->output": 2})
    assert "received : 1" in text.equations
    assert text.response == "tanh(a)"
    assert "a = a_to_a_drive + bias : 1" in text.equations
    assert text.lines == {"a->output": ("a_to_output_sent", "x", 2)}
    assert drive_text(problem, "a->output", {"a->output": 2}).endswith("= w * a_to_output_sent_2_pre : 1 (summed)")
    assert drive_text(problem, "a->a", {}).endswith("a_to_a_drive_post = w * x_pre : 1 (summed)")


def test_refusals():
    pooled = problem_of(conv_recurrent_case())
    assert unsupported(pooled, "euler", "brian2").startswith("max pooling routes by the rates of the moment in")
    with pytest.raises(ActrelaxError, match=r'^"euler" can\'t be used on brian2 here: max pooling routes by the rates'):
        solve(pooled, "euler", dt=DT, steps=3, engine="brian2")
    square = Activation("square", torch.square, lambda a: 2 * a)
    assert "no formula for Brian2" in unsupported(problem_of(mlp_case(square)), "euler", "brian2")
    assert unsupported(problem_of(graph_case()), "euler", "brian2").startswith("max pooling")
