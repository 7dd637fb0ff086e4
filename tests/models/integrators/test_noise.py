"""Noise. Oracles: the recursion with the same random numbers, its moments, the variance of an isolated unit."""

import math

import numpy as np
import pytest
import torch
from networks import Case, graph_case, make_case, mlp_case
from scipy.linalg import solve_discrete_lyapunov
from torch import nn

from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import add_noise
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


def relaxed(case, seed=4, steps=12, dt=0.2, **fields):
    return solve(problem_of(case, **fields), "euler", steps=steps, dt=dt, generator=seeded(seed))


@pytest.mark.catches("noise of half the variance")
def test_equals_the_recursion_with_the_same_random_numbers():
    """x(n+1) = Euler's step + sigma sqrt(2 dt/tau) xi, xi standard normal, from the top down."""
    case = mlp_case()
    sigma = {"hidden1": torch.linspace(0.1, 0.5, 7), "hidden3": 0.3}
    tau = {"hidden1": 0.8, "hidden2": 1.3, "hidden3": torch.linspace(0.5, 1.5, 5)}
    noisy = relaxed(case, noise=sigma, tau=tau).final
    plain = problem_of(case, tau=tau)
    state, source = plain.initial_state(), seeded()
    for _ in range(12):
        state = INTEGRATORS["euler"].step(plain, state, 0.2)
        for name in ("hidden3", "hidden1"):
            xi = torch.randn(state[name].shape, generator=source)
            state[name] = state[name] + sigma[name] * (0.4 / torch.as_tensor(tau[name])).sqrt() * xi
    silent = solve(plain, "euler", steps=12, dt=0.2).final
    for name in case.network.hidden:
        assert relative_error(noisy[name], silent[name]) > 1e-3
        assert relative_error(noisy[name], state[name]) < 1e-13


def test_noise_is_as_precise_as_the_network():
    """A step of an isolated unit is accurate to double precision, whatever torch's default dtype."""
    case = mlp_case()
    problem = problem_of(case, noise=0.3, tau=0.7)
    torch.set_default_dtype(torch.float32)
    state = problem.initial_state()
    kicked = add_noise(problem, state, 0.2, seeded())
    xi = torch.randn(state["hidden3"].shape, generator=seeded(), dtype=torch.float64)
    assert relative_error(kicked["hidden3"] - state["hidden3"], 0.3 * math.sqrt(0.4 / 0.7) * xi) < 1e-14


def one_stimulus(case, copies):
    """Return many copies of the first sample, each with independent noise."""
    return Case(case.network, case.edges, case.x[:1].expand(copies, -1).clone(), case.y[:1].expand(copies).clone())


def test_moments_obey_their_linear_recursion():
    """m' = T m + b, S' = T S T^T + Q (docs/theory.md), each entry within 5 standard errors at a fixed seed."""
    case = one_stimulus(mlp_case(widths=(6, 4, 3, 3)), copies := 40_000)
    eta, sigma = {"hidden1": 0.25, "hidden2": 0.2}, {"hidden1": 0.4, "hidden2": 0.9}
    final = relaxed(case, noise=sigma, tau={"hidden1": 0.8}, seed=1).final
    W = [p.weight.detach().numpy() for p in case.network.projections.values()]
    b = [p.bias.detach().numpy() for p in case.network.projections.values()]
    x1 = np.tanh(W[0] @ case.x[0].numpy() + b[0])
    x2 = np.tanh(W[1] @ x1 + b[1])
    out = W[2] @ x2 + b[2]
    clamp = np.exp(out) / np.exp(out).sum() - np.eye(3)[int(case.y[0])]
    T = np.zeros((7, 7))
    T[:4, :4], T[4:, 4:] = (1 - eta["hidden1"]) * np.eye(4), (1 - eta["hidden2"]) * np.eye(3)
    T[:4, 4:] = eta["hidden1"] * W[1].T * (1 - x2**2)
    drift = np.concatenate([np.zeros(4), eta["hidden2"] * W[2].T @ clamp])
    Q = np.diag([2 * eta[v] * sigma[v] ** 2 for v, n in (("hidden1", 4), ("hidden2", 3)) for _ in range(n)])
    m, S = np.concatenate([x1, x2]), np.zeros((7, 7))
    for _ in range(12):
        m, S = T @ m + drift, T @ S @ T.T + Q
    states = torch.cat([final["hidden1"], final["hidden2"]], 1).numpy()
    variances = np.diag(S)
    assert (np.abs(states.mean(0) - m) < 5 * np.sqrt(variances / copies)).all()
    errors = np.sqrt((np.outer(variances, variances) + S**2) / copies)
    assert (np.abs(np.cov(states.T) - S) < 5 * errors).all()
    assert np.abs(S[:4, 4:]).max() > 20 * errors.max()  # noise propagates between layers


@pytest.mark.parametrize("eta", [0.2, 0.7])
def test_variance_of_a_lone_unit(eta):
    """Euler's stationary variance is sigma^2 / (1 - eta/2), not sigma^2, within 5 standard errors."""
    case = one_stimulus(mlp_case(widths=(6, 5, 4)), 10_000)
    for projection in case.network.projections.values():
        torch.nn.init.zeros_(projection.weight)
    final = relaxed(case, noise=0.6, tau=3.0, dt=3 * eta, steps=40, seed=2).final["hidden1"]
    variance, expected = float(final.square().mean()), 0.36 / (1 - eta / 2)
    error = expected * math.sqrt(2 / final.numel())
    assert expected - 0.36 > 10 * error
    assert abs(variance - expected) < 5 * error


def test_a_noisy_input_is_an_ornstein_uhlenbeck_process_around_the_stimulus():
    """s(n+1) = s + eta (stimulus - s) + sigma sqrt(2 eta) xi, with a separate tau, starting at the stimulus."""
    case = mlp_case()
    state = relaxed(case, input_noise=0.5, tau={"input": 0.4}).state
    s, source = case.x, seeded()
    for _ in range(12):
        xi = torch.randn(s.shape, generator=source)
        s = s + 0.5 * (case.x - s) + 0.5 * math.sqrt(2 * 0.5) * xi
    assert relative_error(state["input"], s) < 1e-13


def skipping_case():
    """Return a case whose input drives both hidden populations, so that the upper one's current gain depends on it."""
    edges = [
        ("input", "hidden1", [nn.Linear(8, 7)]),
        ("hidden1", "hidden2", [nn.Linear(7, 5)]),
        ("input", "hidden2", [nn.Linear(8, 5)]),
        ("hidden2", "output", [nn.Linear(5, 4)]),
    ]
    return make_case((8,), {"hidden1": "tanh", "hidden2": "tanh", "output": "identity"}, edges)


def test_a_noisy_input_matters_where_current_drives_are_read():
    """Current gains f'(a) depend on the noisy input, frozen gains don't; against the loop written out."""
    case = skipping_case()
    silent = solve(problem_of(case), "euler", steps=12, dt=0.2, evaluation="stepped").final
    frozen = relaxed(case, input_noise=0.5).final
    assert list(frozen) == list(silent)
    assert all(torch.equal(frozen[name], x) for name, x in silent.items())
    noisy = relaxed(case, input_noise=0.5, assumptions="unfrozen").final
    calm = relaxed(case, assumptions="unfrozen").final
    assert relative_error(noisy["hidden1"], calm["hidden1"]) > 1e-3
    W = {name: p.weight.detach() for name, p in case.network.projections.items()}
    b = sum(case.network.projections[name].bias.detach() for name in ("hidden1->hidden2", "input->hidden2"))
    x, source, s = problem_of(case).initial_state(), seeded(), case.x
    for _ in range(12):
        gain = 1 - torch.tanh(x["hidden1"] @ W["hidden1->hidden2"].T + s @ W["input->hidden2"].T + b) ** 2
        x = {
            "hidden1": 0.8 * x["hidden1"] + 0.2 * (gain * x["hidden2"]) @ W["hidden1->hidden2"],
            "hidden2": 0.8 * x["hidden2"] + 0.2 * noisy["output"] @ W["hidden2->output"],
        }
        s = s + 0.2 * (case.x - s) + 0.5 * math.sqrt(0.4) * torch.randn(s.shape, generator=source)
    assert all(relative_error(noisy[name], x[name]) < 1e-13 for name in x)


def test_the_generator_fixes_the_run():
    case = graph_case()
    first, again, other = (relaxed(case, noise=0.2, seed=seed).final for seed in (4, 4, 5))
    torch.manual_seed(4)
    globally = solve(problem_of(case, noise=0.2), "euler", steps=12, dt=0.2).final
    for name in case.network.hidden:
        assert torch.equal(first[name], again[name])
        assert torch.equal(first[name], globally[name])
        assert relative_error(first[name], other[name]) > 1e-3


def test_noise_and_delays_go_together():
    """Noise acts on units, not on delayed signals."""
    case = mlp_case()
    fields = {"noise": {"hidden1": 0.3}, "delays": {"hidden1->hidden2": 0.4}}
    noisy = relaxed(case, **fields).final
    silent = relaxed(case, delays=fields["delays"]).final
    assert torch.equal(noisy["hidden2"], silent["hidden2"])
    kicks, source = torch.zeros(3, 7), seeded()
    for _ in range(12):
        kicks = 0.8 * kicks + 0.3 * math.sqrt(0.4) * torch.randn(3, 7, generator=source)
    assert relative_error(noisy["hidden1"] - silent["hidden1"], kicks) < 1e-13


RINGING = UnitDynamics.second_order(tau=0.8, damping=0.4)
ADAPTING = UnitDynamics.adapting(tau=0.6, tau_adaptation=2.5, strength=1.7)


def test_units_with_dynamics_follow_the_recursion():
    """One random number per unit drives all its variables; leaky populations have separate ones."""
    case = mlp_case()
    fields = {"dynamics": {"hidden1": ADAPTING, "hidden2": RINGING}}
    sigma = {"hidden1": torch.linspace(0.1, 0.5, 7), "hidden2": 0.2, "hidden3": 0.3}
    noisy = relaxed(case, noise=sigma, **fields).state
    plain = problem_of(case, **fields)
    state, source = plain.initial_state(), seeded()
    for _ in range(12):
        state = INTEGRATORS["euler"].step(plain, state, 0.2)
        for name in ("hidden3", "hidden2", "hidden1"):
            scales = (
                {name: 2**0.5}
                if name == "hidden3"
                else {f"{name}.{i}": n for i, n in enumerate(fields["dynamics"][name].noise)}
            )
            xi = torch.randn(state[next(iter(scales))].shape, generator=source)
            for variable, n in scales.items():
                state[variable] = state[variable] + sigma[name] * n * 0.2**0.5 * xi
    assert noisy.keys() == state.keys()
    assert all(relative_error(noisy[v], x) < 1e-12 for v, x in state.items())


@pytest.mark.parametrize("engine", ["torch", "brian2"])
@pytest.mark.parametrize("dynamics", [RINGING, ADAPTING], ids=["ringing", "adapting"])
def test_variance_of_lone_units_with_dynamics(dynamics, engine):
    """S = T S T' + sigma^2 dt n n', with T = 1 + dt A, from thousands of units without input."""
    edges = [("input", "hidden1", [nn.Linear(2, 4000)]), ("hidden1", "output", [nn.Linear(4000, 2)])]
    case, dt = make_case((2,), {"hidden1": "tanh", "output": "identity"}, edges, batch=3), 0.1
    problem = problem_of(
        case, noise=0.5, feedback_transform=torch.zeros_like, start="zero", dynamics={"hidden1": dynamics}
    )
    final = solve(problem, "euler", dt=dt, steps=200, engine=engine, generator=seeded()).final["hidden1"]
    n, c = np.asarray(dynamics.noise), np.asarray(dynamics.c)
    S = solve_discrete_lyapunov(np.eye(2) + dt * np.asarray(dynamics.A), 0.25 * dt * np.outer(n, n))
    assert float(final.var(correction=0)) == pytest.approx(c @ S @ c, rel=5 * (2 / final.numel()) ** 0.5)


def test_scipy_refuses_noise():
    problem = problem_of(mlp_case(), noise=0.1, dynamics={"hidden1": RINGING})
    with pytest.raises(
        ActrelaxError, match=r'^"scipy:RK45" can\'t be used here: it does not support noise: use "euler"'
    ):
        solve(problem, "RK45", dt=0.1)
