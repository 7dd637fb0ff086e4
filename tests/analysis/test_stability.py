"""Stability of networks with cycles.

Oracles: Jacobians by autograd and by unit vectors, dense eigenvalues, growth measured in both phases.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import RECURRENT, graph_case, hierarchy_case, make_case, recurrent_case, responses_of
from scipy import sparse
from scipy.optimize import brentq
from torch import nn

from actrelax.analysis import spectra, transient_growth
from actrelax.analysis.stability import (
    condition_of_largest,
    delay_margin,
    jacobian,
    largest_step,
    loop_matrix,
    predicted_steps,
    radius,
    stability,
    worst_time_constants,
)
from actrelax.models.engines import Settle, Steps, settle, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.problem import ForwardProblem, RelaxationProblem, UnitDynamics

TIGHT = Settle(Steps.until(1e-13, eta=0.5))


def one_sample(case, **fields):
    if fields.get("assumptions") in ("random-feedback", "sign-feedback", "simplified"):
        case.network.add_feedback(fields["assumptions"], torch.Generator().manual_seed(5))
    passed = settle(case.network, case.x[:1], TIGHT)
    return RelaxationProblem.from_batch(case.network, passed, case.y[:1], loss="cross-entropy", **fields)


def flat(problem, state):
    return torch.cat([state[v].flatten() for unit in problem.units.values() for v in unit.variables])


def by_unit_vectors(problem, at=0.0):
    """Return the Jacobian of `vector_field` around a constant state, by central differences; exact where linear."""
    start = {v: torch.full_like(x, at) for v, x in problem.initial_state().items()}
    columns = []
    for v, x in start.items():
        for i in range(x.numel()):
            step = torch.zeros(x.numel())
            step[i] = 1e-6
            moved = [problem.vector_field(start | {v: x + sign * step.reshape(x.shape)}) for sign in (1, -1)]
            columns.append((flat(problem, moved[0]) - flat(problem, moved[1])) / 2e-6)
    order = [v for unit in problem.units.values() for v in unit.variables]
    assert list(start) == order
    return torch.stack(columns, 1).numpy()


ASSUMPTIONS = ["ar", "random-feedback", "sign-feedback", "no-derivatives-relaxation", "simplified", "unfrozen"]


@pytest.mark.parametrize("assumptions", ASSUMPTIONS)
@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_the_jacobian_of_a_relaxation(make, assumptions, generator):
    """Under any assumption, with a time constant per neuron and second-order units."""
    case = make()
    names = case.network.hidden
    shapes = {name: case.network.populations[name].shape for name in names}
    tau = {name: 0.3 + 2.7 * torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    dynamics = {}
    if make is hierarchy_case:
        del tau["b"]
        dynamics = {"b": UnitDynamics.second_order(tau=1.3, damping=0.6)}
    problem = one_sample(case, assumptions=assumptions, tau=tau, dynamics=dynamics, clip=None if dynamics else 1e9)
    expected = by_unit_vectors(problem)
    assert np.abs(jacobian(problem).toarray() - expected).max() < 1e-7 * np.abs(expected).max()
    lone = by_unit_vectors(replace(problem, tau=1.0, dynamics={}))
    np.fill_diagonal(lone, lone.diagonal() + 1)
    assert np.abs(loop_matrix(problem).toarray() - lone).max() < 1e-7


def test_current_gains_are_those_without_recurrent_drive():
    """Not the gains of the settled rates, and not those of another state."""
    problem = one_sample(recurrent_case(gain=1.5), assumptions="unfrozen")
    silent, held = (loop_matrix(p).toarray() for p in (problem, replace(problem, assumptions="ar")))
    assert np.abs(silent - held).max() > 0.02
    expected = by_unit_vectors(problem, at=0.2)
    assert np.abs(jacobian(problem).toarray() - expected).max() > 0.02


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_both_phases(make, generator):
    """The forward phase by autograd; with the same time constants and units both have the same eigenvalues."""
    case = make()
    problem = one_sample(case)
    names = problem.relaxing
    rates = {name: problem.feedforward.activities[name] for name in [*names, case.network.output]}

    def respond(*parts):
        r = dict(zip(names, parts, strict=True)) | {"input": case.x[:1]}
        towards = responses_of(case, r)
        return tuple(towards[name] for name in names)

    found = torch.autograd.functional.jacobian(respond, tuple(rates[name] for name in names))
    M = np.block([[np.asarray(j.reshape(rates[v].numel(), -1)) for j, u in zip(row, names, strict=True)]
                  for row, v in zip(found, names, strict=True)])  # fmt: skip
    assert np.abs(loop_matrix(problem, "forward").toarray() - M).max() < 1e-12
    assert np.abs(loop_matrix(problem).toarray() - M.T).max() < 1e-12
    tau = {v: 0.3 + 2.7 * torch.rand(case.network.populations[v].shape, generator=generator) for v in names}
    for fields in ({"tau": tau}, {"dynamics": {names[0]: UnitDynamics.second_order(tau=0.7, damping=0.8)}}):
        each = [stability(replace(problem, **fields), phase) for phase in ("forward", "backward")]
        for name, value in vars(each[0]).items():
            assert value == pytest.approx(getattr(each[1], name), rel=1e-8, nan_ok=True), name
    J = jacobian(replace(problem, tau=tau), "forward").toarray()
    T = np.concatenate([tau[v].flatten().numpy() for v in names])
    assert np.abs(J - (M - np.eye(len(M))) / T[:, None]).max() < 1e-12


@pytest.fixture
def large():
    """Return a problem with 520 + 30 units in a cycle and a stem, whose eigenvalues have |m| > 1 and Re m < 1."""
    edges = [
        ("input", "stem", [nn.Linear(4, 20)]),
        ("stem", "a", [nn.Linear(20, 520)]),
        ("a", "a", [nn.Linear(520, 520, bias=False)]),
        ("a", "b", [nn.Linear(520, 30)]),
        ("b", "a", [nn.Linear(30, 520, bias=False)]),
        ("a", "output", [nn.Linear(520, 3)]),
    ]
    case = make_case((4,), {"stem": "tanh", "a": "tanh", "b": "tanh", "output": "identity"}, edges, gain=0.2)
    turn = torch.block_diag(*[torch.tensor([[0.0, 1.2], [-1.2, 0.0]])] * 8, torch.zeros(504, 504))
    with torch.no_grad():
        case.network.projections["a->a"].weight.add_(turn)
    how = Settle(Steps.until(1e-12, eta=0.3))
    passed = settle(case.network, case.x[:1], how)
    return RelaxationProblem.from_batch(case.network, passed, case.y[:1])


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_large_networks_are_as_small_ones(large, phase):
    """ARPACK against a dense solver; units outside the cycle have defective eigenvalues, which are exact."""
    matrix = loop_matrix(large, phase)
    assert len(spectra.blocks(matrix)) == 21
    m = np.linalg.eigvals(matrix.toarray())
    outside = m[np.abs(m) > 1]
    assert 4 < len(outside) < 40
    assert outside.real.max() < 1
    found = stability(replace(large, tau=2.0), phase)
    assert found.abscissa == pytest.approx(m.real.max(), abs=1e-6)
    assert found.rate == pytest.approx((m.real.max() - 1) / 2, abs=1e-6)
    assert found.radius == pytest.approx(np.abs(m).max(), abs=1e-6)
    assert found.largest_eta == pytest.approx((2 * (1 - m.real) / np.abs(1 - m) ** 2).min(), rel=1e-6)
    s = np.sqrt(np.abs(outside) ** 2 - 1)
    assert found.delay_margin == pytest.approx(((np.abs(np.angle(outside)) - np.arctan(s)) / s).min(), rel=1e-6)
    symmetric = (matrix + matrix.T).toarray() / 2
    assert found.numerical_abscissa == pytest.approx(np.linalg.eigvalsh(symmetric)[-1], abs=1e-6)
    assert found.settles


def test_without_cycles_eigenvalues_are_exact():
    """Of a graph with skips: those of lone units, which a dense solver misses by far."""
    problem = one_sample(graph_case())
    found = stability(replace(problem, tau=4.0))
    assert (found.abscissa, found.radius, found.rate, found.delay_margin) == (0.0, 0.0, -0.25, math.inf)
    assert found.largest_eta == 2.0


def small(weights, **fields):
    """Return a problem whose loop matrix is given: linear units, a population each."""
    n = len(weights)
    names = [f"u{i}" for i in range(n)]
    edges = [("input", name, [nn.Linear(2, 1)]) for name in names]
    edges += [(u, v, [nn.Linear(1, 1, bias=False)]) for u in names for v in names]
    edges += [(u, "output", [nn.Linear(1, 3)]) for u in names]
    case = make_case((2,), dict.fromkeys([*names, "output"], "identity"), edges)
    with torch.no_grad():
        for i, v in enumerate(names):
            for j, u in enumerate(names):
                case.network.projections[f"{u}->{v}"].weight.fill_(weights[i][j])
    return one_sample(case, start="zero", **fields)


def growth(problem, phase, dt, time=400.0):
    """Return the measured rate at which the distance from rest grows."""
    if phase == "forward":
        rest = dict(problem.feedforward.activities)
        hidden = problem.network.hidden
        shared = {name: getattr(problem, name) for name in ("tau", "delays", "dynamics")}
        if isinstance(shared["tau"], dict):
            shared["tau"] = shared["tau"] | {problem.network.output: 1.0}
        problem = ForwardProblem(problem.network, problem.feedforward.activities["input"], **shared)
    else:
        hidden = problem.network.hidden
        rest = solve(replace(problem, delays=0.0, tau=1.0, dynamics={}), "equilibrium", Steps.until(1e-13)).final
    integrator = "euler" if problem.delay.times else "rk4"
    found = solve(problem, integrator, Steps(dt=dt, duration=time), record=hidden)
    away = torch.stack([(found[v] - rest[v]).abs().flatten(1).amax(1) for v in hidden]).amax(0)
    quarter = len(away) // 4
    return math.log(float(away[-quarter:].max() / away[-2 * quarter : -quarter].max())) / (time / 4)


INHIBITION = [[1.6, -1.5], [1.4, -0.6]]


@pytest.mark.parametrize("phase", ["forward", "backward"])
class TestTheOnsetOfInstability:
    """Measured on both sides of the criterion, 3 % away: the growth rate vanishes within 2 % of it."""

    def check(self, make, phase, predicted, dt, time=400.0):
        low, high = (growth(make(predicted * by), phase, dt, time) for by in (0.97, 1.03))
        assert low * high < 0
        onset = 0.97 + 0.06 * low / (low - high)
        assert onset == pytest.approx(1.0, abs=0.02)

    def test_time_constants(self, phase):
        def make(ratio):
            return small(INHIBITION, tau={"u0": 1.0, "u1": float(ratio)})

        predicted = brentq(lambda ratio: stability(make(ratio), phase).rate, 1.5, 4.0)
        assert predicted == pytest.approx(1.6 / 0.6, rel=1e-6)
        self.check(make, phase, predicted, 0.2)

    def test_delays(self, phase):
        weights = [[-1.9, 0.4], [-0.3, -0.8]]
        predicted = stability(small(weights), phase).delay_margin
        assert 1 < predicted < 3
        self.check(lambda d: small(weights, delays=round(d / 0.01) * 0.01), phase, predicted, 0.01, time=80.0)

    def test_second_order_units(self, phase):
        def make(damping):
            unit = UnitDynamics.second_order(tau=1.0, damping=float(damping))
            return small([[0.3, -1.2], [1.2, 0.3]], dynamics={"u0": unit, "u1": unit})

        predicted = brentq(lambda damping: stability(make(damping), phase).rate, 0.3, 2.0)
        assert predicted == pytest.approx(math.sqrt(1.2**2 / (4 * 0.7)), rel=1e-6)
        self.check(make, phase, predicted, 0.2)


def test_where_stable_the_equilibrium_is_the_same():
    expected = solve(small(INHIBITION), "equilibrium", Steps.until(1e-13)).final
    assert stability(small(INHIBITION)).delay_margin > 0.15
    unit = UnitDynamics.second_order(tau=1.0, damping=1.0)
    for fields in ({"tau": {"u0": 1.0, "u1": 2.0}}, {"delays": 0.1}, {"dynamics": {"u0": unit, "u1": unit}}):
        problem = small(INHIBITION, **fields)
        assert stability(problem).settles
        found = solve(problem, "euler", Steps.until(1e-12, dt=0.05))
        for name, x in found.final.items():
            assert float((x - expected[name]).abs().max()) < 1e-9 * float(expected[name].abs().max())


@pytest.mark.filterwarnings("ignore:eta is 1")
@pytest.mark.parametrize("make", [recurrent_case, hierarchy_case])
def test_the_largest_step_of_euler_is_sharp(make):
    problem = one_sample(make(gain=1.0), start="zero")
    eta = stability(problem).largest_eta
    assert 0.5 < eta < 2
    settled = solve(problem, "euler", Steps.until(1e-9, eta=0.98 * eta))
    assert settled.status.value == "settled"
    steps = [float(solve(problem, "euler", n, eta=1.02 * eta).final["a"].abs().max()) for n in (400, 800)]
    assert steps[1] > 2 * steps[0]
    assert largest_step(sparse.csr_array(np.diag([0.5, -1.0]))) == 0


UNIT = UnitDynamics.second_order(tau=0.4, damping=0.7)


@pytest.mark.parametrize("fields", [{"tau": {"u0": 1.0, "u1": 2.0}}, {"dynamics": {"u1": UNIT}}], ids=["taus", "units"])
def test_without_a_single_tau(fields):
    """eta and a delay relative to tau mean nothing; the step size is sharp, and M is what it was."""
    problem = small(INHIBITION, tau=1.0)
    alone, found = stability(problem), stability(replace(problem, **fields))
    assert (alone.largest_eta, alone.abscissa) == (alone.largest_dt, found.abscissa)
    assert math.isnan(found.largest_eta)
    assert math.isnan(found.delay_margin)
    dt = found.largest_dt
    assert abs(dt / alone.largest_dt - 1) > 0.1
    rest = solve(problem, "equilibrium", Steps.until(1e-13)).final["u0"]
    for share, shrinks in ((0.9, True), (1.1, False)):
        found = solve(replace(problem, **fields), "euler", 800, dt=share * dt, record=["u0"])["u0"]
        away = (found - rest).abs().flatten(1).amax(1)
        assert bool(away[600:].max() < 0.5 * away[:200].max()) == shrinks
        assert bool(away[600:].max() > 2 * away[:200].max()) != shrinks
    twice = stability(replace(problem, tau=2.0))
    assert (twice.largest_dt, twice.largest_eta) == pytest.approx((2 * alone.largest_eta, alone.largest_eta))
    assert twice.delay_margin == alone.delay_margin


def test_where_arpack_does_not_converge(monkeypatch, generator):
    """LAPACK takes over: all eigenvalues of a shift around a ring have the same magnitude."""
    ring = sparse.csr_array(np.roll(np.eye(100), 1, axis=0))
    monkeypatch.setattr(spectra, "LARGE", 50)
    monkeypatch.setattr(spectra, "_RESTARTS", 1)
    assert radius(ring) == pytest.approx(1)
    assert spectra.rightmost_eigenvalue(ring) == pytest.approx(1)
    assert condition_of_largest(ring) == pytest.approx((1, 1))
    dense = torch.randn(100, 100, generator=generator).numpy()
    largest = np.linalg.eigvalsh(dense + dense.T)[-1] / 2
    assert spectra.numerical_abscissa(sparse.csr_array(dense)) == pytest.approx(largest)
    monkeypatch.setattr(spectra, "AFFORDABLE", 99)
    for compute in (radius, condition_of_largest, spectra.numerical_abscissa):
        with pytest.raises(
            ActrelaxError, match=r"eigenvalues of 100 unknowns, and LAPACK is used up to 99: watch the rel"
        ):
            compute(ring)


def test_the_number_of_steps_is_predicted(generator):
    """A little too high, by up to 15 %: errors have a share in the slowest direction, and are not all of it."""
    for seed in range(5):
        edges = [
            ("input", "a", [nn.Linear(3, 40)]),
            ("a", "a", [nn.Linear(40, 40)]),
            ("a", "output", [nn.Linear(40, 2)]),
        ]
        case = make_case((3,), {"a": "tanh", "output": "identity"}, edges, gain=2.0, seed=seed)
        problem = one_sample(case, start="zero")
        assert 0.3 < stability(problem).abscissa < 1
        J = jacobian(problem)
        predicted = predicted_steps((sparse.eye_array(40) + 0.4 * J).tocsr(), 1e-9)
        rest = solve(problem, "equilibrium", Steps.until(1e-13)).final["a"]
        found = solve(problem, "euler", 2 * int(predicted), eta=0.4, record=["a"])["a"]
        away = (found - rest).flatten(1).norm(dim=1)
        measured = int((away > 1e-9 * away[0]).sum())
        assert 0.85 * predicted < measured <= predicted
    assert predicted_steps(sparse.csr_array(np.diag([0.5, 1.0])), 1e-3) == math.inf


def test_the_worst_time_constants():
    problem = small(INHIBITION)
    equal, ones = worst_time_constants(problem, 1, 0)
    assert ones == {"u1": 1.0, "u0": 1.0}
    assert equal == pytest.approx(stability(problem).rate, rel=1e-9)
    found, taus = worst_time_constants(problem, 50, 0)
    assert found > 0 > equal
    assert taus["u1"] / taus["u0"] > 1.6 / 0.6
    assert math.prod(taus.values()) == pytest.approx(1)
    assert stability(replace(problem, tau=taus)).rate == pytest.approx(found, rel=1e-9)
    assert worst_time_constants(problem, 50, 0) == (found, taus)
    with pytest.raises(ActrelaxError, match=r"^spread, the largest time constant, must be above 1, got 1\."):
        worst_time_constants(problem, 2, 0, spread=1)
    for tries in (0, -1):
        with pytest.raises(ActrelaxError, match=rf"^tries must be a whole number, 1 or more, got {tries}\.$"):
            worst_time_constants(problem, tries, 0)


def test_noise_does_not_change_it():
    fields = {"tau": {"a": 2.0, "input": 3.0}, "input_noise": 0.1, "noise": 0.1}
    assert stability(one_sample(recurrent_case(), **fields)) == stability(one_sample(recurrent_case(), tau={"a": 2.0}))


def test_captured_networks_have_no_forward_phase():
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    x = torch.rand(1, 4)
    problem = RelaxationProblem.from_batch(Network.from_module(module, x), x, torch.tensor([1]))
    with pytest.raises(ActrelaxError, match=r"^a captured network's module computes its rates: it has no phase"):
        stability(problem, "forward")
    assert stability(problem).settles


def test_reach_and_kreiss_constant_with_cycles():
    """The rightmost eigenvalues are complex, off the diagonal: their neighbourhood is searched too."""
    A = jacobian(small(INHIBITION, tau={"u0": 1.0, "u1": 2.6}))
    dense = A.toarray()
    rightmost = np.linalg.eigvals(dense).real.max()
    assert rightmost < 0 < A.diagonal().max()
    far = spectra.reach(A, 0.05)
    line = [np.linalg.svd((x + 1j * y) * np.eye(2) - dense, compute_uv=False)[-1]
            for x in np.linspace(rightmost, 1, 400) for y in np.linspace(0, 2, 200)]  # fmt: skip
    grid = np.array(line).reshape(400, 200)
    farthest = np.linspace(rightmost, 1, 400)[(grid <= 0.05).any(1)].max()
    assert rightmost < far <= farthest + 1e-2
    assert far == pytest.approx(farthest, abs=0.02)
    kreiss = transient_growth.kreiss_constant(A)
    x, y = np.meshgrid(np.geomspace(1e-4, 10, 200), np.linspace(0, 2, 400))
    brute = max(a / np.linalg.svd((a + 1j * b) * np.eye(2) - dense, compute_uv=False)[-1]
                for a, b in zip(x.ravel(), y.ravel(), strict=True))  # fmt: skip
    assert kreiss == pytest.approx(brute, rel=1e-2)
    growing = max(transient_growth.propagator_norms(A, np.linspace(0, 20, 100)))
    assert 1.2 < kreiss < growing
    with pytest.raises(ActrelaxError, match=r"needs a stable A, got an eigenvalue with real part 0\.\d+: all must be"):
        transient_growth.kreiss_constant(jacobian(small(INHIBITION, tau={"u0": 1.0, "u1": 3.0})))


def test_what_is_refused():
    case = recurrent_case()
    problem = RelaxationProblem.from_batch(case.network, settle(case.network, case.x), case.y)
    with pytest.raises(ActrelaxError, match=r"^stability is a property of one sample, got a batch of 3: give a batch"):
        stability(problem)
    with pytest.raises(ActrelaxError, match=r"^unknown phase 'both'; known: forward, backward\."):
        loop_matrix(one_sample(case), "both")
    for tolerance in (0.0, -1.0, math.nan):
        with pytest.raises(ActrelaxError, match=rf"^tolerance must lie between 0 and 1, got {tolerance}\.$"):
            predicted_steps(sparse.csr_array(np.diag([0.5, 0.2])), tolerance)
    assert radius(sparse.csr_array(np.diag([0.5, -2.0]))) == 2
    assert delay_margin(sparse.csr_array(np.diag([1.0, -2.0]))) == 0
