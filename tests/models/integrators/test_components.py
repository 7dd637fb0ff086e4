"""Relaxations on networks with cycles: equilibrium, steps and updates.

Oracles: autograd through many forward steps, the implicit gradient by a dense solve, finite differences of the settled
loss, backpropagation through k forward steps, eigenvalues of Jacobians by autograd.
"""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from networks import RECURRENT, hierarchy_case, make_case, recurrent_case, recurrent_graphs, responses_of
from scipy import stats
from torch import nn

from actrelax.models.engines import Settle, Steps, settle, solve, unsupported
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import components, residual_of_equilibrium
from actrelax.models.integrators.components import equilibrium_by_components
from actrelax.models.learning import BackwardOptions, local_updates
from actrelax.models.problem import ForwardProblem, RelaxationProblem, UnitDynamics, loss_named

TIGHT = Settle(Steps.until(1e-14, eta=0.5))
EXACT = Steps.until(1e-13)


@pytest.fixture(params=list(RECURRENT))
def case(request):
    return RECURRENT[request.param]()


def problem_of(case, **fields):
    passed = settle(case.network, case.x, TIGHT)
    return RelaxationProblem.from_batch(case.network, passed, case.y, loss="cross-entropy", **fields)


def moving(case):
    return [*case.network.hidden, case.network.output]


def stepped(case, rates, steps, eta=0.4):
    """Return the rates after forward Euler steps, differentiable."""
    for _ in range(steps):
        towards = responses_of(case, {"input": case.x, **rates})
        rates = {name: r + eta * (towards[name] - r) for name, r in rates.items()}
    return rates


def zeros(case):
    return {name: torch.zeros(len(case.x), *case.network.populations[name].shape) for name in moving(case)}


def loss_at(case, rates):
    """Return the summed loss at f_out(a_out(r))."""
    output = responses_of(case, {"input": case.x, **rates})[case.network.output]
    return torch.nn.functional.cross_entropy(output, case.y, reduction="sum")


def gradients(case, loss):
    named = dict(case.network.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return dict(zip(named, found, strict=True))


def updates_at(problem, state):
    names = {id(parameter): name for name, parameter in problem.network.named_parameters()}
    options = BackwardOptions(reduction="sum")
    found = {}
    for projection in problem.network.projections.values():
        found |= {names[id(p)]: update for p, update in local_updates(problem, projection, state, options)}
    return found


def close(found, expected, bound):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert float((found[name] - x).abs().max()) <= bound * float(x.abs().max()), name


def test_updates_are_autograds_through_many_forward_steps(case):
    expected = gradients(case, loss_at(case, stepped(case, zeros(case), 500)))
    problem = problem_of(case)
    close(updates_at(problem, solve(problem, "equilibrium", EXACT).state), expected, 1e-10)
    for integrator in ("sequential", "euler", "rk4"):
        relaxed = solve(problem, integrator, Steps.until(1e-12, eta=0.4))
        assert relaxed.status.value == "settled"
        close(updates_at(problem, relaxed.state), expected, 1e-9)


def jacobian(case, rates):
    """Return dF/dr of all moving populations together, (batch, n, n), by autograd, and the sizes of its blocks."""
    names, shapes = list(rates), [r.shape[1:] for r in rates.values()]
    sizes = [shape.numel() for shape in shapes]

    def respond(flat):
        parts = torch.split(flat, sizes, dim=1)
        r = {name: part.reshape(-1, *shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        towards = responses_of(case, {"input": case.x, **r})
        return torch.cat([towards[name].flatten(1) for name in names], 1)

    flat = torch.cat([r.flatten(1) for r in rates.values()], 1)
    J = torch.autograd.functional.jacobian(respond, flat)
    return torch.stack([J[i, :, i] for i in range(len(flat))]), sizes


def test_the_equilibrium_is_the_implicit_gradient(case):
    check_implicit_gradient(case)


def check_implicit_gradient(case, bound=1e-11):
    problem = problem_of(case)
    rates = {name: problem.feedforward.activities[name] for name in moving(case)}
    M, sizes = jacobian(case, rates)
    e = torch.zeros(M.shape[:2])
    e[:, -sizes[-1] :] = problem.clamped.flatten(1)
    x = torch.linalg.solve(torch.eye(M.shape[1]) - M.mT, e)
    # x = M^T x + e is in front of the gains: the output's is its clamp
    expected = dict(zip(rates, torch.split(x, sizes, dim=1), strict=True))
    found = solve(problem, "equilibrium", EXACT)
    close({v: y.flatten(1) for v, y in found.final.items()}, expected, bound)
    assert found.status.value == "settled"


def test_updates_are_differences_of_the_settled_loss(case, generator):
    problem = problem_of(case)
    updates = updates_at(problem, solve(problem, "equilibrium", EXACT).state)
    step = 1e-4  # small enough for the routes of max pooling to stay
    for name, parameter in case.network.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator)
        direction /= direction.norm()
        losses = []
        for sign in (-2, -1, 1, 2):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
                output = settle(case.network, case.x, TIGHT).activities[case.network.output]
                losses.append(float(torch.nn.functional.cross_entropy(output, case.y, reduction="sum")))
                parameter.sub_(direction, alpha=sign * step)
        slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)
        assert float((updates[name] * direction).sum()) == pytest.approx(slope, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_k_steps_from_zero_are_backpropagation_through_k_steps(case, steps):
    problem = problem_of(case, start="zero")
    settled = {name: problem.feedforward.activities[name].detach() for name in case.network.hidden}
    settled[case.network.output] = torch.zeros_like(problem.clamped)  # which the loss does not read
    expected = gradients(case, loss_at(case, stepped(case, settled, steps, eta=0.3)))
    found = updates_at(problem, solve(problem, "euler", steps, eta=0.3).state)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=0, atol=1e-11 * max(1e-3, float(gradient.abs().max())))


def test_after_n_steps_walks_are_counted_by_a_binomial():
    problem, n, eta = problem_of(hierarchy_case()), 15, 0.3
    walked, term = {}, problem.initial_state()
    silent, unclamped = {v: 0 * x for v, x in term.items()}, replace(problem, clamped=0 * problem.clamped)
    clamp = {v: problem.feedback(v, silent) for v in term}
    for k in range(n + 1):
        weight = float(stats.binom.pmf(k, n, eta))
        walked = {v: walked.get(v, 0) + weight * x for v, x in term.items()}
        if k:
            tail = float(stats.binom.sf(k - 1, n, eta))
            walked = {v: x + tail * clamp[v] for v, x in walked.items()}
            clamp = {v: unclamped.feedback(v, clamp) for v in clamp}
        term = {v: unclamped.feedback(v, term) for v in term}
    close(solve(problem, "euler", n, eta=eta).state, walked, 1e-13)


@pytest.mark.parametrize("make", [recurrent_case, hierarchy_case])
def test_both_phases_have_the_same_spectrum(make, generator):
    """With a time constant per neuron, so that no eigenvalue is defective."""
    case = make()
    tau = {
        name: 0.3 + 2.7 * torch.rand(case.network.populations[name].shape, generator=generator) for name in moving(case)
    }
    problem = problem_of(case, tau={name: tau[name] for name in case.network.hidden})
    forward = ForwardProblem(case.network, case.x, tau=tau)

    hidden = case.network.hidden
    sizes = [case.network.populations[name].shape[0] for name in hidden]

    def backward(flat):
        rates = problem.vector_field(dict(zip(hidden, torch.split(flat, sizes, dim=1), strict=True)))
        return torch.cat([rates[name] for name in hidden], 1)

    silent = torch.zeros(len(case.x), sum(sizes))
    J_B = torch.stack([backward(silent + unit) - backward(silent) for unit in torch.eye(sum(sizes))], 2)  # it is linear
    M, _ = jacobian(case, {name: problem.feedforward.activities[name] for name in moving(case)})
    hidden_units = sum(sizes)
    T = torch.cat([tau[name] for name in hidden])
    J_F = (M[:, :hidden_units, :hidden_units] - torch.eye(hidden_units)) / T[:, None]
    rates = {name: problem.feedforward.activities[name] for name in moving(case)}
    assert max(float(x.abs().max()) for x in forward.vector_field(rates).values()) < 1e-11
    for b, f in zip(J_B, J_F, strict=True):
        one, other = (np.sort_complex(np.linalg.eigvals(J.detach().numpy())) for J in (b, f))
        assert np.abs(one - other).max() < 1e-10
        assert np.allclose(b.numpy(), (torch.diag(T) @ f @ torch.diag(1 / T)).mT.numpy(), rtol=0, atol=1e-13)


def test_the_equilibrium_needs_neither_tau_nor_leaky_units():
    case = hierarchy_case()
    plain = solve(problem_of(case), "equilibrium", EXACT).final
    tau = {name: 1.0 + i for i, name in enumerate(case.network.hidden)}
    second = {"b": UnitDynamics.second_order(tau=1.0, damping=0.9)}
    close(solve(problem_of(case, tau=tau), "equilibrium", EXACT).final, plain, 1e-12)
    close(solve(problem_of(case, dynamics=second), "equilibrium", EXACT).final, plain, 1e-12)


def test_the_default_tolerance_and_the_work():
    problem = problem_of(hierarchy_case())
    exact, default = solve(problem, "equilibrium", EXACT), solve(problem, "equilibrium")
    error = float((default.final["a"] - exact.final["a"]).abs().max() / exact.final["a"].abs().max())
    assert 1e-12 < error < 1e-5
    assert default.feedback_applications < exact.feedback_applications
    calls = []
    along = RelaxationProblem.feedback_along
    try:
        RelaxationProblem.feedback_along = lambda *args: calls.append(args[1].name) or along(*args)
        found = equilibrium_by_components(problem, 1e-6)
    finally:
        RelaxationProblem.feedback_along = along
    assert found.applications == len(calls) == default.feedback_applications
    assert found.products == calls.count("a->a") == default.products
    assert solve(problem, "euler", 5).products is None


def test_an_equilibrium_that_no_relaxation_reaches():
    """With gains dropped the recurrent feedback has an eigenvalue beyond 1: steps run away, the equilibrium exists."""
    case = recurrent_case(gain=1.9)
    problem = problem_of(case, assumptions="no-derivatives")
    W = dict(case.network.named_parameters())["a->a.weight"].detach().double()
    alpha = float(torch.linalg.eigvals(W).real.max())
    assert alpha > 1.05
    with pytest.warns(
        UserWarning, match=rf"^3 of 3 samples have an equilibrium .* real part {alpha:.3g}, which must be"
    ):
        found = solve(problem, "equilibrium", EXACT)
    residual = found.final["a"] - problem.feedback("a", found.state)
    assert float(residual.abs().max()) < 1e-11 * float(found.final["a"].abs().max())
    with pytest.warns(UserWarning, match="not settled"):
        away = solve(problem, "euler", Steps.until(1e-6, eta=0.3, most=300))
    assert float(away.final["a"].abs().max()) > 1e3 * float(found.final["a"].abs().max())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(problem_of(recurrent_case(gain=0.5), assumptions="no-derivatives"), "equilibrium")


def excitation_and_inhibition(tau):
    """Return M = [[1.6, -1.5], [1.4, -0.6]] with linear units; it is stable for tau_i / tau_e < 1.6 / 0.6."""
    M = {("e", "e"): 1.6, ("i", "e"): -1.5, ("e", "i"): 1.4, ("i", "i"): -0.6}
    edges = [("input", "e", [nn.Linear(2, 1)]), ("e", "output", [nn.Linear(1, 3)])]
    edges += [(source, target, [nn.Linear(1, 1, bias=False)]) for source, target in M]
    case = make_case((2,), dict.fromkeys(["e", "i", "output"], "identity"), edges)
    with torch.no_grad():
        for (source, target), weight in M.items():
            case.network.projections[f"{source}->{target}"].weight.fill_(weight)
    return problem_of(case, tau=tau)


def test_time_constants_decide_whether_a_relaxation_reaches_the_equilibrium():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(excitation_and_inhibition(20.0), "equilibrium")
        solve(excitation_and_inhibition({"e": 10.0, "i": 26.6}), "equilibrium")
    beyond = excitation_and_inhibition({"e": 10.0, "i": 27.0})
    abscissa = np.linalg.eigvals(np.array([[0.6, 1.4], [-1.5, -1.6]]) / [[10.0], [27.0]]).real.max()
    assert abscissa > 0
    with pytest.warns(
        UserWarning,
        match=rf"^3 of 3 samples .* with these time constants the cycle of \S+, \S+ has an eigenvalue with real part "
        rf"{abscissa:.3g} per unit of time, which must be below 0\.$",
    ):
        solve(beyond, "equilibrium")
    with pytest.warns(UserWarning, match="not settled"):
        away = solve(replace(beyond, tau={"e": 10.0, "i": 40.0}), "euler", Steps.until(1e-6, dt=0.1, most=9000)).final[
            "e"
        ]
    assert float(away.abs().max()) > 100 * float(solve(replace(beyond, tau=10.0), "equilibrium").final["e"].abs().max())


@pytest.mark.parametrize("fields", ["tau", "second order"])
@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_the_abscissa_of_units_with_their_own_dynamics(fields, scale, generator):
    """Dropped gains make the feedback W^T; the weights are scaled to either side of the onset."""
    case = recurrent_case(gain=1.0)
    W = case.network.projections["a->a"].weight
    tau = 0.3 + 2.7 * torch.rand(7, generator=generator)
    own = {"tau": tau} if fields == "tau" else {"dynamics": {"a": UnitDynamics.second_order(tau=1.0, damping=0.4)}}

    def abscissa(w):
        M = w.detach().double()
        if fields == "tau":
            return float(torch.linalg.eigvals((M.mT - torch.eye(7)) / tau[:, None]).real.max())
        m = torch.linalg.eigvals(M)  # s^2 + 2 z s + 1 - m = 0
        return float((-0.4 + torch.sqrt(0.4**2 - 1 + m)).real.max())

    low, high = 0.01, 20.0
    for _ in range(60):
        low, high = (low, (low + high) / 2) if abscissa(W * (low + high) / 2) > 0 else ((low + high) / 2, high)
    with torch.no_grad():
        W.mul_(low * scale)
    own = {"tau": {"a": tau}} if fields == "tau" else own
    passed = settle(case.network, case.x, Settle(Steps(50, eta=0.1)))
    problem = RelaxationProblem.from_batch(case.network, passed, case.y, assumptions="no-derivatives", **own)
    if scale < 1:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            solve(problem, "equilibrium")
        assert -0.5 < abscissa(W) < -1e-3
    else:
        with pytest.warns(UserWarning, match=rf"real part {abscissa(W):.3g} per unit of time"):
            found = solve(problem, "equilibrium")
        assert found.feedback_applications == 1 + 8 + (7 if fields == "tau" else 14)


def test_large_batches_are_solved_in_parts(case, monkeypatch):
    """The basis of each part fits in memory; together they are the same, up to the rounding of other batch sizes."""
    problem = problem_of(case, feedback_transform="sparse-0.9")
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        whole = solve(problem, "equilibrium", EXACT)
    units = sum(math.prod(case.network.populations[name].shape) for name in case.network.graph.cycles[0])
    sizes, solved = [], components.gmres
    monkeypatch.setattr(components, "MEMORY", 2 * 100 * units * 8 + 7)
    monkeypatch.setattr(components, "gmres", lambda f, b, **how: sizes.append(tuple(b.shape)) or solved(f, b, **how))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        parts = solve(problem, "equilibrium", EXACT)
    assert sizes == [(2, units), (1, units)]
    close(parts.state, whole.state, 1e-11)
    assert [str(w.message) for w in said] == [str(w.message) for w in expected]
    monkeypatch.setattr(components, "MEMORY", 1)
    sizes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solve(problem, "equilibrium")
    assert sizes == [(1, units)] * 3


def test_too_few_products_are_reported():
    """A cycle of 150 units needs more than 100 products for 1e-14."""
    edges = [
        ("input", "a", [nn.Linear(8, 150)]),
        ("a", "a", [nn.Linear(150, 150)]),
        ("a", "output", [nn.Linear(150, 4)]),
    ]
    problem = problem_of(
        make_case((8,), {"a": "tanh", "output": "identity"}, edges, gain=0.8), assumptions="no-derivatives"
    )
    with pytest.warns(UserWarning, match=r"^the equilibrium has a relative residual of \S+, more than 1e-14: step the"):
        found = solve(problem, "equilibrium", Steps.until(1e-14))
    assert found.status.value == "not settled"
    assert found.feedback_applications == 1 + 100
    loose = solve(problem, "equilibrium", Steps.until(1e-3))
    assert loose.status.value == "settled"
    residual = problem.feedback("a", loose.state) - loose.final["a"]
    assert 1e-5 < float(residual.norm(dim=1).max() / problem.clamped.norm(dim=1).min()) < 1e-2


@settings(max_examples=100, deadline=None)
@given(recurrent_graphs())
def test_on_any_graph_the_equilibrium_is_the_implicit_gradient(case):
    """The tolerance is relative to the input of a whole cycle, the bound to the gradient of each population."""
    check_implicit_gradient(case, 1e-9)


def test_what_is_refused():
    case = recurrent_case()
    problem = problem_of(case)
    sentence = "the closed form needs a network without cycles, got a cycle of a: step the relaxation."
    assert unsupported(problem, "exact", "torch") == sentence
    for integrator in ("euler", "equilibrium"):
        with pytest.raises(ActrelaxError, match=f"can't be used here: {sentence[:-1]}"):
            solve(problem, integrator, evaluation="closed-form")
    with pytest.raises(ActrelaxError, match=r"constant activity gain"):
        solve(problem_of(case, assumptions="unfrozen"), "equilibrium")
    with pytest.raises(ActrelaxError, match=r"call settle\(network, x\)\.$"):
        RelaxationProblem.from_batch(case.network, case.x, case.y)
    assert loss_named("cross-entropy").gradient(problem.feedforward.activities["output"], case.y).equal(problem.clamped)


def test_the_residual_is_nan_for_samples_that_overflow_outside_the_cycle():
    problem = problem_of(hierarchy_case(), start="zero")
    state = dict(solve(problem, "equilibrium", EXACT).state)
    assert float(residual_of_equilibrium(problem, state).max()) < 1e-12
    stem = problem.units["stem"].variables[0]
    state[stem] = state[stem].clone()
    state[stem][1, 0] = math.inf
    found = residual_of_equilibrium(problem, state)
    assert found.isnan().tolist() == [False, True, False]
