"""Assembly of a training: each option reaches its part."""

import copy
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward
from actrelax.models.network import Network, build
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.data import random_stream
from actrelax.simulations.training import assemble as module
from actrelax.simulations.training.assemble import assemble, learning_rate_factor
from actrelax.simulations.training.batches import Preprocessing
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation, protocol
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.networks import make_network
from actrelax.simulations.training.relaxation import Relaxation


def factors(o, epochs=10, batches=7):
    return [learning_rate_factor(o, step, epochs=epochs, batches=batches) for step in range(epochs * batches)]


def test_schedules():
    assert factors(Optimisation()) == [1.0] * 70
    steps = factors(Optimisation(schedule="step", step_epochs=3, step_factor=0.5))
    assert steps == [0.5 ** (step // 21) for step in range(70)]
    cosine = factors(Optimisation(schedule="cosine"))
    assert cosine == pytest.approx([(1 + math.cos(math.pi * step / 70)) / 2 for step in range(70)])
    warm = factors(Optimisation(schedule="cosine", warmup=2))
    assert warm[:14] == pytest.approx([(step + 1) / 15 for step in range(14)])
    assert warm[14:] == pytest.approx([(1 + math.cos(math.pi * step / 56)) / 2 for step in range(56)])
    assert min(factors(Optimisation(schedule="cosine", warmup=10))) > 0
    triangle = factors(Optimisation(schedule="linear", warmup=2))
    assert triangle[:14] == warm[:14]
    assert triangle[14:] == pytest.approx([1 - step / 56 for step in range(56)])


@pytest.mark.parametrize("period", [0.1, 0.3, 0.7, 1.1, 2.3])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 1.1, 2.9])
def test_fractions_of_an_epoch_are_decimal_numbers(period, warmup):
    """With 10 batches per epoch, tenths of an epoch are whole numbers of batches."""
    o = Optimisation(schedule="step", step_epochs=period, step_factor=0.5, warmup=warmup)
    first, every = round(10 * warmup), round(10 * period)
    expected = [(k + 1) / (first + 1) if k < first else 0.5 ** ((k - first) // every) for k in range(100)]
    assert factors(o, batches=10) == pytest.approx(expected)


def test_the_learning_rate_follows_the_schedule():
    experiment = Experiment(
        epochs=2, optimisation=Optimisation(lr=0.4, schedule="step", step_epochs=1, step_factor=0.25)
    )
    training = assemble(experiment).training
    rates = []
    for _ in range(2 * len(training.batches)):
        rates.append(training.optimiser.param_groups[0]["lr"])
        training.optimiser.step()
        training.schedule.step()
    assert rates == [0.4] * 23 + [0.1] * 23


def test_one_seed_one_beginning_whatever_the_rule():
    made = [
        assemble(Experiment(rule=rule, relaxation=Relaxation(assumptions))).training
        for rule, assumptions in (("backprop", "ar"), ("ar", "ar"), ("ar", "simplified"), ("ar", "random-feedback"))
    ]
    for training in made[1:]:
        for name, weight in made[0].network.state_dict().items():
            assert torch.equal(weight, training.network.state_dict()[name])
        for (x, y), (u, v) in zip(made[0].batches.epoch(1), training.batches.epoch(1), strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    learned = made[2].network.projections["hidden1->output"].feedback
    assert isinstance(learned, nn.Parameter)
    other = assemble(Experiment(relaxation=Relaxation("simplified"), seed=1)).training.network
    assert not torch.equal(learned, other.projections["hidden1->output"].feedback)
    assert not torch.equal(made[0].network.projections["input->conv1"].weight, other.projections["input->conv1"].weight)


def test_feedback_weights_learn_too():
    training = assemble(Experiment(relaxation=Relaxation("learned-feedback"))).training
    held = {id(p) for group in training.optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for p in training.network.parameters()}
    assert len(held) == 8 + 3


@pytest.mark.parametrize(
    ("options", "kind", "group"),
    [
        (Optimisation(lr=0.3, momentum=0.8, weight_decay=0.1), torch.optim.SGD, {"momentum": 0.8, "weight_decay": 0.1}),
        (Optimisation(optimiser="adam", lr=0.3, weight_decay=0.1), torch.optim.Adam, {"weight_decay": 0.1}),
        (Optimisation(optimiser="adamw", lr=0.3), torch.optim.AdamW, {"weight_decay": 0.0}),
    ],
)
def test_optimisers(options, kind, group):
    optimiser = assemble(Experiment(optimisation=options)).training.optimiser
    assert type(optimiser) is kind
    found = optimiser.param_groups[0]
    assert {"lr": 0.3} | group == {name: found[name] for name in ({"lr": 0.3} | group)}


def test_the_rule_gets_the_protocols_options(npz):
    """One update by the CNN protocol equals `relax_backward` called by hand."""
    paper = protocol("paper-cnn")
    experiment = replace(
        paper,
        images=replace(paper.images, dataset=str(npz)),
        model=replace(paper.model, network="digits-cnn"),
        relaxation=replace(paper.relaxation, steps=5, eta=0.3, clip=0.01),
        optimisation=replace(paper.optimisation, update_clip=0.4),
        precision="fp64",
    )
    parts = assemble(experiment)
    x, y = next(iter(parts.training.batches.epoch(1)))
    assert (x.min(), x.max(), x.dtype) == (-1, 1, torch.float64)
    network = parts.training.network
    assert network.projections["conv1->conv2"].weight.detach().std() == pytest.approx(0.05, rel=0.02)
    parts.training.rule(network, x, y)
    found = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    relax_backward(
        network,
        x,
        y,
        loss="sum-of-squares",
        steps=5,
        eta=0.3,
        clip=0.01,
        options=module.BackwardOptions(module.Updates({"conv": 2.0}, 0.4), "sum"),
    )
    for name, p in network.named_parameters():
        assert torch.equal(found[name], p.grad)
    assert max(g.abs().max() for g in found.values()) == 0.4
    plain = partial(relax_backward, network, x, y, loss="sum-of-squares", steps=5, eta=0.3)
    for options in ({"clip": 0.01}, {"options": module.BackwardOptions(reduction="sum")}):
        network.zero_grad()
        plain(**options)
        assert any(not torch.allclose(found[name], p.grad, rtol=1e-3) for name, p in network.named_parameters())


def test_continuous_plasticity_moves_weights_at_the_scheduled_rate(npz):
    o = Optimisation(lr=0.5, schedule="step", step_epochs=1, step_factor=0.1)
    experiment = Experiment(
        epochs=2, images=Images(str(npz)), relaxation=Relaxation("continuous", steps=5), optimisation=o
    )
    training = assemble(experiment).training
    x, y = next(iter(training.batches.epoch(1)))
    moved = []
    for _ in range(len(training.batches) + 1):
        before = training.network.projections["hidden1->output"].bias.detach().clone()
        training.rule(training.network, x[:1], y[:1])
        training.optimiser.step()
        moved.append(float((training.network.projections["hidden1->output"].bias.detach() - before).abs().max()))
        training.schedule.step()
    assert all(p.grad is None for p in training.network.parameters())
    assert moved[-1] < moved[0] / 5


OWN = """
import torch
from torch import nn
from actrelax import Network, Projection

def sequential(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.Tanh(), nn.Linear(7, classes))

def graph(input_shape, classes):
    return Network(input_shape, {"output": "identity"},
                   [Projection("input", "output", nn.Flatten(), nn.Linear(64, classes))])

def narrow(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(9, classes))

def broken(input_shape, classes):
    raise ZeroDivisionError("mine")

def other(input_shape, classes):
    return 3

number = 4
"""


def test_a_network_of_ones_own(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    network, module = make_network(Model(f"{file}:sequential"), (1, 8, 8), 10, seed=3)
    assert module[1].weight is network.projections["input->hidden1"].weight
    again, _ = make_network(Model(f"{file}:sequential"), (1, 8, 8), 10, seed=3)
    other, _ = make_network(Model(f"{file}:sequential"), (1, 8, 8), 10, seed=4)
    weights = [n.projections["hidden1->output"].weight for n in (network, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    graph, none = make_network(Model(f"{file}:graph"), (1, 8, 8), 10, seed=3)
    assert isinstance(graph, Network)
    assert none is None
    with pytest.raises(ZeroDivisionError, match="mine"):
        make_network(Model(f"{file}:broken"), (1, 8, 8), 10, seed=3)
    for model, sentence in (
        (Model(f"{file}:other"), f"{file}:other must return an nn.Module or a Network, got int."),
        (Model(f"{file}:number"), f"{file} has no function 'number': write one that takes input_shape and classes."),
        (Model(f"{file}:nix"), f"{file} has no function 'nix': write one that takes input_shape and classes."),
        (
            Model(f"{tmp_path}/nix.py:f"),
            f"{tmp_path}/nix.py is not a Python file: give your network as FILE.py:FUNCTION.",
        ),
        (
            Model(f"{file}:narrow"),
            f"the module of {file}:narrow fails for samples of shape (1, 8, 8): mat1 and mat2 shapes cannot be "
            "multiplied (2x64 and 9x10): make it for the input_shape that the function is given.",
        ),
        (Model("nix:f"), "nix is not a Python file: give your network as FILE.py:FUNCTION."),
        (
            Model(f"{file}:graph", activation="relu"),
            "--activation and --weight-std are for networks by name: set them in your function.",
        ),
    ):
        with pytest.raises(ActrelaxError) as refused:
            make_network(model, (1, 8, 8), 10, seed=3)
        assert str(refused.value) == sentence


def test_networks_by_name_get_the_options():
    network, module = make_network(Model("digits-mlp", "relu", 0.7), (1, 8, 8), 4, seed=3)
    expected = build(
        "digits-mlp",
        input_shape=(1, 8, 8),
        classes=4,
        activation="relu",
        weight_std=0.7,
        generator=random_stream(3, "weights"),
    )
    assert module is None
    assert repr(network) == repr(expected)
    assert network.populations["hidden1"].activation.name == "relu"
    for p, q in zip(network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(p, q)
    assert network.projections["input->hidden1"].weight.detach().std() == pytest.approx(0.7, rel=0.05)


def test_the_rule_is_tried_before_a_run_begins_and_changes_nothing():
    parts = assemble(Experiment(relaxation=Relaxation("continuous", steps=3)))
    network, _ = make_network(Model(), (1, 8, 8), 10, 0)
    assert all(
        torch.equal(p, q) for p, q in zip(parts.training.network.parameters(), network.parameters(), strict=True)
    )
    assert all(p.grad is None for p in parts.training.network.parameters())
    for relaxation in (Relaxation(integrator="rk5"), Relaxation(eta=2.5), Relaxation(tau_spread=0.2)):
        with pytest.raises(ActrelaxError):
            assemble(Experiment(relaxation=relaxation))


def test_augmentation_is_for_images(tmp_path, arrays):
    flat = {key: x.reshape(len(x), -1) if x.ndim == 3 else x for key, x in arrays.items()}
    np.savez(tmp_path / "flat.npz", **flat)
    images = Images(str(tmp_path / "flat.npz"), augment="crop")
    with pytest.raises(ActrelaxError, match=r"^--augment is for images, but flat has 64 features: leave it out\.$"):
        assemble(Experiment(images=images))


def test_hardware_is_set_up(monkeypatch):
    assemble(Experiment(), Execution(threads=2))
    assert torch.get_num_threads() == 2
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *args, **options: asked.append((args, options)))
    assert torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        module.set_up(Hardware("cuda", 1), 0)
        assert asked == [((True,), {"warn_only": True})]
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        module.set_up(Hardware("cuda", 1, precision="tf32"), 0)
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
        module.set_up(Hardware("cuda", 1, precision="bf16"), 0)
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = True


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tf32_rounds_what_is_multiplied_and_fp32_does_not():
    """Errors of a CNN's outputs against float64 correspond to 10 or 23 bits of mantissa."""
    errors = {}
    for precision in ("fp32", "tf32"):
        training = assemble(Experiment(precision=precision), Execution("cuda", 1)).training
        x, _ = next(iter(training.batches.epoch(1)))
        exact = copy.deepcopy(training.network).double()(x.double())
        errors[precision] = float(((training.network(x) - exact).abs().max() / exact.abs().max()).detach())
        assert training.network(x).dtype == torch.float32
    assert errors["fp32"] < 1e-5 < errors["tf32"] < 1e-2


GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("precision", ["fp64", "bf16"])
@pytest.mark.parametrize("network", ["digits-cnn", "digits-skip"])
@pytest.mark.parametrize(
    ("rule", "relaxation"),
    [
        ("backprop", Relaxation()),
        ("ar", Relaxation("learned-feedback", steps=10)),
        ("ar", Relaxation("unfrozen", steps=5)),
        ("ar", Relaxation(integrator="equilibrium")),
    ],
    ids=["backprop", "learned", "unfrozen", "equilibrium"],
)
def test_channels_last_is_a_layout_and_changes_nothing_else(rule, relaxation, network, precision, device):
    """Images, weights, activities and gradients have this layout; in double precision all values are equal."""
    found = {}
    for channels_last in (False, True):
        images = Images(normalise="half")
        experiment = Experiment(
            rule=rule, images=images, model=Model(network), relaxation=relaxation, precision=precision
        )
        training = assemble(experiment, Execution(device, 1, channels_last)).training
        x, y = next(iter(training.batches.epoch(1)))
        training.rule(training.network, x, y)
        weights = dict(training.network.named_parameters())
        found[channels_last] = {name: p.grad for name, p in weights.items()}
        looked_at = {f"{name} grad": grad for name, grad in found[channels_last].items()} | weights
        if precision == "fp64":
            problem = RelaxationProblem.from_batch(training.network, x, y)
            looked_at |= problem.feedforward.activities
            for evaluation in ("stepped", "closed-form"):
                final = solve(problem, "equilibrium", evaluation=evaluation).final
                looked_at |= {f"{name} {evaluation}": v for name, v in final.items()}
        for name, v in looked_at.items():
            if v.dim() == 4 and channels_last:
                assert v.is_contiguous(memory_format=torch.channels_last), name
        weight = training.network.projections["conv1->conv2"].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    for name, expected in found[False].items():
        error = (found[True][name] - expected).norm() / expected.norm()
        assert error < (1e-13 if precision == "fp64" else 0.1)


def test_images_lie_as_asked():
    x = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8)
    plain, last = (Preprocessing(torch.float64, channels_last=c) for c in (False, True))
    assert plain(x).is_contiguous()
    assert last(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain(x), last(x))
    assert torch.equal(last(x.flatten(1)), plain(x).flatten(1))


def test_channels_last_needs_convolutions():
    said = r"^--channels-last is for convolutions, but digits-mlp has none: leave it out\.$"
    with pytest.raises(ActrelaxError, match=said):
        assemble(Experiment(model=Model("digits-mlp")), Execution(channels_last=True))


def test_outputs_are_the_classes(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def five(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n"
    )
    with pytest.raises(ActrelaxError) as refused:
        assemble(Experiment(model=Model(f"{tmp_path}/own.py:five")))
    assert str(refused.value) == (
        f"{tmp_path}/own.py:five has an output of shape (5,), but the data has 10 classes: "
        "give the output the shape (10,)."
    )


def test_images_that_the_precision_cannot_hold(tmp_path, arrays):
    x = arrays["x_train"] * 1e300
    np.savez(tmp_path / "huge.npz", **arrays | {"x_train": x, "x_test": x[:40]})
    with pytest.raises(ActrelaxError, match=r"^images of huge are too large for fp32: scale them down\.$"):
        assemble(Experiment(images=Images(str(tmp_path / "huge.npz"))))
