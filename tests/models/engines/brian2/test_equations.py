"""Equations of a relaxation in Brian2. Oracles: PyTorch's steps, and equations written out."""

import pytest
import torch
from networks import make_case, mlp_case
from torch import nn

from actrelax.models.engines import solve, unsupported
from actrelax.models.engines.brian2.equations import formula_of, leak_text, population_text, sum_text
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Activation, Population
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import relative_error

DT, STEPS = 0.2, 12


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_orders_are_set_not_left_to_names():
    """Drives precede feedback and feedback precedes units, even if the names of projections sort otherwise."""
    edges = [
        ("input", "z", [nn.Linear(5, 4)]),
        ("z", "m", [nn.Linear(4, 3)]),
        ("m", "b", [nn.Linear(3, 6)]),
        ("b", "a", [nn.Linear(6, 2)]),
    ]
    case = make_case((5,), {"z": "tanh", "m": "tanh", "b": "tanh", "a": "identity"}, edges)
    problem = problem_of(case, assumptions="unfrozen", delays={"m->b": 0.4})
    found = solve(problem, "euler", dt=DT, steps=STEPS, engine="brian2").final
    expected = solve(problem, "euler", dt=DT, steps=STEPS).final
    assert all(relative_error(found[name], x) < 1e-14 for name, x in expected.items())


def test_parameters_are_values_not_text():
    """Equations don't change with parameter values, so a sweep compiles once."""

    def texts(**fields):
        problem = problem_of(mlp_case(), **fields)
        return [population_text(problem, name, {}).equations for name in problem.network.hidden]

    assert texts(tau=2.0, noise=0.1, clip=1.0) == texts(tau=3.0, noise=0.2, clip=2.0)
    slow, fast = (UnitDynamics.second_order(tau, 0.5) for tau in (10.0, 5.0))
    assert texts(dynamics={"hidden1": slow}) == texts(dynamics={"hidden1": fast})


def test_an_activation_without_a_formula_is_refused_where_its_gain_is_current():
    square = Activation("square", torch.square, lambda a: 2 * a)
    case = mlp_case(square)
    assert unsupported(problem_of(case), "euler", "brian2") is None
    reason = unsupported(problem_of(case, assumptions="unfrozen"), "euler", "brian2")
    assert reason is not None
    assert reason.startswith("activation 'square' of population 'hidden2' has no formula for Brian2: give it one, or")


def test_sums_and_leaks_as_text():
    """A leaky unit moves towards its target, and a sum declares its terms."""
    assert leak_text("received") == "(received - x) / tau"
    assert leak_text("tanh(a)", "tau_feedforward") == "(tanh(a) - x) / tau_feedforward"
    assert sum_text("a", ["u", "bias"], constant={"bias"}) == "a = u + bias : 1\nu : 1\nbias : 1 (constant)"
    assert sum_text("a", []) == ""


def test_a_population_without_a_formula_has_no_text():
    square = Population("hidden", (3,), Activation("square", torch.square, lambda a: 2 * a))
    with pytest.raises(ActrelaxError, match=r"^activation 'square' of population 'hidden' has no formula for Brian2"):
        formula_of(square)
