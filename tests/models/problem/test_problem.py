"""Problems: fields, properties and refused values."""

from dataclasses import MISSING, fields

import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.models.assumptions import Assumptions, Knobs
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import ProblemFields, RelaxationProblem
from actrelax.models.results import relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_its_keywords_are_the_fields_that_have_a_default():
    optional = {f.name for f in fields(RelaxationProblem) if (f.default, f.default_factory) != (MISSING, MISSING)}
    assert ProblemFields.__annotations__.keys() == optional - {"assumptions", "target"}


def test_starts():
    case = mlp_case()
    passed = case.network.feedforward(case.x)
    feedforward = problem_of(case).initial_state()
    assert all(torch.equal(feedforward[name], passed.activities[name]) for name in case.network.hidden)
    silent = problem_of(case, start="zero").initial_state()
    assert all(not x.any() for x in silent.values())
    given = {name: torch.randn_like(x) for name, x in feedforward.items()}
    assert all(problem_of(case, start=given).initial_state()[name] is x for name, x in given.items())
    assert list(feedforward) == case.network.hidden[::-1]


def test_from_zero_the_direction_of_a_chains_gradient_is_exact():
    """Only the factor P(K >= L - l) < 1 remains (docs/theory.md)."""
    case = mlp_case()
    exact = solve(problem_of(case), "equilibrium").final
    final = solve(problem_of(case, start="zero"), "euler", steps=12, eta=0.2).final
    for name in case.network.hidden:
        factor = (final[name] * exact[name]).sum() / (exact[name] ** 2).sum()
        assert relative_error(final[name], factor * exact[name]) < 1e-13
        assert 0.3 < factor < 0.95


def test_each_sample_has_its_own_clamp():
    """A sample relaxes identically alone and in a batch."""
    case = graph_case()
    together = solve(problem_of(case), steps=12, eta=0.2).final
    alone = RelaxationProblem.from_batch(case.network, case.x[1:2], case.y[1:2])
    for name, x in solve(alone, steps=12, eta=0.2).final.items():
        assert relative_error(x[0], together[name][1]) < 1e-13


@pytest.mark.catches("clip on one side only")
@pytest.mark.parametrize("integrator", ["euler", "sequential", "exponential", "heun"])
def test_clip_bounds_the_bracket(integrator):
    case = mlp_case()
    free, clipped = problem_of(case), problem_of(case, clip=0.05)
    state = free.initial_state()
    slopes, bounded = free.vector_field(state), clipped.vector_field(state)  # -x + feedback, since tau is 1
    assert max(float(slope.abs().max()) for slope in slopes.values()) > 0.5
    for name in case.network.hidden:
        assert torch.equal(bounded[name], slopes[name].clamp(-0.05, 0.05))
    final = solve(clipped, integrator, steps=3, eta=0.2).final
    for name in case.network.hidden:
        assert (final[name] - state[name]).abs().max() <= 3 * 0.2 * 0.05 + 1e-15
    assert relative_error(final["hidden1"], solve(free, integrator, steps=3, eta=0.2).final["hidden1"]) > 1e-3
    loose = solve(problem_of(case, clip=100.0), integrator, steps=3, eta=0.2).final
    assert relative_error(loose["hidden1"], solve(free, integrator, steps=3, eta=0.2).final["hidden1"]) < 1e-14


def test_clip_leaves_the_equilibrium_where_it_is():
    case = mlp_case()
    free, clipped = problem_of(case), problem_of(case, clip=0.05)
    assert torch.equal(solve(clipped, "equilibrium").final["hidden1"], solve(free, "equilibrium").final["hidden1"])


def test_a_network_without_hidden_populations_has_nothing_to_relax():
    case = mlp_case(widths=(6, 4))
    final = solve(problem_of(case), "euler").final
    assert list(final) == ["output"]


def test_one_kind_is_enough_to_unfreeze_or_to_be_continuous():
    case = graph_case()
    for kind in ("dense", "conv"):
        current = problem_of(case, assumptions=Assumptions(**{kind: Knobs(activity_gain="current")}))
        continuous = problem_of(case, assumptions=Assumptions(**{kind: Knobs(plasticity="continuous")}))
        assert (current.is_frozen, current.assumptions.is_continuous) == (False, False)
        assert (continuous.is_frozen, continuous.assumptions.is_continuous) == (True, True)


def test_vector_field_is_zero_at_equilibrium():
    case = graph_case()
    problem = problem_of(case, tau={"conv1": 3.0})
    exact = solve(problem, "equilibrium").final
    state = {name: exact[name] for name in problem.relaxing}
    assert all(slope.abs().max() < 1e-15 for slope in problem.vector_field(state).values())
    start = problem.initial_state()
    expected = (problem.feedback("conv1", start) - start["conv1"]) / 3.0
    assert torch.equal(problem.vector_field(start)["conv1"], expected)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"dynamics": None}, r"^dynamics must map populations to UnitDynamics, got NoneType\.$"),
        ({"clip": "x"}, r"^clip must be positive, got 'x'\.$"),
        ({"clip": 0.0}, r"^clip must be positive, got 0\.0\.$"),
        ({"assumptions": "x"}, r"^unknown assumptions 'x'"),
    ],
)
def test_what_is_refused(fields, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(mlp_case(), **fields)


def test_clamp_of_the_wrong_shape():
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"^clamped must be of the output's shape \(3, 4\), got \(3, 5\)\.$"):
        RelaxationProblem(case.network, case.network.feedforward(case.x), torch.zeros(3, 5))


def test_repr_can_be_pasted_into_an_issue():
    assert repr(problem_of(mlp_case(), tau={"hidden2": 2.0}, start="zero", clip=50.0, assumptions="unfrozen")) == (
        "RelaxationProblem(8-7-6-5-4, batch 3, tau of hidden2 given, start 'zero', clip 50.0, assumptions 'unfrozen')"
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"noise": -0.1}, r"^noise of 'hidden3' must be 0 or positive, got -0\.1\.$"),
        ({"noise": {"hidden9": 0.1}}, r"^noise names an unknown population 'hidden9'; known: hidden3, hidden2"),
        ({"noise": {"input": 0.1}}, r"^noise names an unknown population 'input'"),
        ({"noise": {"hidden1": torch.ones(3)}}, r"^noise of 'hidden1' must be a number or of shape \(7,\), got \(3,\)"),
        ({"input_noise": -1.0}, r"^input_noise must be a number, 0 or positive, got -1\.0\.$"),
        ({"input_noise": "1"}, r"^input_noise must be a number, 0 or positive, got '1'\.$"),
        ({"tau": {"input": 0.5}}, r"^tau names an unknown population 'input'"),
    ],
)
def test_levels_of_noise_that_are_refused(fields, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(mlp_case(), **fields)


def test_no_noise_is_none():
    problem = problem_of(mlp_case(), noise={"hidden1": torch.zeros(7), "hidden2": 0.0}, input_noise=0)
    assert not problem.is_noisy
    solve(problem, "rk4", steps=2)


def test_repr_says_what_biology_does():
    problem = problem_of(mlp_case(), noise=0.1, delays={"hidden1->hidden2": 0.2}, feedback_transform="quantised-16")
    assert repr(problem).endswith(
        "assumptions 'ar', noise 0.1, input noise 0, delays of hidden1->hidden2 given, "
        "feedback transform Quantised(levels=16))"
    )
    assert repr(problem_of(mlp_case(), feedback_transform=torch.sign)).endswith("'ar', feedback transform sign)")
    everywhere = problem_of(mlp_case(widths=(8, 6, 6, 4)), tau=torch.ones(6), delays=0.5)
    assert "tau given, start 'feedforward', clip None, assumptions 'ar', delays 0.5)" in repr(everywhere)
