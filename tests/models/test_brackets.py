"""The largest |-x + feedback| against the loop written out."""

import pytest
import torch
from cases import graph_case, mlp_case

from actrelax.models.brackets import largest_bracket
from actrelax.models.integrators import INTEGRATORS
from actrelax.models.problem import RelaxationProblem


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_euler_written_out(make, clip):
    """The bracket before it is clipped, of a relaxation that is."""
    problem = problem_of(make(), clip=clip)
    x, largest = problem.initial_state(), 0.0
    for _ in range(7):
        brackets = {name: problem.feedback(name, x) - x[name] for name in x}
        largest = max(largest, *(float(b.abs().max()) for b in brackets.values()))
        x = {name: x[name] + 0.2 * (b if clip is None else b.clamp(-clip, clip)) for name, b in brackets.items()}
    found = largest_bracket(problem, INTEGRATORS["euler"], dt=0.2, steps=7)
    assert found.shape == ()
    assert float(found) == pytest.approx(largest, rel=1e-12)
    assert clip is None or largest > clip


def test_a_sweep_reads_new_values():
    problem = problem_of(mlp_case())
    x, largest = problem.initial_state(), 0.0
    for _ in range(7):
        for name in list(x):
            bracket = problem.feedback(name, x) - x[name]
            largest = max(largest, float(bracket.abs().max()))
            x[name] = x[name] + 0.2 * bracket
    assert float(largest_bracket(problem, INTEGRATORS["sequential"], dt=0.2, steps=7)) == pytest.approx(
        largest, rel=1e-12
    )


def test_the_problem_is_left_alone():
    problem = problem_of(mlp_case())
    before = {name: x.clone() for name, x in problem.initial_state().items()}
    assert float(largest_bracket(problem, INTEGRATORS["rk4"], dt=0.2, steps=2)) > 0
    assert float(largest_bracket(problem, INTEGRATORS["rk4"], dt=0.2, steps=0)) == 0
    assert all(torch.equal(x, before[name]) for name, x in problem.initial_state().items())
    assert {type(unit).__name__ for unit in problem.units.values()} == {"Leaky"}
