"""From options to rules: the same gradients however they are come by, and the clip that is left out while it is far."""

import copy
import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch

from actrelax.models.closed_form import largest_derivative
from actrelax.models.engines import INTEGRATORS
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward
from actrelax.models.network import Projection
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.training import clipping
from actrelax.simulations.training.assemble import assemble, rehearse
from actrelax.simulations.training.clipping import StepNearClip
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model
from actrelax.simulations.training.loop import Callback, learn, train
from actrelax.simulations.training.mixed_precision import in_bfloat16
from actrelax.simulations.training.options import Relaxation


def parts_of(relaxation=None, execution=None, **options):
    fixed = {"epochs": 2, "batch_size": 256, "model": Model("digits-cnn"), "precision": "fp64"}
    experiment = Experiment(**fixed | options, relaxation=relaxation or Relaxation())
    return assemble(experiment, execution or Execution())


def gradients_of(parts, rule=None, batch=0):
    training = parts.training
    x, y = next(itertools.islice(training.batches.epoch(1), batch, None))
    training.network.zero_grad()
    (rule or training.rule)(training.network, x, y)
    return [p.grad.clone() for p in training.network.parameters()]


def distance(ours, theirs):
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))


def applications(monkeypatch, rule, training):
    """Count how often feedback is carried through a projection, by the images that go through."""
    calls, original = [], Projection.feedback_from_weights
    monkeypatch.setattr(
        Projection, "feedback_from_weights", lambda *args: calls.append(len(args[1])) or original(*args)
    )
    x, y = next(iter(training.batches.epoch(1)))
    rule(training.network, x, y)
    monkeypatch.undo()
    return sum(calls) / len(x)


@pytest.mark.parametrize("compile_as", ["auto", "no", "trace"])
@pytest.mark.parametrize(
    "relaxation",
    [
        Relaxation(),
        Relaxation(integrator="euler", steps=12, eta=0.2, clip=30.0),
        Relaxation("learned-feedback", start="zero", duration=2.0, dt=0.1, tau=0.5),
        Relaxation(integrator="equilibrium"),
    ],
    ids=["default", "clip", "learned", "equilibrium"],
)
def test_methods_give_the_same_gradients(relaxation, compile_as):
    """Closed form, stepped and traced; the careful rules too."""
    reference = parts_of(relaxation, Execution(evaluation="stepped", compile="no"))
    expected = gradients_of(reference)
    parts = parts_of(relaxation, Execution(compile=compile_as))
    for rule in (parts.training.rule, parts.careful):
        assert distance(gradients_of(parts, rule), expected) < 1e-11


def test_the_method_decides_how_much_work_it_is(monkeypatch):
    """Of 4 populations above the input: 6 or fewer feedback maps at once, 300 and more in 100 steps."""
    counts = {}
    for method in ("auto", "closed-form", "stepped"):
        parts = parts_of(execution=Execution(evaluation=method, compile="no"))
        counts[method] = applications(monkeypatch, parts.training.rule, parts.training)
    assert counts["auto"] == counts["closed-form"] <= 6
    assert counts["stepped"] == 100 * (len(parts.training.network.projections) - 1)


def test_a_trace_decides_once(monkeypatch):
    parts = parts_of()
    assert applications(monkeypatch, parts.training.rule, parts.training) > 0
    assert applications(monkeypatch, parts.training.rule, parts.training) == 0
    plain = parts_of(rule="backprop")
    assert not hasattr(plain.training.rule, "finish")
    traced = parts_of(rule="backprop", execution=Execution(compile="trace"))
    assert traced.training.rule.finish is None
    assert distance(gradients_of(traced), gradients_of(plain)) == 0


def test_transformed_feedback_is_not_traced():
    """A sparse transform draws its connections: the same ones for every batch."""
    sparse = Relaxation(feedback_transform="sparse-0.5")
    parts, plain = parts_of(sparse), parts_of(sparse, Execution(compile="no"))
    for batch in (0, 1, 0):
        assert distance(gradients_of(parts, batch=batch), gradients_of(plain, batch=batch)) == 0
    with pytest.raises(ActrelaxError, match=r"^--compile trace is for feedback as it is: leave --feedback-transform"):
        parts_of(sparse, Execution(compile="trace"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_fused_kernels_give_the_same_but_for_rounding(monkeypatch):
    """By torch.compile, of what was traced."""
    compiled, original = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda kernels: compiled.append(kernels) or original(kernels))
    small = {"model": Model("digits-mlp"), "relaxation": Relaxation(integrator="equilibrium")}
    found = gradients_of(parts_of(**small, execution=Execution(compile="inductor")))
    assert [type(kernels).__name__ for kernels in compiled] == ["run"]
    assert distance(found, gradients_of(parts_of(**small, execution=Execution(compile="no")))) < 1e-12


@pytest.mark.parametrize("clip", [None, 30.0])
def test_until_it_has_settled_is_equilibrium(clip, monkeypatch):
    """Where there is a law, one sweep; and the summary can say how many steps it stands for."""
    parts = parts_of(Relaxation(steps="auto", tolerance=1e-3, clip=clip), Execution(compile="no"))
    settled = parts_of(Relaxation(integrator="equilibrium"))
    assert distance(gradients_of(parts), gradients_of(settled)) < 1e-13
    if clip is None:
        assert applications(monkeypatch, parts.training.rule, parts.training) == 3


@pytest.mark.parametrize(
    ("auto", "said"),
    [
        (Relaxation(steps="auto", max_steps=20), "after 20 steps: give a larger --max-steps or --tolerance"),
        # enough for the activity, whose share of 1e-3 is more than the gradient
        (
            Relaxation(steps="auto", tolerance=1e-3, tolerance_of="gradient", max_steps=110),
            "have not settled after 110 steps: ",
        ),
    ],
    ids=["activity", "gradient"],
)
def test_too_few_steps_to_settle_are_taken_and_said(auto, said):
    fixed = gradients_of(parts_of(Relaxation(steps=auto.max_steps)))
    with pytest.warns(UserWarning, match=said):
        parts = parts_of(auto)
    assert distance(gradients_of(parts), fixed) < 1e-12
    parts_of(replace(auto, tolerance=1e-3, tolerance_of="activity", max_steps=110))


def test_without_a_law_it_steps_until_it_has_settled():
    tolerant = Relaxation("unfrozen", steps="auto", tolerance=1e-3, eta=0.2)
    found = gradients_of(parts_of(tolerant, batch_size=16))
    long = gradients_of(parts_of(Relaxation("unfrozen", steps=400, eta=0.2), batch_size=16))
    assert 0 < distance(found, long) < 0.1


def bound_by_hand(training, eta):
    """That of the first batch, before the weights move."""
    x, y = next(iter(training.batches.epoch(1)))
    problem = RelaxationProblem.from_batch(training.network, x, y)
    return float(largest_derivative(problem, INTEGRATORS["euler"], dt=eta))


def clipped(clip, evaluation="auto", **options):
    relaxation = Relaxation(integrator="euler", steps=12, eta=0.2, clip=clip)
    return parts_of(relaxation, Execution(evaluation=evaluation, compile="no"), **options)


def checked(training):
    """A list that fills with the batches that are checked."""
    found, original = [], training.rule.bound
    training.rule.bound = lambda *args: found.append(training.done) or original(*args)
    return found


@pytest.mark.parametrize("every", [2, 1000])
def test_a_batch_is_checked_now_and_then(every, monkeypatch):
    """Each epoch's first batch, and every so many after it: of 6 batches per epoch."""
    monkeypatch.setattr(clipping, "EVERY", every)
    parts = clipped(30.0)
    found = checked(parts.training)
    rehearse(parts)
    assert found == []
    train(parts.training)
    assert found == ([0, 2, 4, 6, 8, 10] if every == 2 else [0, 6])


@pytest.mark.parametrize("factor", [2.0, 4.1])
def test_near_the_clip_every_batch_is_checked(factor):
    training = clipped(factor * bound_by_hand(assemble(clipped(100.0)).training, 0.2)).training
    found = checked(training)
    for batch in itertools.islice(training.batches.epoch(1), 3):
        learn(training, training.rule, *batch)
    assert found == ([0, 1, 2] if factor == 2.0 else [0])


def half_of_the_batches(monkeypatch):
    """A clip that half of the batches may reach."""
    bounds = []
    with monkeypatch.context() as patch:
        patch.setattr(clipping, "EVERY", 1)
        usual = clipped(1e3).training
        original = usual.rule.bound
        usual.rule.bound = lambda *args: bounds.append(original(*args)) or bounds[-1]
        train(usual)
    return sorted(bounds)[len(bounds) // 2], len(bounds)


def test_batches_that_may_reach_the_clip_are_stepped(capfd, monkeypatch):
    """And no others; the weights are those of a run that always stepped."""
    clip, count = half_of_the_batches(monkeypatch)
    evaluations = []
    monkeypatch.setattr(
        "actrelax.simulations.training.rules.relax_backward",
        lambda *args, **options: evaluations.append(options["options"].evaluation) or relax_backward(*args, **options),
    )
    training = clipped(clip).training
    train(training)
    assert evaluations.count("stepped") + evaluations.count("closed-form") == count
    assert 0 < evaluations.count("stepped") < count
    assert capfd.readouterr().err.count("from here on every batch is checked, and stepped if it may reach the") == 1
    always = clipped(clip, evaluation="stepped").training
    train(always)
    for p, q in zip(training.network.parameters(), always.network.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batches", [3, 6, 8])
@pytest.mark.parametrize("near", [True, False])
def test_a_resumed_run_is_the_same_to_the_last_bit(batches, near, monkeypatch):
    """From the middle of an epoch and from its beginning."""
    clip = half_of_the_batches(monkeypatch)[0] if near else 30.0
    whole, begun = clipped(clip).training, clipped(clip).training
    states = []
    train(whole, [Saving(batches, states)])
    begun.load_state_dict(states[0])
    train(begun)
    assert begun.rule.largest == whole.rule.largest
    for p, q in zip(begun.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_resumed_run_checks_no_batch_that_the_other_does_not():
    """A bound that jumps between two checks is missed by both."""
    bounds = [1.0, 1.0, 1.0, 60.0, 1.0, 1.0]

    def run(batches, state=None):
        found = []
        rule = StepNearClip(
            bound=lambda *batch: bounds[batches[len(found)]],
            clip=50.0,
            free=lambda *batch: found.append("free"),
            clipped=lambda *batch: found.append("clipped"),
            place=lambda: batches[len(found)],
        )
        if state is not None:
            rule.load_state_dict(state)
        for _ in batches:
            rule(None, None, None)
        return found, rule.state_dict()

    whole, _ = run(range(6))
    first, state = run(range(3))
    rest, _ = run(range(3, 6), state)
    assert first + rest == whole


class Saving(Callback):
    """Keep the state after so many batches."""

    def __init__(self, batches, states):
        self.batches, self.states = batches, states

    def on_batch(self, training):
        if training.done == self.batches and training.batch < len(training.batches):
            self.states.append(copy.deepcopy(training.state_dict()))

    def on_epoch(self, training):
        if training.done == self.batches:
            self.states.append(copy.deepcopy(training.state_dict()))


def test_a_clip_that_is_reached_has_its_effect():
    stepped, training = clipped(0.3, evaluation="stepped"), clipped(0.3)
    free = parts_of(Relaxation(integrator="euler", steps=12, eta=0.2))
    for rule in (training.training.rule, training.careful):
        assert distance(gradients_of(training, rule), gradients_of(stepped)) == 0
    assert distance(gradients_of(free), gradients_of(stepped)) > 1e-3


def test_without_a_bound_it_steps():
    relaxation = Relaxation(integrator="heun", steps=12, eta=0.2, clip=0.3)
    parts = parts_of(relaxation)
    stepped = parts_of(relaxation, Execution(evaluation="stepped"))
    assert distance(gradients_of(parts), gradients_of(stepped)) == 0


def test_a_bound_that_is_no_number_may_reach_the_clip():
    training, stepped = clipped(0.3).training, clipped(0.3, evaluation="stepped")
    training.rule.bound = lambda *_: float("nan")
    x, y = next(iter(training.batches.epoch(1)))
    training.rule(training.network, x, y)
    found = [p.grad for p in training.network.parameters()]
    assert distance(found, gradients_of(stepped)) == 0
    assert training.rule.near


def test_a_clip_has_no_effect_on_the_equilibrium():
    clipped, free = (parts_of(Relaxation(integrator="equilibrium", clip=c)) for c in (0.01, None))
    assert distance(gradients_of(clipped), gradients_of(free)) == 0


def test_it_is_told_once(capfd):
    """Not again after its batch was resumed."""
    training = clipped(0.5).training
    state = copy.deepcopy(training.state_dict())
    for _ in range(2):
        training.load_state_dict(copy.deepcopy(state))
        learn(training, training.rule, *next(iter(training.batches.epoch(1))))
        assert training.rule.near
    assert capfd.readouterr().err.count("from here on") == 1


def test_bfloat16_reaches_the_closed_form():
    parts = parts_of(precision="bf16")
    training = parts.training
    found = gradients_of(parts)
    options = replace(parts.options, evaluation="closed-form")
    exact = in_bfloat16(partial(relax_backward, loss=parts.loss, options=options))
    assert {g.dtype for g in found} == {torch.float32}
    assert distance(found, gradients_of(parts, exact)) == 0
    assert training.rule is not parts.careful


@pytest.mark.parametrize(
    ("relaxation", "execution", "sentence"),
    [
        (
            Relaxation("unfrozen"),
            Execution(evaluation="closed-form"),
            "--evaluation closed-form can't be used here: the closed form needs frozen gains",
        ),
        (
            Relaxation("continuous"),
            Execution(evaluation="closed-form"),
            "--evaluation closed-form is not for continuous plasticity",
        ),
        (Relaxation("continuous"), Execution(compile="trace"), "--compile trace is not for continuous plasticity"),
        (
            Relaxation(integrator="euler", noise=0.1),
            Execution(compile="trace"),
            "--compile trace is for relaxations of a fixed number of steps without noise",
        ),
        (
            Relaxation("unfrozen", steps="auto"),
            Execution(compile="inductor"),
            "--compile inductor is for relaxations of a fixed number of steps without noise",
        ),
        (Relaxation("continuous", steps="auto"), Execution(), "continuous plasticity divides the rate"),
        (
            Relaxation(tolerance=1e-3),
            Execution(),
            "only --steps auto takes --tolerance: choose that, or leave --tolerance out.",
        ),
        (
            Relaxation(steps="auto", noise=0.1, integrator="euler"),
            Execution(),
            "a relaxation with noise never settles: ",
        ),
    ],
)
def test_what_is_refused(relaxation, execution, sentence):
    with pytest.raises(ActrelaxError) as refused:
        rehearse(parts_of(relaxation, execution))
    assert str(refused.value).startswith(sentence)
