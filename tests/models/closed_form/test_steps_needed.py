"""The number of steps that a relaxation needs, against SciPy's distributions and the stepped relaxation."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import deep_case, dense_graphs, graph_case, mlp_case
from scipy import stats

from actrelax.models.closed_form import gradient_steps, remainders, steps_until
from actrelax.models.engines import INTEGRATORS, Steps, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, relax_backward
from actrelax.models.network import build
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Status, relative_error

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, loss=case.loss, **fields)


def deep(layers, **fields):
    network = build(f"mlp-{layers}x4", input_shape=(4,), generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(1))
    return RelaxationProblem.from_batch(network, x, torch.tensor([0, 1]), **fields)


DISTRIBUTIONS = {
    "euler": lambda n, eta: stats.binom(n, eta),
    "sequential": lambda n, eta: stats.nbinom(n, 1 - eta),
    "exact": lambda n, eta: stats.poisson(n * eta),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("eta", "steps"), [(0.1, 1), (0.1, 60), (0.3, 200)])
@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_what_remains_of_the_start_is_a_distribution_function(name, eta, steps, tau):
    """P(K < hops to the clamp), from the lowest population up."""
    problem = deep(7, tau=tau)
    found = remainders(problem, INTEGRATORS[name], dt=eta * tau, steps=steps)
    assert list(found) == [f"hidden{i}" for i in range(1, 7)]
    K = DISTRIBUTIONS[name](steps, eta)
    assert list(found.values()) == pytest.approx([K.cdf(hops - 1) for hops in range(6, 0, -1)], rel=1e-9)


@given(dense_graphs(), st.integers(0, 40))
def test_on_graphs_the_longest_path_counts(case, steps):
    """Hops are counted independently, from the output down."""
    found = remainders(problem_of(case), INTEGRATORS["euler"], dt=0.2, steps=steps)
    network = case.network
    hops = {network.output: 0}
    for name in network.hidden[::-1]:
        hops[name] = 1 + max(hops[p.target] for p in network.outgoing[name])
    for name, left in found.items():
        assert left == pytest.approx(stats.binom(steps, 0.2).cdf(hops[name] - 1), rel=1e-9, abs=1e-300)


def test_remainders_with_time_constants_of_their_own():
    """1 - C[l, L]: the rest of initial activities of one without a clamp, with feedback weights of one."""
    case = mlp_case(widths=(1,) * 6)
    with torch.no_grad():
        for p in case.network.projections.values():
            p.weight.fill_(1.0)
    taus = {name: 1.0 + i for i, name in enumerate(case.network.hidden)}
    problem = problem_of(case, tau=taus, assumptions="no-derivatives")
    start = {v: torch.ones_like(x) for v, x in problem.initial_state().items()}
    unclamped = RelaxationProblem(
        problem.network, problem.feedforward, 0 * problem.clamped, problem.assumptions, tau=taus, start=start
    )
    for name in STEPPED:
        left = solve(unclamped, name, dt=0.5, steps=9, evaluation="stepped").final
        for v, x in remainders(problem, INTEGRATORS[name], dt=0.5, steps=9).items():
            assert float(left[v][0, 0]) == pytest.approx(x, rel=1e-12)


@pytest.mark.catches("settled a step early")
@pytest.mark.parametrize(("layers", "steps"), [(5, 205), (20, 459), (50, 876)])
def test_as_many_steps_as_the_theory_says(layers, steps):
    """Synchronous, eta 0.1, tolerance 1e-6: the smallest n with P(Binomial(n, 0.1) < layers - 1) <= 1e-6."""
    trajectory = solve(deep(layers), "euler", Steps.until(1e-6, eta=0.1))
    assert (trajectory.steps, trajectory.status, trajectory.evaluation) == (steps, Status.SETTLED, "closed-form")
    assert stats.binom(steps, 0.1).cdf(layers - 2) <= 1e-6 < stats.binom(steps - 1, 0.1).cdf(layers - 2)
    assert trajectory.feedback_applications == layers - 1  # one vector is enough now


@pytest.mark.parametrize("name", [*STEPPED, "exact"])
@pytest.mark.parametrize("eta", [0.1, 0.7, 1.5])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
@pytest.mark.filterwarnings("ignore:eta is 1.5")
def test_no_step_more_than_it_takes(name, eta, tolerance):
    """n steps are enough and n - 1 are not; above eta = 1 remainders may grow before they shrink."""
    problem, scheme = problem_of(graph_case()), INTEGRATORS[name]
    steps = steps_until(problem, scheme, dt=eta, tolerance=tolerance)

    def left(n):
        return max(remainders(problem, scheme, dt=eta, steps=n).values())

    assert left(steps) <= tolerance * (1 + 1e-9)
    assert all(left(n) > tolerance for n in range(steps))
    assert steps_until(problem, scheme, dt=eta, tolerance=tolerance, most=steps) == steps
    assert steps_until(problem, scheme, dt=eta, tolerance=tolerance, most=steps - 1) is None


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("integrator", STEPPED)
def test_the_result_is_within_the_tolerance_of_the_steps(make, integrator):
    """The result is the equilibrium, which differs from the stepped state by the remaining initial activities."""
    problem = problem_of(make())
    until = Steps.until(1e-5, eta=0.2)
    auto = solve(problem, integrator, until)
    stepped = solve(problem, integrator, eta=0.2, steps=auto.steps, evaluation="stepped")
    exact = solve(problem, "equilibrium").final
    starts = problem.initial_state()
    most = max(float(x.abs().max()) for x in starts.values())
    differs = False
    for name, x in stepped.final.items():
        assert relative_error(auto.final[name], x, magnitude=torch.tensor(most)) < 3e-5
        assert torch.equal(auto.final[name], exact[name])
        differs |= not torch.equal(x, exact[name])
    assert differs
    chosen = solve(problem, integrator, until, evaluation="stepped")
    assert (chosen.steps, chosen.status, chosen.evaluation) == (auto.steps, Status.SETTLED, "stepped")
    assert all(torch.equal(chosen.final[name], x) for name, x in stepped.final.items())
    recorded = solve(problem, integrator, until, record=True)
    assert (len(recorded.times), recorded.status) == (auto.steps + 1, Status.SETTLED)


@pytest.mark.parametrize("of", ["activity", "gradient"])
@pytest.mark.parametrize("tolerance", [0.5, 1e-3])
def test_a_loose_tolerance_gives_the_state_of_the_steps(of, tolerance):
    problem, until = problem_of(mlp_case()), Steps.until(tolerance, of=of, eta=0.2)
    found = solve(problem, "euler", until)
    stepped = solve(problem, "euler", found.steps, eta=0.2, evaluation="stepped").final
    rest = solve(problem, "equilibrium").final
    assert (found.status, found.evaluation) == (Status.SETTLED, "closed-form")
    assert all(relative_error(found.final[name], x) < 1e-12 for name, x in stepped.items())
    assert any(relative_error(rest[name], x) > tolerance / 100 for name, x in stepped.items())


@pytest.mark.parametrize("make", [lambda: mlp_case(gain=0.2), graph_case, lambda: mlp_case(widths=(6,) * 12, gain=0.5)])
@pytest.mark.parametrize("start", ["feedforward", "zero"])
def test_relative_to_gradients(make, start):
    """The stepped relaxation ends within the tolerance of each population's gradient."""
    problem = problem_of(make(), start=start)
    plain = solve(problem, "euler", Steps.until(1e-4, eta=0.1))
    careful = solve(problem, "euler", Steps.until(1e-4, of="gradient", eta=0.1))
    assert careful.status is Status.SETTLED
    if start == "feedforward":
        assert careful.steps > plain.steps
    elif problem.network.graph.is_chain:
        assert careful.steps == plain.steps
    else:  # a part of the clamp arrives by shorter paths
        assert careful.steps <= plain.steps
    exact = solve(problem, "equilibrium").final
    stepped = solve(problem, "euler", eta=0.1, steps=careful.steps, evaluation="stepped").final
    errors = [relative_error(stepped[v], exact[v]) for v in problem.network.hidden]
    assert max(errors) <= 1e-4 * (1 + 1e-9)
    assert max(errors) > 1e-5  # not many more steps than needed


@pytest.mark.parametrize("depth", [6, 30])
@pytest.mark.parametrize("gain", [0.4, 0.9, 1.5])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_relative_to_gradients_whatever_feedback_does(depth, gain, scale):
    """Amplifying feedback also propagates remainders of populations above with small gradients, which must count."""
    case = deep_case(depth, gain)
    usual = problem_of(case, assumptions="random-feedback")
    problem = RelaxationProblem(case.network, usual.feedforward, scale * usual.clamped, usual.assumptions)
    auto = solve(problem, "euler", Steps.until(1e-4, of="gradient", eta=0.1))
    assert auto.status is Status.SETTLED
    exact = solve(problem, "equilibrium").final
    worst = max(relative_error(auto.final[v], exact[v]) for v in case.network.hidden)
    assert 2e-6 < worst <= 1e-4 * (1 + 1e-9)


@st.composite
def frozen_problems(draw):
    """Chains whose feedback has a drawn gain per hop, and graphs with skips."""
    gains, start = st.floats(0.2, 1.5), draw(st.sampled_from(["feedforward", "zero"]))
    if draw(st.booleans()):
        case = deep_case(draw(st.integers(2, 12)), draw(gains), seed=draw(st.integers(0, 1000)))
        return problem_of(case, assumptions="random-feedback", start=start)
    return problem_of(draw(dense_graphs(gains)), start=start)


def farthest(problem, integrator, eta, steps):
    """Return the largest distance from equilibrium of any population after the steps, relative to its gradient."""
    begun, exact = problem.initial_state(), solve(problem, "equilibrium").final
    reached = solve(problem, integrator, steps, eta=eta, evaluation="stepped").final

    def largest(x):
        return float(x.abs().max())

    scales = {name: largest(exact[name]) or largest(begun[name]) or 1.0 for name in problem.network.hidden}
    return max(largest(reached[name] - exact[name]) / scale for name, scale in scales.items())


@settings(max_examples=60)
@given(frozen_problems(), st.sampled_from(STEPPED), st.floats(0.05, 1.0), st.sampled_from([1e-2, 1e-4, 1e-6]))
def test_the_stepped_relaxation_is_within_the_tolerance_of_its_gradient(problem, integrator, eta, tolerance):
    """Holds in every population, and a third of the steps are not enough."""
    steps = gradient_steps(problem, INTEGRATORS[integrator], dt=eta, tolerance=tolerance)
    assert solve(problem, integrator, Steps.until(tolerance, of="gradient", eta=eta)).steps == steps
    assert farthest(problem, integrator, eta, steps) <= tolerance * (1 + 1e-9)
    if steps >= 6:
        assert farthest(problem, integrator, eta, steps // 3) > tolerance


def test_relative_to_gradients_where_there_are_none():
    """Populations without feedback, and networks without hidden populations, need no further steps."""
    case = mlp_case("relu")
    with torch.no_grad():
        case.network.incoming["hidden2"][0].weight.zero_()
        case.network.incoming["hidden2"][0].bias.fill_(-1)
    assert solve(problem_of(case), steps=Steps.until(of="gradient")).status is Status.SETTLED
    alone = problem_of(mlp_case(widths=(4, 3)))
    for of in ("activity", "gradient"):
        trajectory = solve(alone, steps=Steps.until(of=of))
        assert (trajectory.steps, trajectory.status) == (0, Status.SETTLED)


WITHOUT_A_LAW = {
    "unfrozen": {"assumptions": "unfrozen-relaxation"},
    "delays": {"delays": 0.4},
    "clip": {"clip": 0.1},
    "tau per neuron": {"tau": {"hidden1": torch.linspace(1.0, 2.0, 7)}},
}


@pytest.mark.parametrize("what", WITHOUT_A_LAW)
def test_without_a_law_it_steps_until_nothing_changes(what):
    """The criterion is the change per step, relative to the largest activity and to dt over each neuron's tau."""
    problem = problem_of(mlp_case(), **WITHOUT_A_LAW[what])
    auto = solve(problem, "euler", Steps.until(1e-7, dt=0.2))
    assert (auto.status, auto.evaluation) == (Status.SETTLED, "stepped")
    same = solve(problem, "euler", Steps.until(1e-7 * 0.2, of="change", dt=0.2))
    assert auto.steps > 50
    if what != "tau per neuron":
        assert all(torch.equal(auto.final[v], x) for v, x in same.final.items())
    longer = solve(problem, "euler", dt=0.2, steps=3 * auto.steps, evaluation="stepped").final
    assert all(relative_error(auto.final[v], longer[v]) < 1e-6 for v in problem.network.hidden)
    with pytest.raises(ActrelaxError, match=r'^of="gradient" needs the closed form, otherwise pass of="change": .*\.$'):
        solve(problem, "euler", Steps.until(of="gradient", dt=0.2))


UNSETTLED = r"^not settled after 7 steps: pass Steps\.until with a larger most or tolerance\.$"


@pytest.mark.parametrize("fields", [{}, {"clip": 0.1}], ids=["closed form", "stepped"])
def test_most_steps_end_it_with_a_warning(fields):
    problem = problem_of(mlp_case(), **fields)
    with pytest.warns(UserWarning, match=UNSETTLED):
        trajectory = solve(problem, "euler", Steps.until(eta=0.2, most=7))
    assert (trajectory.status, trajectory.steps) == (Status.NOT_SETTLED, 7)
    seven = solve(problem, "euler", eta=0.2, steps=7)
    assert trajectory.evaluation == seven.evaluation == ("stepped" if fields else "closed-form")
    assert all(torch.equal(trajectory.final[v], x) for v, x in seven.final.items())


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("fields", [{}, {"clip": 0.1}], ids=["closed form", "stepped"])
def test_learning_warns_as_well(fields, keep):
    case, options = mlp_case(), BackwardOptions(keep=keep)
    with pytest.warns(UserWarning, match=UNSETTLED) as caught:
        relax_backward(case.network, case.x, case.y, Steps.until(most=7), options=options, **fields)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relax_backward(case.network, case.x, case.y, Steps.until(), options=options, **fields)


def test_what_never_settles_is_refused():
    for noise in ({"noise": 0.1}, {"input_noise": 0.1}):
        with pytest.raises(
            ActrelaxError,
            match=r"^a relaxation with noise never settles: pass a number of steps in place of Steps\.until\.$",
        ):
            solve(problem_of(mlp_case(), **noise), "euler", Steps.until())


@pytest.mark.parametrize("fields", [{}, {"clip": 0.1}], ids=["closed form", "stepped"])
@pytest.mark.parametrize(
    ("engine", "integrator"),
    [
        ("scipy", "scipy:RK45"),
        ("brian2", "euler"),
        ("brian2", "brian2:rk4"),
    ],
)
def test_other_engines_settle_as_well(engine, integrator, fields):
    """With a closed form they stop after a computed number of steps, otherwise by the change per step."""
    problem = problem_of(mlp_case(), **fields)
    until = Steps.until(1e-5, eta=0.1)
    trajectory = solve(problem, integrator, until, engine=engine)
    assert (trajectory.engine, trajectory.status, trajectory.evaluation) == (engine, Status.SETTLED, "stepped")
    exact = solve(problem, "equilibrium").final
    most = max(float(x.abs().max()) for x in problem.initial_state().values())
    for v in problem.network.hidden:
        assert relative_error(trajectory.final[v], exact[v], magnitude=torch.tensor(most)) < 1e-4
    if not fields:
        ours = {"scipy:RK45": "exact"}.get(integrator, integrator)
        like = solve(problem, ours, until)
        assert trajectory.time == pytest.approx(like.time, rel=1e-12)
    if engine == "scipy":
        with pytest.warns(UserWarning, match=UNSETTLED):
            short = solve(problem, integrator, Steps.until(eta=0.1, most=7), engine=engine)
        assert short.status is Status.NOT_SETTLED
