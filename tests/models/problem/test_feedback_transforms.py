"""Transformed feedback weights: sparse or quantised. Oracle: tests/reference.py with transformed psi."""

import copy

import pytest
import torch
from networks import graph_case, mlp_case
from reference import Reference

from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.closed_form import predict
from actrelax.models.engines import INTEGRATORS, Steps, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, relax_backward, relax_continuously
from actrelax.models.problem import RelaxationProblem, apply_transform, transform_named
from actrelax.models.problem.feedback_transforms import Quantised, Sparse
from actrelax.models.results import relative_error

NAMED = ["sparse-0.6", "quantised-4", "scaled-0.7"]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def weights(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def test_sparse_removes_connections_and_leaves_the_others_as_they_are():
    """Shape and seed determine the connections; values, precision and the global generator do not."""
    w = weights(40, 50)
    kept = Sparse(0.3)(w) != 0
    assert torch.equal(Sparse(0.3)(w), w * kept)
    assert abs(kept.double().mean() - 0.3) < 4 * (0.3 * 0.7 / w.numel()) ** 0.5
    torch.manual_seed(77)
    assert torch.equal(Sparse(0.3)(2 - w) != 0, kept)
    assert torch.equal(Sparse(0.3)(w.float()) != 0, kept)
    assert not torch.equal(Sparse(0.3, seed=1)(w) != 0, kept)
    assert bool((Sparse(0.6)(w) != 0)[kept].all())  # a larger share includes a smaller one
    assert torch.equal(Sparse(1.0)(w), w)
    assert Sparse(0.3)(w.float()).dtype == torch.float32


@pytest.mark.parametrize("levels", [2, 3, 4, 16, 1001])
def test_quantised_takes_the_nearest_of_evenly_spaced_levels(levels):
    w = weights(6, 7, 3)
    m = w.abs().max()
    grid = torch.linspace(-float(m), float(m), levels)
    nearest = grid[(w[..., None] - grid).abs().argmin(-1)]
    assert relative_error(Quantised(levels)(w), nearest) < 1e-12
    assert len(Quantised(levels)(w).unique()) <= levels
    assert (Quantised(levels)(w) - w).abs().max() <= m / (levels - 1) + 1e-12


def test_silent_weights_stay_silent():
    assert not Quantised(4)(torch.zeros(3, 2)).any()


def test_names():
    assert transform_named("sparse-0.25") == Sparse(0.25)
    assert transform_named("sparse-1") == Sparse(1.0)
    assert transform_named("quantised-16") == Quantised(16)
    assert transform_named(torch.sign) is torch.sign
    assert transform_named(None) is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            "sparse",
            r"^unknown feedback transform 'sparse'; known: sparse-SHARE \(sparse-0\.5\), quantised-LEVELS, scaled-",
        ),
        ("quantised-2.5", r"^unknown feedback transform 'quantised-2\.5'"),
        ("sparse-0", r"^the share of sparse feedback must be above 0 and at most 1, got 0\.$"),
        ("sparse-1.5", r"^the share of sparse feedback must be above 0 and at most 1, got 1\.5\.$"),
        ("quantised-1", r"^quantised feedback needs 2 levels or more, got 1\.$"),
        (0.5, r"^a feedback transform must be a name or a function of weights, got 0\.5\.$"),
    ],
)
def test_what_is_refused(given, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(mlp_case(), feedback_transform=given)


def transformed_psi(network, assumptions, transform):
    """Return (source, target) -> T(psi) for all projections with feedback."""
    psi = {}
    for p in network.projections.values():
        if p.map is not None and p.source != "input":
            kind = getattr(assumptions, network.kind(p)).feedback
            weight = p.weight.detach() if kind == "transpose" else p.feedback.detach()
            if kind == "sign":
                weight = p.weight.detach().sign() * weight
            psi[p.source, p.target] = apply_transform(transform, weight, p.name)
    return psi


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("preset", ["ar", "learned-feedback", "random-feedback", "sign-feedback", "unfrozen"])
def test_feedback_is_by_the_transformed_weights(name, preset, generator):
    """Drives and plasticity use W, feedback uses T(psi)."""
    case, assumptions = graph_case(), PRESETS[preset]
    case.network.add_feedback(assumptions, generator)
    before = copy.deepcopy(case.network.state_dict())
    keep, steps = BackwardOptions(keep=True), Steps(12, eta=0.2)
    options = {"assumptions": preset, "integrator": "euler", "steps": steps, "options": keep}
    plain = relax_backward(copy.deepcopy(case.network), case.x, case.y, **options).trajectory.final
    result = relax_backward(case.network, case.x, case.y, feedback_transform=name, **options)
    final = result.trajectory.final
    assert relative_error(final["conv1"], plain["conv1"]) > 1e-3 or (preset, name) == ("sign-feedback", "quantised-4")
    assert all(torch.equal(value, before[key]) for key, value in case.network.state_dict().items())
    psi = transformed_psi(case.network, assumptions, transform_named(name))
    totals = {}
    for sample in range(len(case.x)):
        reference = Reference(case, sample, assumptions, psi)
        state = reference.relax("euler", 12, 0.2, final["output"][sample].numpy())
        for population, x in final.items():
            assert relative_error(x[sample].flatten(), torch.tensor(state[population])) < 1e-12
        for edge, update in reference.updates(state).items():
            totals[edge] = totals.get(edge, 0) + update["weight"]
    for p in case.network.projections.values():
        if p.map is not None:
            assert relative_error(p.weight.grad, totals[p.source, p.target] / len(case.x)) < 1e-12


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("name", NAMED)
def test_the_law_and_the_equilibrium_hold_for_transformed_weights(make, name):
    """The problem stays linear: against the prediction, the fixed point, and a network with transformed weights."""
    case = make()
    problem = problem_of(case, feedback_transform=name)
    for scheme in ("euler", "sequential", "rk4"):
        stepped = solve(problem, scheme, steps=12, eta=0.2).final
        predicted = predict(problem, INTEGRATORS[scheme], dt=0.2, steps=12)
        assert all(relative_error(x, stepped[population]) < 1e-12 for population, x in predicted.items())
    settled = solve(problem, "equilibrium").final
    plain = solve(problem_of(case), "equilibrium").final
    other = copy.deepcopy(case.network)
    for p in other.projections.values():
        if other.carries_feedback(p):
            p.weight.data = apply_transform(transform_named(name), p.weight.data, p.name)
    same = RelaxationProblem(other, problem.feedforward, problem.clamped)  # gains and routes of the original
    expected = solve(same, "equilibrium").final
    lowest = case.network.hidden[0]
    assert relative_error(settled[lowest], plain[lowest]) > 1e-3
    assert all(relative_error(settled[v], expected[v]) < 1e-13 for v in case.network.hidden)


def test_a_function_of_your_own():
    case = mlp_case()
    halved = solve(problem_of(case, feedback_transform=lambda w: w / 2), "equilibrium").final
    plain = solve(problem_of(case), "equilibrium").final
    for hops, name in enumerate(["hidden3", "hidden2", "hidden1"], 1):
        assert relative_error(halved[name], 0.5**hops * plain[name]) < 1e-14


def test_a_problem_transforms_each_weight_once_and_a_moving_one_at_each_step():
    case, calls = mlp_case(), []

    def watched(w):
        calls.append(w)
        return w

    solve(problem_of(case, feedback_transform=watched), "euler", steps=12)
    assert len(calls) == 3
    calls.clear()
    relax_continuously(case.network, case.x, case.y, rate=0.1, steps=12, feedback_transform=watched)
    assert len(calls) == 3 * 12


@pytest.mark.parametrize("feedback", ["transpose", "learned"])
def test_continuous_plasticity_transforms_the_weights_of_the_moment(feedback, generator):
    """The loop written out: W changes after each step, and the next feedback uses T of the new weights."""
    case, rate, n, eta, transform = mlp_case(), 4.0, 12, 0.2, Quantised(5)
    assumptions = Assumptions(dense=Knobs(feedback=feedback, plasticity="continuous"))
    case.network.add_feedback(assumptions, generator)
    W = [p.weight.detach().clone() for p in case.network.projections.values()]
    psi = [
        w if p.feedback is None else p.feedback.detach().clone()
        for w, p in zip(W, case.network.projections.values(), strict=True)
    ]
    passed = case.network.feedforward(case.x)
    activities = [x.detach() for x in passed.activities.values()]
    gains = [1 - x**2 for x in activities[1:-1]] + [torch.ones_like(activities[-1])]
    clamp = torch.softmax(activities[-1], 1) - torch.nn.functional.one_hot(case.y, 4)
    first = [transform(w) for w in psi]
    results = {}
    for held in (True, False):
        w, v = [x.clone() for x in W], [x.clone() for x in psi]
        x = [torch.zeros_like(h) for h in activities[1:-1]] + [clamp]
        for _ in range(n):
            for i in (2, 1, 0):
                back = first[i + 1] if held else transform(v[i + 1] if feedback == "learned" else w[i + 1])
                x[i] = (1 - eta) * x[i] + eta * (gains[i + 1] * x[i + 1]) @ back
            for i in range(4):
                change = rate / n * (gains[i] * x[i]).T @ activities[i] / 3
                w[i] = w[i] - change
                v[i] = v[i] - change
        results[held] = w[0]
    assert relative_error(results[True], results[False]) > 1e-3
    relax_continuously(
        case.network,
        case.x,
        case.y,
        rate=rate,
        steps=n,
        eta=eta,
        assumptions=assumptions,
        feedback_transform=transform,
    )
    assert relative_error(case.network.projections["input->hidden1"].weight, results[False]) < 1e-12


def test_two_projections_of_one_shape_lose_other_connections():
    case = mlp_case(widths=(8, 6, 6, 6, 4))
    problem = problem_of(case, feedback_transform="sparse-0.5")
    names = ["hidden1->hidden2", "hidden2->hidden3"]
    one, other = (problem.feedback_weight(problem.feedback_projections[name]) != 0 for name in names)
    assert one.shape == other.shape
    assert 0.2 < (one != other).double().mean() < 0.8
    again = problem_of(case, feedback_transform="sparse-0.5")
    assert torch.equal(again.feedback_weight(again.feedback_projections[names[0]]) != 0, one)


def test_weights_are_read_when_it_is_solved():
    """An optimiser's step between two solves takes effect, with and without a transform."""
    case = mlp_case()
    problem = problem_of(case, feedback_transform="quantised-64")
    before = solve(problem, "euler", steps=12, eta=0.2).final["hidden1"]
    with torch.no_grad():
        for p in case.network.projections.values():
            p.weight *= 2
    after = solve(problem, "euler", steps=12, eta=0.2).final["hidden1"]
    # all feedback is doubled, quantised or not, and the clamp's signal passes three hops
    assert relative_error(after, before) > 1e-2
    fresh = RelaxationProblem(case.network, problem.feedforward, problem.clamped, feedback_transform="quantised-64")
    assert torch.equal(solve(fresh, "euler", steps=12, eta=0.2).final["hidden1"], after)


def test_a_transform_in_place_leaves_the_weights_alone():
    case = mlp_case()
    before = {name: w.clone() for name, w in case.network.state_dict().items()}
    solve(problem_of(case, feedback_transform=lambda w: w.mul_(0.5)), "euler", steps=3)
    assert all(torch.equal(w, before[name]) for name, w in case.network.state_dict().items())


@pytest.mark.parametrize(
    ("transform", "found"),
    [(lambda w: None, "NoneType"), (lambda w: w.T, r"\(5, 4\) torch\.float64"), (torch.sum, r"\(\)")],
)
def test_a_transform_must_return_weights(transform, found):
    sentence = rf"^the feedback transform must return a tensor like the weights of 'hidden\d->\w+', .*, got {found}"
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case(widths=(8, 6, 7, 5, 4)), feedback_transform=transform), "euler", steps=1)
