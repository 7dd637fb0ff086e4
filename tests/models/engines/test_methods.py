"""Integrators by name, including other engines' methods. Oracles: binomial law with 1 - R(-z), Poisson law."""

import math

import numpy as np
import pytest
import torch
from networks import mlp_case
from scipy import stats

from actrelax.models.closed_form import predict, uncovered
from actrelax.models.engines import BRIAN2, ENGINES, INTEGRATORS, SCIPY, integrator_named, solve, unsupported
from actrelax.models.engines.methods import NOISY
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import chain_matrix, coefficients
from actrelax.models.problem import RelaxationProblem

DEPTH = 6


STABILITY = {
    "euler": lambda z: 1 + z,
    "milstein": lambda z: 1 + z,
    "heun": lambda z: 1 + z,
    "rk2": lambda z: 1 + z + z * z / 2,
    "rk4": lambda z: sum(z**k / math.factorial(k) for k in range(5)),
}


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_ours_pass_through_by_name_and_as_they_are():
    for name, integrator in INTEGRATORS.items():
        assert integrator_named(name) is integrator
        assert integrator_named(integrator) is integrator
    own = integrator_named("scipy:RK45")
    assert integrator_named(own) is own


@pytest.mark.parametrize("method", SCIPY)
def test_scipys_methods_need_no_prefix(method):
    bare, full = integrator_named(method), integrator_named(f"scipy:{method}")
    assert (bare.name, bare.engine, bare.method) == (full.name, full.engine, full.method)
    problem = problem_of(mlp_case())
    found, expected = (solve(problem, name, 3, dt=0.2) for name in (method, f"scipy:{method}"))
    assert found.integrator == expected.integrator == f"scipy:{method}"
    assert all(torch.equal(found.final[name], x) for name, x in expected.final.items())


@pytest.mark.parametrize("method", SCIPY)
def test_scipys_methods_follow_the_flow(method):
    """They have no order and no stability limit, and their prediction is Poisson(t/tau)."""
    integrator = integrator_named(f"scipy:{method}")
    assert (integrator.name, integrator.engine) == (f"scipy:{method}", "scipy")
    assert (integrator.order, integrator.stability_limit) == (None, math.inf)
    assert (integrator.takes_time, integrator.takes_noise, integrator.takes_delays) == (True, False, False)
    C = coefficients(integrator.transition, chain_matrix([1.0] * DEPTH), 0.3, 5)
    expected = [stats.poisson.pmf(k, 1.5) for k in range(DEPTH)] + [stats.poisson.sf(DEPTH - 1, 1.5)]
    np.testing.assert_allclose(C[0], expected, rtol=1e-12)


@pytest.mark.parametrize("method", BRIAN2)
@pytest.mark.parametrize("dt", [0.2, 0.9])
def test_brian2s_updaters_follow_the_binomial_law(method, dt):
    """The summed input is held within a step: K ~ Binomial(n, 1 - R(-dt/tau)), whatever the updater's name."""
    integrator = integrator_named(f"brian2:{method}")
    assert (integrator.name, integrator.engine) == (f"brian2:{method}", "brian2")
    p = 1 - STABILITY.get(method, math.exp)(-dt / 0.7)
    law = stats.binom(9, p)
    C = coefficients(integrator.transition, chain_matrix([0.7] * DEPTH), dt, 9)
    if p <= 1:
        np.testing.assert_allclose(C[0], [*law.pmf(range(DEPTH)), law.sf(DEPTH - 1)], rtol=1e-9, atol=1e-15)
    alone = 1 - C[-2, -1]
    assert alone == pytest.approx((1 - p) ** 9, rel=1e-9)


@pytest.mark.parametrize("method", BRIAN2)
def test_brian2s_updaters_with_several_taus(method):
    """Each hidden row has its eta: a sweep of x_l + eta_l (x_(l+1) - x_l), written out."""
    taus = np.array([0.5, 1.3, 0.8])
    step = integrator_named(f"brian2:{method}").transition(chain_matrix(taus), 0.4)
    eta = 1 - np.array([STABILITY.get(method, math.exp)(-0.4 / tau) for tau in taus])
    x = np.array([0.3, -1.0, 2.0, 0.7])
    expected = np.append(x[:-1] + eta * np.diff(x), x[-1])
    np.testing.assert_allclose(step @ x, expected, rtol=1e-12)


@pytest.mark.parametrize("method", [m for m in BRIAN2 if BRIAN2[m][1] < math.inf])
def test_limits_of_stability_are_where_a_lone_unit_stops_to_decay(method):
    limit = integrator_named(f"brian2:{method}").stability_limit
    stability = STABILITY[method]
    assert abs(stability(-0.999 * limit)) < 1 < abs(stability(-1.001 * limit))


def test_who_accepts_noise_and_delays():
    for method in BRIAN2:
        integrator = integrator_named(f"brian2:{method}")
        assert integrator.takes_noise is (method in NOISY)
        assert integrator.takes_delays
    assert set(NOISY) <= set(BRIAN2)
    problem = problem_of(mlp_case(), noise=0.1)
    refusal = 'it does not support noise: use "euler", or one of Brian2\'s methods that do.'
    assert integrator_named("brian2:rk4").unsupported(problem) == refusal
    assert integrator_named("brian2:heun").unsupported(problem) is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "scipy:RK5",
            r"^integrator 'scipy:RK5' names an unknown SciPy method 'RK5'; known: RK23, RK45, DOP853, Radau, BDF, LS",
        ),
        ("scipy:", r"^integrator 'scipy:' names an unknown SciPy method ''; known"),
        (
            "brian2:rk5",
            r"^integrator 'brian2:rk5' names an unknown Brian2 state updater 'rk5'; known: linear",
        ),
        ("jax:euler", r"^integrator 'jax:euler' names an unknown engine 'jax'; known: scipy, brian2\.$"),
        ("rk5", r"^unknown integrator 'rk5'; known: euler, .*, equilibrium, RK23, RK45, .*LSODA, brian2:METHOD\.$"),
        (5, r"^unknown integrator 5; known: euler"),
    ],
)
def test_unknown_names(name, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        integrator_named(name)
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), name)


@pytest.mark.parametrize("name", ["scipy:RK45", "brian2:rk4"])
def test_they_belong_to_one_engine(name):
    case = mlp_case()
    problem, scheme = problem_of(case), integrator_named(name)
    with pytest.raises(ActrelaxError) as refused:
        scheme.step(problem, problem.initial_state(), 0.1)
    assert str(refused.value) == f'"{name}" can\'t take single steps outside its engine: use solve.'
    for engine in ENGINES:
        reason = unsupported(problem, name, engine) if engine in ("torch", "scipy") else None
        if engine in ("torch", "scipy") and engine != scheme.engine:
            assert reason == f'"{name}" is a method of another engine.'
            with pytest.raises(ActrelaxError, match="is a method of another engine"):
                solve(problem, name, engine=engine)


def test_the_law_is_predicted_for_them_too():
    """`predict` uses the transition: brian2:linear is the exponential scheme on a chain."""
    problem = problem_of(mlp_case(), tau={"hidden1": 0.7})
    theirs = predict(problem, integrator_named("brian2:linear"), dt=0.2, steps=12)
    stepped = solve(problem, "exponential", dt=0.2, steps=12).final
    assert all(torch.allclose(x, stepped[name], rtol=1e-12, atol=1e-14) for name, x in theirs.items())


@pytest.mark.parametrize("name", [name for name, scheme in INTEGRATORS.items() if not scheme.takes_noise])
@pytest.mark.parametrize("fields", [{"noise": 0.1}, {"input_noise": 0.1}], ids=["units", "input"])
def test_which_integrators_refuse_noise(name, fields):
    problem = problem_of(mlp_case(), **fields)
    with pytest.raises(ActrelaxError) as refused:
        solve(problem, name, **({} if name == "equilibrium" else {"dt": 0.2}))
    assert str(refused.value) == (
        f'"{name}" can\'t be used here: it does not support noise: use "euler", or one of Brian2\'s methods that do.'
    )
    assert (
        uncovered(problem)
        == "the closed form needs a relaxation without noise: leave noise out, or step the relaxation."
    )


@pytest.mark.parametrize("name", [name for name, scheme in INTEGRATORS.items() if not scheme.takes_delays])
def test_which_integrators_refuse_delays(name):
    problem = problem_of(mlp_case(), delays=0.2)
    with pytest.raises(ActrelaxError) as refused:
        solve(problem, name, **({} if name == "equilibrium" else {"dt": 0.2}))
    assert str(refused.value) == (
        f'"{name}" can\'t be used here: it does not support delays: use "euler", or one of Brian2\'s methods.'
    )
    assert (
        uncovered(problem) == "the closed form needs feedback without delays: leave delays out, or step the relaxation."
    )
