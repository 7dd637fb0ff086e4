"""A check confirms agreement, and detects every defect in a scheme or in the closed form."""

import math
from dataclasses import replace

import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.analysis.checks import solvers as module
from actrelax.analysis.checks.compare import Row, verify
from actrelax.analysis.checks.solvers import NAMES, Entry, entries
from actrelax.models.assumptions import PRESETS
from actrelax.models.closed_form import evaluate
from actrelax.models.closed_form.plan import FromAbove
from actrelax.models.engines import BRIAN2, INTEGRATORS, SCIPY, Steps, integrator_named, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.problem import RelaxationProblem

STEPS = Steps(12, eta=0.2)
SOME = ["euler", "heun", "exponential", "equilibrium", "scipy:DOP853", "brian2:rk4", "brian2:exponential_euler"]
FAST = ("torch", "scipy", "closed-form")


def verified(case, *, steps=STEPS, engines=FAST, integrators=None, assumptions="ar", **fields):
    if all(p.feedback is None for p in case.network.projections.values()):
        case.network.add_feedback(assumptions, torch.Generator().manual_seed(1))
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions=assumptions, **fields)
    gradients = activity_gradients(case.network, case.x, case.y)
    return verify(problem, gradients, steps, engines=engines, integrators=integrators)


def references(report):
    return {(row.engine, row.integrator, row.reference) for row in report.rows}


@pytest.mark.parametrize("make", [mlp_case, graph_case])
def test_everything_agrees_in_every_population(make):
    case = make()
    report = verified(case)
    assert report.ok
    found = references(report)
    for name in INTEGRATORS:
        assert any(row[:2] == ("torch", name) for row in found)
    assert {f"scipy:{method}" for method in SCIPY} <= {row[1] for row in found}
    assert ("torch", "euler", "binomial law") in found
    assert ("torch", "equilibrium", "autograd") in found
    assert ("scipy", "scipy:RK45", "torch exact") in found
    assert ("closed-form", "sequential", "negative binomial law") in found
    assert [row.population for row in report.rows[: len(case.network.hidden)]] == case.network.hidden
    assert max(row.error for row in report.rows if row.bound == 1e-10) < 1e-13
    assert max(row.error for row in report.rows if row.integrator == "scipy:DOP853") < 1e-9
    assert report.remarks == [
        "scipy leaves out euler, sequential, heun, rk4, exponential, exact, equilibrium: SciPy runs its own methods "
        'only: pass one, such as "RK45", or engine="torch".'
    ]


def test_brian2_agrees_with_its_updaters_laws():
    report = verified(mlp_case(), engines=["torch", "brian2"])
    assert report.ok
    found = references(report)
    for method in BRIAN2:
        said = [remark for remark in report.remarks if f"brian2:{method}" in remark]
        assert ("brian2", f"brian2:{method}", "binomial law") in found or said
    assert ("brian2", "brian2:heun", "torch euler") in found
    assert ("brian2", "brian2:rk4", "torch exponential") not in found


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_without_a_law_engines_are_compared_with_each_other(activation):
    report = verified(mlp_case(activation), assumptions="unfrozen", engines=NAMES, integrators=SOME)
    assert report.ok
    found = references(report)
    assert ("brian2", "euler", "torch euler") in found
    assert ("brian2", "brian2:rk4", "torch euler, equivalent tau") in found
    assert max((r.error for r in report.rows if r.integrator == "scipy:DOP853"), default=0) < 1e-9
    adaptive = ("scipy", "scipy:DOP853", "torch rk4, 64 times as fine") in found
    assert adaptive == (activation != "relu")
    assert any("stall at the kinks" in remark for remark in report.remarks) == (activation == "relu")
    law = "integrators are compared with each other: the closed form needs frozen gains"
    assert any(remark.startswith(law) for remark in report.remarks)


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"tau": {"hidden1": torch.linspace(1.0, 2.0, 7)}}, Steps(12, dt=0.2)),
        ({"delays": 0.4}, STEPS),
        ({"clip": 0.1}, STEPS),
        ({"clip": 0.05}, STEPS),
        ({"start": "zero", "feedback_transform": "sparse-0.5"}, STEPS),
        ({"tau": {"hidden1": 1.0, "hidden2": 3.0}}, Steps(12, dt=0.2)),
    ],
    ids=["tau-a-neuron", "delays", "clip", "small-clip", "transform", "tau-a-population"],
)
def test_other_problems(fields, steps):
    some = ["euler", "equilibrium", "scipy:DOP853", "brian2:rk4"]
    report = verified(mlp_case(), steps=steps, engines=["torch", "scipy", "brian2"], integrators=some, **fields)
    assert report.ok
    engines = {row.engine for row in report.rows}
    assert "brian2" in engines
    assert ("scipy" in engines) == ("delays" not in fields)
    if "start" in fields:
        assert ("torch", "equilibrium", "sparse solve") in references(report)
    if isinstance(fields.get("tau"), dict) and isinstance(fields["tau"]["hidden1"], float):
        assert ("scipy", "scipy:DOP853", "law of the chain") in references(report)


@pytest.mark.parametrize("name", PRESETS)
def test_autograd_is_a_reference_only_where_backprop_is_the_equilibrium(name):
    if PRESETS[name].is_continuous or any(k.activity_gain == "current" for k in PRESETS[name].all_knobs):
        return
    report = verified(mlp_case(), assumptions=name, engines=["torch"], integrators=["equilibrium"])
    assert report.ok
    (reference,) = {row.reference for row in report.rows}
    dense = PRESETS[name].dense
    standard = dense.feedback == "transpose" and dense.activity_gain == "feedforward"
    assert reference == ("autograd" if standard else "sparse solve")


def wrong(monkeypatch, name, **changes):
    monkeypatch.setitem(INTEGRATORS, name, replace(INTEGRATORS[name], **changes))


@pytest.mark.parametrize("name", INTEGRATORS)
def test_a_wrong_step_disagrees(monkeypatch, name):
    """A relative defect of 1e-8 in one step of one integrator is detected."""
    right = INTEGRATORS[name].step

    def step(problem, state, dt):
        return {v: x * (1 + 1e-8) for v, x in right(problem, state, dt).items()}

    wrong(monkeypatch, name, step=step)
    report = verified(mlp_case(), engines=["torch"])
    assert {row.integrator for row in report.rows if not row.ok} == {name}


def test_a_wrong_law_disagrees(monkeypatch):
    """A small defect in the transition of the closed form is detected."""
    right = INTEGRATORS["rk4"].transition
    wrong(monkeypatch, "rk4", transition=lambda matrix, dt: right(matrix, dt * (1 + 1e-8)))
    report = verified(mlp_case(), engines=["torch", "closed-form"])
    assert {(row.engine, row.integrator) for row in report.rows if not row.ok} == {("closed-form", "rk4")}


def test_a_wrong_gradient_disagrees():
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    gradients = {v: x * 1.001 for v, x in activity_gradients(case.network, case.x, case.y).items()}
    report = verify(problem, gradients, STEPS, engines=["torch"])
    assert {(row.integrator, row.reference) for row in report.rows if not row.ok} == {("equilibrium", "autograd")}


def test_an_engine_without_result_disagrees(monkeypatch):
    def failing(*arguments, **options):
        raise ActrelaxError("SciPy's RK23 gave up.")

    monkeypatch.setattr(module, "solve", failing)
    report = verified(mlp_case(), engines=["scipy", "closed-form"], integrators=["scipy:RK23", "exact"])
    assert not report.ok
    failed = [row for row in report.rows if not row.ok]
    assert {(row.engine, row.reference, row.population) for row in failed} >= {("scipy", "a result", "hidden1")}
    assert all(math.isnan(row.error) and row.as_json()["error"] is None for row in failed)
    assert "scipy:RK23 failed: SciPy's RK23 gave up." in report.remarks


def test_what_has_no_counterpart_is_said():
    report = verified(mlp_case(), clip=0.1, engines=["torch"], integrators=["heun", "equilibrium"])
    assert report.remarks[-1] == "there was nothing to compare with torch heun."
    with pytest.raises(ActrelaxError, match=r"^nothing can be compared: .* nothing to compare with torch heun\.$"):
        verified(mlp_case(), clip=0.1, engines=["torch"], integrators=["heun"])


def test_steps_that_are_refused_are_left_out():
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    found, remarks = entries(problem, Steps(3, eta=2.2), engines=["torch"], integrators=["euler", "exact"])
    assert [entry.title for entry in found] == ["torch exact"]
    assert remarks[0].startswith("torch leaves out euler: eta must lie between 0 and 2")
    with pytest.raises(ActrelaxError, match=r"^unknown engine 'numpy'; known: torch, "):
        entries(problem, STEPS, engines=["numpy"])


def test_names():
    rk4 = integrator_named("brian2:rk4")
    assert Entry("brian2", rk4).title == "brian2:rk4"
    assert Entry("brian2", rk4, "cython").title == "brian2:rk4 (cython)"
    assert Entry("brian2", rk4, "cython").name == "brian2 (cython)"
    assert Entry("torch", INTEGRATORS["euler"]).title == "torch euler"
    row = Row("torch", "euler", "binomial law", "hidden1", 1e-12, 1e-10)
    assert row.as_json() == {
        "engine": "torch",
        "integrator": "euler",
        "reference": "binomial law",
        "population": "hidden1",
        "error": 1e-12,
        "bound": 1e-10,
        "ok": True,
    }


@pytest.mark.parametrize("make", [mlp_case, graph_case])
def test_the_closed_form_and_the_steps_are_entries_of_their_own(make, monkeypatch):
    """PyTorch's entries must step, or no step would be compared with the closed form."""
    evaluations = set()

    def watched(problem, scheme, steps, **options):
        trajectory = solve(problem, scheme, steps, **options)
        evaluations.add((options["engine"], options["evaluation"], trajectory.evaluation))
        return trajectory

    monkeypatch.setattr(module, "solve", watched)
    assert verified(make(), integrators=["euler", "exact"]).ok
    assert evaluations == {
        ("torch", "stepped", "stepped"),
        ("torch", "closed-form", "closed-form"),
    }


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("is_clamp", [False, True], ids=["initial activities", "clamp"])
def test_a_wrong_plan_disagrees(monkeypatch, make, is_clamp):
    """A defect of 1e-8 in one kind of coefficient is detected: the plan is wrong, the steps are right."""
    right = FromAbove.weight

    def wrong(vector, *arguments):
        return right(vector, *arguments) * (1 + 1e-8 * (vector.is_clamp == is_clamp))

    monkeypatch.setattr(FromAbove, "weight", wrong)
    evaluate._cached_plan.cache_clear()
    try:
        report = verified(make(), engines=["torch", "closed-form"], integrators=["euler", "sequential"])
    finally:
        evaluate._cached_plan.cache_clear()
    failed = {(row.engine, row.integrator) for row in report.rows if not row.ok}
    assert failed == {("closed-form", "euler"), ("closed-form", "sequential")}


def _exchanged(slots):
    return tuple((vector, slot) for (vector, _), (_, slot) in zip(slots, slots[::-1], strict=True))


def test_a_vector_carried_to_the_wrong_slot_disagrees(monkeypatch):
    """Exchanging two vectors that arrive at one population of a graph is detected."""
    right = evaluate.exact_plan

    def exchanged(*arguments, **options):
        plan = dict(right(*arguments, **options))
        name = next(v for v, g in plan.items() if any(len(slots) > 1 for slots in g.slots.values()))
        exchanged = {v: _exchanged(slots) for v, slots in plan[name].slots.items()}
        plan[name] = replace(plan[name], slots=exchanged)
        return plan

    monkeypatch.setattr(evaluate, "exact_plan", exchanged)
    evaluate._cached_plan.cache_clear()
    try:
        report = verified(graph_case(), engines=["torch", "closed-form"], integrators=["euler"])
    finally:
        evaluate._cached_plan.cache_clear()
    assert {row.engine for row in report.rows if not row.ok} == {"closed-form"}
