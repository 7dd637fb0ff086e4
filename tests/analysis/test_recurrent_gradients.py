"""Ways to the gradient of networks with cycles. Oracle: implicit differentiation by autograd."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from networks import RECURRENT, conv_recurrent_case, mlp_case, recurrent_case

from actrelax.analysis.recurrent_gradients import compare, nudged, solution, updates
from actrelax.models.engines import Settle, Steps, settle, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, backprop_backward
from actrelax.models.problem import RelaxationProblem

TIGHT = Settle(Steps.until(1e-13, eta=0.5))
GAINS = {"dense": 1.2, "hierarchy": 0.5}


def problem_of(case):
    passed = settle(case.network, case.x, TIGHT)
    return RelaxationProblem.from_batch(case.network, passed, case.y, start="zero")


def implicit(case):
    own = copy.deepcopy(case.network)
    backprop_backward(own, case.x, case.y, options=BackwardOptions(settle=TIGHT))
    found = [w.grad for p in own.projections.values() for w in (p.weight, p.bias) if w is not None]
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_the_reference_is_the_implicit_gradient(make):
    case = make()
    problem = problem_of(case)
    exact = implicit(case)
    assert float((updates(problem, solution(problem)) - exact).norm() / exact.norm()) < 1e-9


@pytest.fixture(scope="module", params=GAINS)
def rows(request):
    case = RECURRENT[request.param](gain=GAINS[request.param])
    case.network.double()
    found = compare(case.network, case.x.double(), case.y, (1, 5, 20, 60, 200))
    return {(row.method, row.steps): row for row in found}


def test_steps_through_time_are_steps_of_ar(rows):
    for n in (1, 5, 20):
        assert rows["k steps", n].error == pytest.approx(rows["AR", n].error, rel=1e-8)
        assert rows["k steps", n].predicted == rows["AR", n].predicted


def test_errors_fall_as_predicted(rows):
    for method in ("AR", "second order"):
        early, late = [row for n in (5, 20, 60, 200) if (row := rows[method, n]).error > 1e-11][-2:]
        assert early.error < early.predicted
        assert late.error < late.predicted < 0.1
        fell = math.log(early.error / late.error)
        assert fell == pytest.approx(math.log(early.predicted / late.predicted), rel=0.15)
    assert rows["BPTT", 60].predicted is rows["GMRES", 60].predicted is None
    assert rows["one step", 1].error > 0.1


def test_a_complete_basis_is_exact_and_bptt_approaches_the_gradient(rows):
    assert rows["GMRES", 60].error < 1e-12 < rows["GMRES", 5].error
    errors = [rows["BPTT", n].error for n in (5, 20, 60)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2 * errors[0]


def test_equilibrium_propagation_keeps_an_error_of_the_second_order_in_beta(rows):
    row = rows["EP", 200]
    assert 1e-9 < row.error < 1e-3
    assert row.predicted == pytest.approx(row.error, rel=0.02)
    assert rows["EP", 5].error == pytest.approx(rows["AR", 5].error, rel=1e-2)  # to first order its steps are AR's


def test_one_nudged_phase_is_exact_to_first_order_only_and_both_need_the_correction():
    case = RECURRENT["hierarchy"](gain=GAINS["hierarchy"])
    case.network.double()
    problem = problem_of(replace(case, x=case.x.double()))
    exact = updates(problem, solution(problem))

    def error(beta, **how):
        ((_, state),) = nudged(problem, 0.5, beta, [200], **how)
        return float((updates(problem, state) - exact).norm() / exact.norm())

    assert error(0.02) / error(0.01) == pytest.approx(4, rel=0.02)
    assert error(0.02, is_centred=False) / error(0.01, is_centred=False) == pytest.approx(2, rel=0.02)
    assert error(0.01) < 1e-2 * error(0.01, is_centred=False) < 1e-2 < 0.05 < error(0.01, is_corrected=False)


def test_costs(rows):
    assert {
        method: rows[method, 20].products for method in ("AR", "second order", "k steps", "GMRES", "BPTT", "EP")
    } == {
        **dict.fromkeys(("AR", "second order", "k steps", "GMRES"), 20),
        "BPTT": 40,
        "EP": 120,
    }


def test_nudged_phases_with_pooling_and_convolutions():
    case = conv_recurrent_case()
    problem = problem_of(case)
    rest = solve(problem, "equilibrium", Steps.until(1e-13)).final
    found = dict(nudged(problem, 0.5, 1e-4, [150]))[150]
    for name, x in found.items():
        assert float((x - rest[name]).abs().max()) < 1e-6 * float(rest[name].abs().max())


def test_what_is_refused():
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"^the comparison needs a network with cycles in float64: pass network\."):
        compare(case.network, case.x, case.y, (1,))
    case = recurrent_case()
    with pytest.raises(ActrelaxError, match="in float64"):
        compare(case.network.float(), case.x.float(), case.y, (1,))
