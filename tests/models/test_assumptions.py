"""Assumptions. Oracle: each written out in NumPy (tests/reference.py)."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from networks import graph_case
from reference import Reference
from torch import nn

from actrelax.models._names import look_up
from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, relax_backward
from actrelax.models.network import Network, Projection
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

KOLEN_POLLACK_DECAY = 0.03
AT_EQUILIBRIUM = [name for name in PRESETS if name != "continuous"]


def relaxed(case, assumptions, integrator="sequential", evaluation="auto"):
    """Return final state and gradients of a fresh copy of a network with feedback weights."""
    network = copy.deepcopy(case.network)
    network.add_feedback(assumptions, torch.Generator().manual_seed(5))
    decays = any(knobs.feedback == "kolen-pollack" for knobs in look_up("assumptions", assumptions, PRESETS).all_knobs)
    updates = Updates(decay=KOLEN_POLLACK_DECAY if decays else None)
    result = relax_backward(
        network,
        case.x,
        case.y,
        assumptions=assumptions,
        integrator=integrator,
        steps=12,
        eta=0.2,
        options=BackwardOptions(updates, reduction="sum", evaluation=evaluation, keep=True),
    )
    return network, result.trajectory.final


def problem_of(case, assumptions):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions=assumptions)


def feedback_weights(network, assumptions):
    """Return (source, target) -> psi, by the definitions of docs/theory.md."""
    psi = {}
    for p in network.projections.values():
        if p.map is None or p.source == "input":
            continue
        kind = assumptions.of(p.name, network.kind(p)).feedback
        if kind == "sign":
            psi[p.source, p.target] = p.weight.detach().sign() * p.weight.detach().std(correction=0)
        elif kind != "transpose":
            psi[p.source, p.target] = p.feedback.detach()
    return psi


def clamp_of(case):
    return torch.softmax(case.network(case.x), 1).detach() - torch.nn.functional.one_hot(case.y, 5)


@pytest.mark.catches("feedback of the first projection only")
@pytest.mark.catches("feedback by W where psi is meant")
@pytest.mark.parametrize("scheme", ["euler", "sequential"])
@pytest.mark.parametrize("preset", AT_EQUILIBRIUM)
def test_preset_equals_the_rule_written_out(preset, scheme):
    """Relaxation, stepped and by the closed form where it applies, and updates."""
    case = graph_case(output="sigmoid")
    for evaluation in ("stepped", "auto"):
        assert_equals_the_rule(case, preset, *relaxed(case, preset, scheme, evaluation=evaluation), scheme)


def assert_equals_the_rule(case, preset, network, final, scheme):
    assumptions = look_up("assumptions", preset, PRESETS)
    psi = feedback_weights(network, assumptions)
    states, totals = [], {}
    for sample in range(len(case.x)):
        reference = Reference(case, sample, assumptions, psi)
        state = reference.relax(scheme, 12, 0.2, clamp_of(case)[sample].numpy())
        states.append(state)
        for edge, update in reference.updates(state).items():
            for name, value in update.items():
                totals[*edge, name] = totals.get((*edge, name), 0) + value
    for name, x in final.items():
        expected = torch.stack([torch.tensor(state[name]) for state in states])
        assert relative_error(x.flatten(1), expected) < 1e-12, name
    for p in network.projections.values():
        for name in ("weight", "bias"):
            if getattr(p, name) is None:
                continue
            expected = totals[p.source, p.target, name]
            if isinstance(p.feedback, torch.nn.Parameter) and name == "weight":
                is_decaying = assumptions.of(p.name, network.kind(p)).feedback == "kolen-pollack"
                decay = KOLEN_POLLACK_DECAY if is_decaying else 0
                assert relative_error(p.feedback.grad, expected + decay * p.feedback) < 1e-12
                expected = expected + decay * p.weight
            assert relative_error(getattr(p, name).grad, expected) < 1e-11, (p.name, name)


@pytest.mark.parametrize("preset", [name for name in AT_EQUILIBRIUM if name not in ("ar", "constant-statistics")])
def test_preset_is_not_ar(preset):
    """Every preset changes the result, so each assumption has an effect."""
    case = graph_case()
    base, _ = relaxed(case, "ar")
    network, _ = relaxed(case, preset)
    differences = [
        relative_error(p.weight.grad, q.weight.grad)
        for p, q in zip(network.projections.values(), base.projections.values(), strict=True)
        if p.weight is not None
    ]
    assert max(differences) > 1e-3


def single_knobs():
    values = {
        "feedback": ["learned", "kolen-pollack", "random", "sign"],
        "activity_gain": ["current", "none"],
        "weight_gain": ["current", "none"],
        "presynaptic": ["current"],
    }
    return [(kind, knob, value) for kind in ("dense", "conv") for knob in values for value in values[knob]]


@pytest.mark.catches("current gain taken at the feedforward drive")
@pytest.mark.catches("presynaptic factor always the feedforward activity")
@pytest.mark.parametrize(("kind", "knob", "value"), single_knobs())
def test_one_knob_of_one_kind(kind, knob, value):
    """Each assumption affects its kind of projection only; the other kind keeps its update rule."""
    case = graph_case()
    other = "conv" if kind == "dense" else "dense"
    base, start = relaxed(case, "ar")
    assumptions = replace(Assumptions(), **{kind: Knobs(**{knob: value})})
    network, final = relaxed(case, assumptions)
    changed = {"dense": 0.0, "conv": 0.0}
    for p, q in zip(network.projections.values(), base.projections.values(), strict=True):
        if p.weight is not None:
            ours = network.kind(p)
            changed[ours] = max(changed[ours], relative_error(p.weight.grad, q.weight.grad))
    moved = {name: relative_error(final[name], start[name]) for name in final}
    if knob in ("weight_gain", "presynaptic"):
        assert max(moved.values()) == 0
        assert changed[kind] > 1e-3
        assert changed[other] == 0
    elif kind == "conv":  # convolutions are below the dense populations, and don't affect them
        assert max(moved["hidden1"], moved["hidden2"], moved["hidden3"]) < 1e-13
        assert moved["conv1"] > 1e-3
    else:
        assert moved["hidden1"] > 1e-3


ONE_BY_ONE = Assumptions(
    dense=Knobs(feedback="learned", activity_gain="current"),
    projections={
        "conv1->conv2": {"feedback": "random", "activity_gain": "none"},
        "conv1=>conv3": {"activity_gain": "none"},
        "conv1->hidden1": Knobs(feedback="kolen-pollack", weight_gain="none"),
        "conv3->hidden1": {"weight_gain": "current", "activity_gain": "feedforward"},
        "hidden1->hidden2": Knobs(feedback="sign", presynaptic="current"),
        "hidden2=>hidden3": {"activity_gain": "feedforward"},
    },
)


@pytest.mark.catches("knobs of a kind in place of a projection's")
@pytest.mark.parametrize("scheme", ["euler", "sequential"])
def test_knobs_of_single_projections_equal_the_rule_written_out(scheme):
    """Projections into one population differ in their gains, and knobs that are not named are those of the kind."""
    case = graph_case(output="sigmoid")
    assert_equals_the_rule(case, ONE_BY_ONE, *relaxed(case, ONE_BY_ONE, scheme), scheme)
    frozen = replace(ONE_BY_ONE, dense=Knobs(feedback="learned"))
    for evaluation in ("stepped", "closed-form"):
        assert_equals_the_rule(case, frozen, *relaxed(case, frozen, scheme, evaluation=evaluation), scheme)


def test_the_knobs_of_a_kind_and_of_all_its_projections_are_the_same():
    case, own = graph_case(), {"activity_gain": "none", "weight_gain": "current"}
    network = case.network
    convolutions = [name for name, p in network.projections.items() if network.kind(p) == "conv"]
    by_kind, by_name = Assumptions(conv=Knobs(**own)), Assumptions(projections=dict.fromkeys(convolutions, own))
    (one, at_one), (other, at_other) = relaxed(case, by_kind), relaxed(case, by_name)
    assert all(torch.equal(at_one[name], at_other[name]) for name in at_one)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_a_name_goes_before_its_kind():
    named = Assumptions(dense=Knobs(feedback="learned"), projections={"a": {"weight_gain": "none"}, "b": Knobs()})
    assert named.of("a", "dense") == Knobs(feedback="learned", weight_gain="none")
    assert named.of("a", "conv") == Knobs(weight_gain="none")
    assert named.of("b", "dense") == Knobs()
    assert named.of("c", "dense") == Knobs(feedback="learned")
    assert Assumptions(projections={"a": vars(Knobs(feedback="sign"))}) == Assumptions(projections={"a": Knobs("sign")})
    assert hash(copy.deepcopy(named)) == hash(named)
    assert copy.deepcopy(named) == named
    changed = named.changed(weight_gain="current", presynaptic="current")
    assert {k.weight_gain for k in changed.all_knobs} == {k.presynaptic for k in changed.all_knobs} == {"current"}
    assert changed.of("a", "dense").feedback == "learned"


@pytest.mark.parametrize("kind", ["kolen-pollack", "continuous"])
def test_one_projection_is_enough_to_need_a_decay_or_to_be_continuous(kind):
    one = Assumptions(projections={"a": {"feedback" if kind == "kolen-pollack" else "plasticity": kind}})
    assert (one.needs_decay, one.is_continuous) == (kind == "kolen-pollack", kind == "continuous")


def test_a_current_gain_that_no_feedback_reads_leaves_the_relaxation_frozen():
    case = graph_case()
    first = Assumptions(projections={"input->conv1": {"activity_gain": "current"}})
    above = Assumptions(projections={"conv1->conv2": {"activity_gain": "current"}})
    assert [problem_of(case, each).is_frozen for each in (first, above)] == [True, False]


def test_unknown_projections_are_refused():
    case, wrong = graph_case(), Assumptions(projections={"conv1->conv": Knobs(feedback="sign")})
    sentence = (
        r"^assumptions name an unknown projection 'conv1->conv'; "
        r"known: (?=.*conv1->conv2, )[^ ,]+, [^ ,]+, [^ ,]+, [^ ,]+, [^ ,]+ and 5 more\.$"
    )
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(case, wrong)
    with pytest.raises(ActrelaxError, match=sentence):
        case.network.add_feedback(wrong, 0)
    assert not any("feedback" in key for key in case.network.state_dict())
    for given in ([], {"a": "none"}, math.pi):
        with pytest.raises(ActrelaxError, match=r"^projections must map names of projections to Knobs, got .*: pass "):
            Assumptions(projections=given)
    with pytest.raises(ActrelaxError, match=r"^unknown knob 'gain'; known: feedback, activity_gain, "):
        Assumptions(projections={"a": {"gain": "none"}})
    with pytest.raises(ActrelaxError, match=r"^unknown feedback 'none'; known: transpose, "):
        Assumptions(projections={"a": {"feedback": "none"}})


def test_skips_go_by_the_shape_of_their_target():
    network = graph_case().network
    assert network.kind(network.projections["conv1=>conv3"]) == "conv"
    assert network.kind(network.projections["hidden2=>hidden3"]) == "dense"
    assert network.kind(network.projections["conv1->hidden1"]) == "conv"
    flattened = Network((1, 2, 2), {"output": "tanh"}, [Projection("input", "output", nn.Flatten())])
    assert flattened.kind(flattened.projections["input->output"]) == "dense"


def test_presets_are_what_theory_says():
    """Fields that differ from `ar`, preset by preset, against the table of assumptions."""
    changed = {}
    for name, preset in PRESETS.items():
        assert preset.statistics == ("constant" if name == "constant-statistics" else "exact")
        assert preset.projections == {}
        for kind, knobs in (("dense", preset.dense), ("conv", preset.conv)):
            changed[name, kind] = {k: v for k, v in vars(knobs).items() if v != getattr(Knobs(), k)}
    learned, none = {"feedback": "learned"}, {"activity_gain": "none", "weight_gain": "none"}
    table = {
        "ar": ({}, {}),
        "learned-feedback": (learned, learned),
        "kolen-pollack": ({"feedback": "kolen-pollack"},) * 2,
        "random-feedback": ({"feedback": "random"},) * 2,
        "sign-feedback": ({"feedback": "sign"},) * 2,
        "learned-feedback-dense": (learned, {}),
        "learned-feedback-conv": ({}, learned),
        "no-derivatives": (none, none),
        "no-derivatives-dense": (none, {}),
        "no-derivatives-conv": ({}, none),
        "no-derivatives-relaxation": ({"activity_gain": "none"},) * 2,
        "simplified-dense": (learned | none, {}),
        "simplified": (learned | none, none),
        "simplified-relaxation": (learned | {"activity_gain": "none"},) * 2,
        "unfrozen-relaxation": ({"activity_gain": "current"},) * 2,
        "unfrozen-weights": ({"weight_gain": "current"},) * 2,
        "unfrozen": ({"activity_gain": "current", "weight_gain": "current"},) * 2,
        "current-presynaptic": ({"presynaptic": "current"},) * 2,
        "continuous": ({"plasticity": "continuous"},) * 2,
        "constant-statistics": ({}, {}),
    }
    assert changed == {(name, kind): row[i] for name, row in table.items() for i, kind in enumerate(("dense", "conv"))}


def test_unknown_values_are_refused():
    with pytest.raises(ActrelaxError, match=r"^unknown assumptions 'arr'; known: ar, learned-feedback"):
        look_up("assumptions", "arr", PRESETS)
    with pytest.raises(ActrelaxError, match=r"^unknown activity_gain 'frozen'; known: feedforward, current, none\.$"):
        Knobs(activity_gain="frozen")
    with pytest.raises(ActrelaxError, match=r"^unknown assumptions Knobs\(.*\); known: ar, "):
        look_up("assumptions", Knobs(), PRESETS)
