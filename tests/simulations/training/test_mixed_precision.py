"""Rules in bfloat16: gradients close to single precision, with weights in single precision."""

import copy

import pytest
import torch

from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import solve
from actrelax.models.learning import backprop_backward
from actrelax.models.network import build
from actrelax.models.problem import LOSSES, RelaxationProblem
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.callbacks import Alignment
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.loop import learn, train
from actrelax.simulations.training.mixed_precision import in_bfloat16, in_single_precision
from actrelax.simulations.training.relaxation import Relaxation

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))

RULES = {
    "backprop": ("backprop", Relaxation()),
    "stepped": ("ar", Relaxation()),
    "small steps": ("ar", Relaxation(eta=0.01, steps=1000)),
    "equilibrium": ("ar", Relaxation(integrator="equilibrium")),
    "learned": ("ar", Relaxation("learned-feedback")),
    "kolen-pollack": ("ar", Relaxation("kolen-pollack")),
    "random": ("ar", Relaxation("random-feedback")),
    "sign": ("ar", Relaxation("sign-feedback")),
    "current gains": ("ar", Relaxation("unfrozen", integrator="rk4", steps=50)),
    "noisy input": ("ar", Relaxation("current-presynaptic", integrator="euler", input_noise=0.01)),
    "neurons apart": ("ar", Relaxation(tau_spread=0.3, dt=0.2, steps=40)),
}


def parts_of(rule="stepped", precision="bf16", network="digits-cnn", device="cpu", **optimisation):
    kind, relaxation = RULES[rule]
    decay = 0.1 if rule == "kolen-pollack" else None
    return assemble(
        Experiment(
            rule=kind,
            epochs=2,
            model=Model(network),
            relaxation=relaxation,
            optimisation=Optimisation(decay=decay, **optimisation),
            precision=precision,
        ),
        Execution(device, threads=1),
    )


def gradients_of(parts):
    """Return the gradients of the first batch, by name, and the result of the rule."""
    training = parts.training
    result = training.rule(training.network, *next(iter(training.batches.epoch(1))))
    return {name: p.grad for name, p in training.network.named_parameters()}, result


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("network", ["digits-cnn", "digits-skip"])
@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_those_of_single_precision_but_for_rounding(rule, network, device):
    """bfloat16 rounds to 0.4 %: gradients turn by a few percent, and their norms change by about one percent."""
    exact, passed = gradients_of(parts_of(rule, "fp32", network, device))
    rounded, result = gradients_of(parts_of(rule, "bf16", network, device))
    assert result.output.dtype == torch.bfloat16
    assert result.loss.item() == pytest.approx(passed.loss.item(), rel=0.005)
    assert rounded.keys() == exact.keys()
    assert any(name.endswith("feedback") for name in rounded) == (rule in ("learned", "kolen-pollack"))
    for name, expected in exact.items():
        found = rounded[name]
        assert found.dtype == torch.float32
        assert 1e-4 < (found - expected).norm() / expected.norm() < 0.1
        assert (found * expected).sum() / expected.norm() ** 2 == pytest.approx(1, abs=0.02)


def test_relaxed_states_do_not_stop_on_the_way():
    """States are single precision, so that small steps count; weights and drives are bfloat16."""
    training = parts_of("small steps").training
    x, y = next(iter(training.batches.epoch(1)))
    problem = RelaxationProblem.from_batch(copy.deepcopy(training.network).bfloat16(), x.bfloat16(), y)
    assert {a.dtype for a in problem.feedforward.activities.values()} == {torch.bfloat16}
    for evaluation in ("stepped", "closed-form"):
        final = solve(problem, "sequential", steps=5, evaluation=evaluation).final
        assert {x.dtype for x in final.values()} == {torch.float32}


def test_weights_learn_less_than_bfloat16_resolves():
    """Updates of a millionth take effect, although bfloat16 rounds to 0.4 %."""
    training = parts_of("equilibrium", lr=1e-5, momentum=0.9).training
    before = {name: p.detach().clone() for name, p in training.network.named_parameters()}
    for x, y in training.batches.epoch(1):
        learn(training, x, y)
    for name, p in training.network.named_parameters():
        assert p.dtype == torch.float32
        assert (p != before[name]).double().mean() > 0.9
    weight = training.network.projections["conv2->hidden1"].weight
    assert (weight.bfloat16() == before["conv2->hidden1.weight"].bfloat16()).double().mean() > 0.9
    assert {state["momentum_buffer"].dtype for state in training.optimiser.state.values()} == {torch.float32}


@pytest.mark.parametrize("rule", ["backprop", "random"])
def test_the_weights_of_the_moment_count(rule):
    """Holds also for fixed feedback weights, which only a checkpoint changes."""
    parts, other = parts_of(rule), parts_of(rule)
    gradients_of(parts)
    changed = {
        name: x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        for name, x in parts.training.network.state_dict().items()
    }
    parts.training.network.zero_grad()
    for network in (parts.training.network, other.training.network):
        network.load_state_dict(changed)
    again, _ = gradients_of(parts)
    fresh, _ = gradients_of(other)
    assert all(torch.equal(again[name], fresh[name]) for name in fresh)


def test_gradients_add_up():
    """The gradients of a second batch are added, as by autograd."""
    parts = parts_of("backprop")
    once = {name: grad.clone() for name, grad in gradients_of(parts)[0].items()}
    twice, _ = gradients_of(parts)
    assert all(torch.equal(twice[name], 2 * once[name]) for name in once)


def test_what_a_rule_is_tried_on_is_not_kept():
    parts = parts_of("learned")
    assert all(p.grad is None and p.dtype == torch.float32 for p in parts.training.network.parameters())
    network = build("digits-mlp")
    rule = in_bfloat16(backprop_backward)
    seen = []
    for _ in range(2):
        twin = copy.deepcopy(network)
        seen.append(rule(twin, torch.rand(2, 64), torch.tensor([1, 2])).output)
        assert all(p.grad is not None for p in twin.parameters())
    assert all(p.grad is None for p in network.parameters())


def test_angles_are_measured_in_the_rules_precision():
    parts = parts_of("equilibrium")
    train(parts.training, [Alignment(10, parts.loss, parts.options, PRESETS["ar"])])
    rows = parts.training.tables["alignment"]
    assert len(rows) == 5  # from 2 x 23 batches
    assert all(0 < row["mean"] < 5 for row in rows)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_what_is_nearly_learned(name):
    """Near 1, bfloat16 can't resolve the label's gradient, softmax - 1."""
    loss, target = LOSSES[name], torch.tensor([0])
    output = torch.tensor([[8.0, 0.0, 0.5]]) if name == "cross-entropy" else torch.tensor([[1.0, 0.001, 0.25]])
    found = in_single_precision(loss)
    gradient = found.gradient(output.bfloat16(), target)
    expected = loss.gradient(output.bfloat16().double(), target)
    assert gradient.dtype == torch.bfloat16
    assert (gradient.double() - expected).abs().max() <= expected.abs().max() / 256
    assert found.value(output.bfloat16(), target).double() == pytest.approx(
        loss.value(output.bfloat16().double(), target), rel=1e-3
    )
    if name == "cross-entropy":
        assert gradient[0, 0] < 0 == loss.gradient(output.bfloat16(), target)[0, 0]
