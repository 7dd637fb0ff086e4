"""Rules from options: the same gradients by every evaluation."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, relax_backward
from actrelax.models.network import Projection
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model
from actrelax.simulations.training.mixed_precision import in_bfloat16
from actrelax.simulations.training.processes import Processes
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.rules import make_rule

OWN = """
from torch import nn

def normed(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, classes))
"""


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
    """Count the feedback passes through projections, in images."""
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
def test_all_ways_to_evaluate_give_the_same_gradients(relaxation, compile_as):
    """Closed form, steps and traced rules agree."""
    expected = gradients_of(parts_of(relaxation, execution=Execution(compile="no"), evaluation="stepped"))
    assert distance(gradients_of(parts_of(relaxation, Execution(compile=compile_as))), expected) < 1e-11


def test_the_evaluation_decides_how_much_work_it_is(monkeypatch):
    """With 4 populations above the input: at most 6 feedback maps by the closed form, 300 or more in 100 steps."""
    counts = {}
    for evaluation in ("auto", "closed-form", "stepped"):
        parts = parts_of(execution=Execution(compile="no"), evaluation=evaluation)
        counts[evaluation] = applications(monkeypatch, parts.training.rule, parts.training)
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
    """A sparse transform draws the same connections for every batch."""
    sparse = Relaxation(feedback_transform="sparse-0.5")
    parts, plain = parts_of(sparse), parts_of(sparse, Execution(compile="no"))
    for batch in (0, 1, 0):
        assert distance(gradients_of(parts, batch=batch), gradients_of(plain, batch=batch)) == 0
    with pytest.raises(
        ActrelaxError, match=r"^--compile trace does not support feedback transforms: leave --feedback-transform"
    ):
        parts_of(sparse, Execution(compile="trace"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from torch.compile itself
def test_fused_kernels_give_the_same_but_for_rounding(monkeypatch):
    """torch.compile fuses the kernels of a traced rule."""
    compiled, original = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda kernels: compiled.append(kernels) or original(kernels))
    small = {"model": Model("digits-mlp"), "relaxation": Relaxation(integrator="equilibrium")}
    found = gradients_of(parts_of(**small, execution=Execution(compile="inductor")))
    assert [type(kernels).__name__ for kernels in compiled] == ["run"]
    assert distance(found, gradients_of(parts_of(**small, execution=Execution(compile="no")))) < 1e-12


@pytest.mark.parametrize("tolerance", [{"tolerance": 1e-5}, {"tolerance": 1e-3, "tolerance_of": "gradient"}])
def test_until_it_has_settled_is_equilibrium(tolerance, monkeypatch):
    """With a closed form it is one sweep, and the summary has the equivalent number of steps."""
    parts = parts_of(Relaxation(steps="auto", **tolerance), Execution(compile="no"))
    settled = parts_of(Relaxation(integrator="equilibrium"))
    assert distance(gradients_of(parts), gradients_of(settled)) < 1e-13
    assert applications(monkeypatch, parts.training.rule, parts.training) == 3


@pytest.mark.parametrize(
    ("auto", "said"),
    [
        (Relaxation(steps="auto", max_steps=20), "after 20 steps: give a larger --max-steps or --tolerance"),
        # enough for the activity, of which 1e-3 exceeds the gradient
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


def test_a_clip_is_stepped():
    clipped = Relaxation(integrator="euler", steps=12, eta=0.2, clip=0.3)
    found = gradients_of(parts_of(clipped))
    assert distance(found, gradients_of(parts_of(clipped, evaluation="stepped"))) == 0
    assert distance(found, gradients_of(parts_of(replace(clipped, clip=None)))) > 1e-3


def test_a_clip_has_no_effect_on_the_equilibrium():
    clipped, free = (parts_of(Relaxation(integrator="equilibrium", clip=c)) for c in (0.01, None))
    assert distance(gradients_of(clipped), gradients_of(free)) < 1e-13


def test_bfloat16_reaches_the_closed_form():
    parts = parts_of(precision="bf16")
    found = gradients_of(parts)
    options = replace(parts.options, evaluation="closed-form")
    exact = in_bfloat16(partial(relax_backward, loss=parts.loss, options=options))
    assert {g.dtype for g in found} == {torch.float32}
    assert distance(found, gradients_of(parts, exact)) == 0


@pytest.mark.parametrize(
    ("relaxation", "how", "sentence"),
    [
        (
            Relaxation("unfrozen"),
            {"evaluation": "closed-form"},
            "--evaluation closed-form can't be used here: the closed form needs frozen gains",
        ),
        (
            Relaxation(clip=50.0),
            {"evaluation": "closed-form"},
            "the closed form needs a relaxation without clip: leave --clip out, or use --evaluation stepped.",
        ),
        (
            Relaxation("continuous"),
            {"evaluation": "closed-form"},
            "--evaluation closed-form can't be used with continuous plasticity",
        ),
        (Relaxation("continuous"), {"compile": "trace"}, "--compile trace does not support continuous plasticity"),
        (
            Relaxation(integrator="euler", noise=0.1),
            {"compile": "trace"},
            "--compile trace needs relaxations with a fixed number of steps and without noise",
        ),
        (
            Relaxation("unfrozen", steps="auto"),
            {"compile": "inductor"},
            "--compile inductor needs relaxations with a fixed number of steps and without noise",
        ),
        (Relaxation("continuous", steps="auto"), {}, "continuous plasticity divides the rate"),
        (
            Relaxation(tolerance=1e-3),
            {},
            "--steps auto is needed for --tolerance: give it, or leave --tolerance out.",
        ),
        (
            Relaxation(steps="auto", noise=0.1, integrator="euler"),
            {},
            "a relaxation with noise never settles: ",
        ),
    ],
)
def test_what_is_refused(relaxation, how, sentence):
    with pytest.raises(ActrelaxError) as refused:
        parts_of(relaxation, Execution(compile=how.pop("compile", "auto")), **how)
    assert str(refused.value).startswith(sentence)


def test_a_coarse_tolerance_gives_what_its_steps_give():
    """By the closed form and step by step; the equilibrium is something else."""
    coarse = Relaxation(steps="auto", tolerance=0.3)
    stepped, at_once = (gradients_of(parts_of(coarse, evaluation=e), batch=3) for e in ("stepped", "closed-form"))
    assert distance(stepped, at_once) < 1e-12
    assert distance(at_once, gradients_of(parts_of(Relaxation(integrator="equilibrium")), batch=3)) > 0.01


class Two(Processes):
    """The first of two processes, the other of which has the same numbers."""

    sent = ()

    @property
    def agree(self):
        return lambda numbers: self.sent.append(numbers) or numbers


@pytest.mark.parametrize("steps", [3, "auto"])
def test_processes_agree_when_a_captured_network_has_settled(steps, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    relaxation = Relaxation(integrator="euler", steps=steps, clip=0.05)
    experiment = Experiment(epochs=1, batch_size=50, model=Model(f"{tmp_path}/own.py:normed"), relaxation=relaxation)
    training = assemble(experiment, Execution()).training
    monkeypatch.setattr(Two, "sent", [])
    batches, optimiser = replace(training.batches, processes=Two(0, 2)), torch.optim.SGD(training.network.parameters())
    loss, options = experiment.model.as_loss, BackwardOptions()
    rule = make_rule(experiment, Execution(), training.network, loss, options, optimiser, batches, lambda: 0)
    assert rule.agrees == bool(Two.sent) == (steps == "auto")
