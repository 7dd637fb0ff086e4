"""The checks of networks with cycles pass, and detect a defect in either phase."""

from dataclasses import replace

import pytest
import torch
from networks import RECURRENT, hierarchy_case

from actrelax.analysis.checks import two_phases as module
from actrelax.analysis.checks.compare import verify
from actrelax.analysis.checks.two_phases import verify_rates, verify_spectra, verify_unrolled
from actrelax.analysis.implicit_gradients import implicit_gradients
from actrelax.models.engines import INTEGRATORS, SCIPY, Settle, Steps, settle
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import LOSSES, ForwardProblem, RelaxationProblem

STEPS = Steps(12, eta=0.2)
TIGHT = Settle(Steps.until(1e-13, eta=0.5))
FAST = ("torch", "scipy", "closed-form")


def settled(case):
    return settle(case.network, case.x, TIGHT)


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, settled(case), case.y, loss=case.loss, **fields)


def references(report):
    return {(row.engine, row.integrator, row.reference) for row in report.rows}


@pytest.mark.parametrize("name", RECURRENT)
def test_relaxations_agree_with_the_sum_over_walks(name):
    case = RECURRENT[name]()
    problem = problem_of(case)
    gradients = implicit_gradients(case.network, problem.feedforward, case.y, loss=case.loss)
    report = verify(problem, gradients, STEPS, engines=FAST)
    assert report.ok
    found = references(report)
    assert ("torch", "euler", "binomial law") in found
    assert ("torch", "sequential", "law of its sweeps") in found
    assert ("scipy", "scipy:DOP853", "Poisson law") in found
    assert ("closed-form", "sequential", "torch sequential") in found
    assert {reference for _, integrator, reference in found if integrator == "equilibrium"} == {
        "autograd",
        "sparse solve",
    }
    assert max(row.error for row in report.rows if row.bound == 1e-10 and row.integrator != "equilibrium") < 1e-13


def test_a_gradient_of_one_pass_is_not_the_implicit_gradient():
    """Cycles matter here: without them the gradient at the rates is another."""
    case = hierarchy_case()
    problem = problem_of(case)
    gradients = implicit_gradients(case.network, problem.feedforward, case.y)
    wrong = {name: x * (1 + 1e-8) for name, x in gradients.items()}
    report = verify(problem, wrong, STEPS, engines=["torch"], integrators=["equilibrium"])
    assert {row.reference for row in report.rows if not row.ok} == {"autograd"}


@pytest.mark.parametrize("name", RECURRENT)
def test_rates(name):
    case = RECURRENT[name]()
    report = verify_rates(ForwardProblem(case.network, case.x, tau=0.8), settled(case), STEPS, engines=FAST)
    assert report.ok
    assert {row.population for row in report.rows} == {*case.network.hidden, case.network.output}
    stepped = {row.integrator for row in report.rows if row.engine == "torch"}
    assert stepped == {name for name, scheme in INTEGRATORS.items() if scheme.order is not None}
    adaptive = {row.integrator for row in report.rows if row.engine == "scipy"}
    assert adaptive == (set() if name == "conv" else {f"scipy:{method}" for method in SCIPY})  # max pooling


def test_other_rates_disagree():
    case = hierarchy_case()
    rates = settled(case)
    shifted = replace(rates, activities=rates.activities | {"b": rates.activities["b"] * (1 + 1e-8)})
    report = verify_rates(ForwardProblem(case.network, case.x), shifted, STEPS, engines=["torch"])
    assert {row.population for row in report.rows if not row.ok} == {"b"}


def test_rates_that_do_not_settle_are_refused():
    case = RECURRENT["dense"](gain=60.0)
    with pytest.raises(ActrelaxError, match=r"^the rates have not settled after 10,000 steps: give a smaller --set"):
        verify_rates(ForwardProblem(case.network, case.x), settled(RECURRENT["dense"]()), Steps(eta=1.0))
    few = Steps.until(1e-13, eta=0.2, most=5)
    with pytest.raises(ActrelaxError, match=r"^the rates have not settled after 5 steps: give a smaller --settle-eta"):
        verify_rates(ForwardProblem(RECURRENT["dense"]().network, case.x), settled(RECURRENT["dense"]()), few)


def test_a_tolerance_is_a_tolerance_of_the_comparison_too():
    case = RECURRENT["dense"]()
    report = verify_rates(
        ForwardProblem(case.network, case.x), settled(case), Steps.until(1e-4, eta=0.2), engines=["torch"]
    )
    assert report.ok
    assert all(row.bound == pytest.approx(2e-3) for row in report.rows)
    assert max(row.error for row in report.rows) > 1e-6


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_unrolled_steps(name, eta):
    case = RECURRENT[name]()
    report = verify_unrolled(problem_of(case), case.y, LOSSES[case.loss], eta)
    assert report.ok
    assert {row.reference for row in report.rows} == {f"BPTT through {n} step{'s' * (n > 1)}" for n in (1, 5, 20)}
    assert {row.population for row in report.rows} >= {case.network.output}


def test_unrolled_steps_of_another_size_or_number_disagree(monkeypatch):
    case, original = hierarchy_case(), module.unrolled_gradients
    problem, loss = problem_of(case), LOSSES[case.loss]
    for defect in (
        lambda problem, y, loss, eta, steps: original(problem, y, loss, eta * (1 + 1e-9), steps),
        lambda problem, y, loss, eta, steps: original(problem, y, loss, eta, steps + 1),
    ):
        monkeypatch.setattr(module, "unrolled_gradients", defect)
        report = verify_unrolled(problem, case.y, loss, 0.3)
        assert not [row for row in report.rows if row.ok and row.population == "head"]


@pytest.mark.parametrize("name", RECURRENT)
def test_spectra(name):
    case = RECURRENT[name]()
    case.x, case.y = case.x[:1], case.y[:1]
    report = verify_spectra(problem_of(case))
    assert report.ok
    assert [row.reference for row in report.rows] == ["transpose of J_F", "eigenvalues of J_F"]


def test_spectra_of_other_feedback_differ(generator):
    case = hierarchy_case()
    case.x, case.y = case.x[:1], case.y[:1]
    case.network.add_feedback("random-feedback", generator)
    report = verify_spectra(problem_of(case, assumptions="random-feedback"))
    assert not any(row.ok for row in report.rows)


def test_large_networks_compare_matrices_alone(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 20)
    case = hierarchy_case()
    case.x, case.y = case.x[:1], case.y[:1]
    report = verify_spectra(problem_of(case))
    assert [row.reference for row in report.rows] == ["transpose of J_F"]
    assert report.remarks == ["eigenvalues of J_B and J_F are compared up to 20 neurons, got 33."]
    assert torch.isfinite(torch.tensor(report.rows[0].error))
