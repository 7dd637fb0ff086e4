"""Moments equal the recursion written out; deviations are detected, with few false alarms."""

import numpy as np
import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.analysis.checks import sampling
from actrelax.analysis.checks.moments import Moments, deviations, scheme_moments
from actrelax.analysis.checks.sampling import verify_noise
from actrelax.models.engines import Steps
from actrelax.models.engines import torch as torch_engine
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem

STEPS = Steps(12, eta=0.2)


def problem_of(case, **fields):
    def copies(count):
        x, y = case.x[:1].expand(count, *case.x.shape[1:]), case.y[:1].expand(count)
        return RelaxationProblem.from_batch(case.network, x.contiguous(), y.contiguous(), **{"noise": 0.3, **fields})

    return copies


@pytest.mark.parametrize("make", [mlp_case, graph_case])
def test_moments_written_out(make):
    """m' = T m + c and S' = T S T^T + Q, with T from the problem's vector field, for unequal sigma and tau."""
    case = make()
    width = case.network.populations["hidden1"].shape[0], case.network.populations["hidden2"].shape[0]
    fields = {"noise": {"hidden1": torch.linspace(0.1, 0.4, width[0]), "hidden2": 0.2}, "tau": {"hidden2": 2.0}}
    problem = problem_of(case, **fields)(1)
    names = problem.relaxing
    sizes = [problem.initial_state()[v].numel() for v in names]

    def joined(state):
        return torch.cat([state[v].flatten() for v in names])

    def field(vector):
        parts = vector.split(sizes)
        return joined(
            problem.vector_field(
                {v: part.view_as(problem.initial_state()[v]) for v, part in zip(names, parts, strict=True)}
            )
        )

    n = sum(sizes)
    offset = field(torch.zeros(n))
    T = torch.eye(n) + 0.2 * torch.stack([field(torch.eye(n)[i]) - offset for i in range(n)], dim=1)
    tau = torch.cat([torch.full((s,), 2.0 if v == "hidden2" else 1.0) for v, s in zip(names, sizes, strict=True)])
    sigma = {"hidden1": fields["noise"]["hidden1"], "hidden2": torch.full((width[1],), 0.2)}
    sigma = torch.cat([sigma.get(v, torch.zeros(s)) for v, s in zip(names, sizes, strict=True)])
    mean, covariance = joined(problem.initial_state()), torch.zeros(n, n)
    for _ in range(12):
        mean = T @ mean + 0.2 * offset
        covariance = T @ covariance @ T.T + torch.diag(2 * 0.2 / tau * sigma**2)
    found = scheme_moments(problem, 0.2, 12, most=10**6)
    assert found.mean == pytest.approx(mean.numpy(), abs=1e-12)
    assert found.covariance == pytest.approx(covariance.numpy(), abs=1e-14)
    assert found.populations == tuple(v for v, s in zip(names, sizes, strict=True) for _ in range(s))
    few = scheme_moments(problem, 0.2, 12, most=3)
    rows = [found.populations.index(v) + i for v, i in zip(few.populations, few.units, strict=True)]
    assert len(rows) == 3 * len(names)
    assert few.covariance == pytest.approx(found.covariance[np.ix_(rows, rows)], abs=1e-14)


def test_a_lone_unit_has_eulers_variance():
    """sigma^2 / (1 - eta / 2), not sigma^2."""
    problem = problem_of(mlp_case())(1)
    top = scheme_moments(problem, 0.2, 400)
    lone = [i for i, v in enumerate(top.populations) if v == "hidden3"]  # feedback comes from the clamp alone
    assert top.covariance[np.ix_(lone, lone)] == pytest.approx(0.09 / 0.9 * np.eye(len(lone)), abs=1e-12)


def drawn(count, covariance, mean, seed=0):
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, size=count)


@pytest.fixture
def moments():
    root = np.random.default_rng(1).normal(size=(6, 6))
    mean = np.arange(6) / 10
    return Moments(("b", "b", "b", "a", "a", "a"), (0, 1, 2, 0, 1, 2), mean, root @ root.T)


@pytest.mark.parametrize("count", [2, 10, 5000])
def test_right_samples_deviate_as_normal_variables_do(moments, count):
    found = [list(deviations(drawn(count, moments.covariance, moments.mean, seed), moments)) for seed in range(50)]
    largest = [max(error for _, _, error in each) for each in found]
    # the largest of forty correlated numbers is about 2.2, and exceeds 4.5 once in three thousand cases
    assert 1.5 < np.median(largest) < 3
    assert max(largest) < 4.5
    assert [each[:2] for each in found[0]] == [("mean", "a"), ("mean", "b"), ("covariance", "a"), ("covariance", "b")]


@pytest.mark.parametrize(
    ("defect", "found"),
    [
        (lambda m, s: (m + 0.15 * np.sqrt(s[4, 4]) * np.eye(6)[4], s), {("mean", "a")}),
        (lambda m, s: (m, s * 1.2), {("covariance", "a"), ("covariance", "b")}),
        (lambda m, s: (m, np.diag(s.diagonal())), {("covariance", "a"), ("covariance", "b")}),
        # only the covariance between the two populations is missing, which counts for the lower one
        (lambda m, s: (m, s * np.kron(np.eye(2), np.ones((3, 3)))), {("covariance", "a")}),
    ],
    ids=["mean", "variance", "correlation", "across"],
)
def test_wrong_samples_deviate(moments, defect, found):
    mean, covariance = defect(moments.mean, moments.covariance)
    errors = deviations(drawn(5000, covariance, mean), moments)
    assert {row[:2] for row in errors if row[2] > 6} == found


def test_few_samples_show_a_defect_that_is_everywhere():
    wide = Moments(("a",) * 60, tuple(range(60)), np.zeros(60), np.eye(60))
    samples = drawn(20, 1.5 * np.eye(60), np.zeros(60))
    errors = {row[0]: row[2] for row in deviations(samples, wide)}
    assert errors["covariance"] > 8
    assert {row[0]: row[2] for row in deviations(samples / 1.5**0.5, wide)}["covariance"] < 5


def test_engines_draw_as_the_scheme_should():
    report = verify_noise(problem_of(mlp_case()), STEPS, samples=2000)
    assert report.ok
    rows = {(row.engine, row.integrator) for row in report.rows}
    assert rows >= {("torch", "euler"), ("brian2", "euler"), ("brian2", "brian2:heun"), ("brian2", "brian2:milstein")}
    assert {row.reference for row in report.rows} == {"mean of the scheme", "covariance of the scheme"}
    assert {row.population for row in report.rows} == {"hidden1", "hidden2", "hidden3"}
    assert "torch euler: 2,000 samples." in report.remarks
    assert all(5 < row.bound < 7 for row in report.rows)


@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_wrong_noise_is_found(monkeypatch, factor):
    right = torch_engine.add_noise

    def add_noise(problem, state, dt, generator):
        return {v: state[v] + factor * (x - state[v]) for v, x in right(problem, state, dt, generator).items()}

    monkeypatch.setattr(torch_engine, "add_noise", add_noise)
    report = verify_noise(problem_of(mlp_case()), STEPS, samples=2000, engines=["torch"])
    assert {row.reference for row in report.rows if not row.ok} == {"covariance of the scheme"}


def test_runs_in_parts_that_fit(monkeypatch):
    """Memory limits the number of samples that run at once, and does not affect the total."""
    sizes = []
    monkeypatch.setattr(sampling, "ACTIVITIES", 3000)  # 30 per sample
    copies = problem_of(mlp_case())

    def counting(count):
        sizes.append(count)
        return copies(count)

    report = verify_noise(counting, STEPS, samples=250, engines=["torch"])
    assert report.ok
    assert [size for size in sizes if size > 1] == [100, 100, 50]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"assumptions": "unfrozen"}, "a check of noise needs a linear relaxation: leave out noise or current gains."),
        ({"clip": 1.0}, "a check of noise needs a linear relaxation: leave out noise or clip."),
        ({"delays": 0.2}, "a check of noise needs feedback without delays: leave out noise or delays."),
        ({"input_noise": 0.1}, "input noise has no effect on a relaxation with constant gains: leave it out, or"),
    ],
)
def test_what_has_no_recursion(fields, sentence):
    with pytest.raises(ActrelaxError) as refused:
        verify_noise(problem_of(mlp_case(), **fields), STEPS)
    assert sentence in str(refused.value)


def test_noise_takes_time():
    with pytest.raises(ActrelaxError, match=r"^a check of noise needs one step or more, got 0\.$"):
        verify_noise(problem_of(mlp_case()), Steps(0, eta=0.2))
    with pytest.raises(ActrelaxError, match=r"^nothing can be compared: scipy leaves out euler: SciPy runs its own"):
        verify_noise(problem_of(mlp_case()), STEPS, engines=["scipy"], integrators=["euler"])
