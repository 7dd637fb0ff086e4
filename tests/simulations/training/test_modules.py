"""Any PyTorch module learns: modes, buffers, dropout's random numbers, mixed precision, processes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from actrelax.analysis.runs import RunFolder
from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions
from actrelax.models.network import Network, build
from actrelax.models.problem import loss_named
from actrelax.models.results import relative_error
from actrelax.simulations.training import run as run_module
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.callbacks import Alignment
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation
from actrelax.simulations.training.loop import Callback, learn, measure, train
from actrelax.simulations.training.modules import evaluating, kinds
from actrelax.simulations.training.recording import Recording
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.saved import load_run

FILE = """
from torch import nn

from actrelax.models.network import Design, build_module


class WithDropout(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = build_module("digits-resnet-8", classes=classes, design=Design(width=4))
        self.drop = nn.Dropout(0.3)
        self.body.stages.append(self.drop)

    def forward(self, x):
        return self.body(x)


def resnet(input_shape, classes):
    return WithDropout(classes)


def sequential(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, classes))


def chain(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, classes))


def number(input_shape, classes):
    return 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def experiment(npz, file):
    """ResNet-8 with BatchNorm and dropout on a hundred digits, in five batches of 20 per epoch."""
    return Experiment(
        rule="backprop",
        epochs=2,
        batch_size=20,
        images=Images(str(npz)),
        model=Model(f"{file}:resnet"),
        optimisation=Optimisation(momentum=0.9),
    )


class StopsAfter(Callback):
    def __init__(self, batches):
        self.batches = batches

    def on_batch(self, training):
        if training.done == self.batches:
            raise KeyboardInterrupt


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_dropout_draws_from_a_stream_of_its_own(experiment):
    """Its masks follow from seed and batch, whatever else has drawn from torch's generator, and differ by batch."""
    masks = []
    for draws, seed in ((0, 0), (5, 0), (0, 1)):
        training = assemble(replace(experiment, seed=seed)).training
        seen = []
        training.network.module.drop.register_forward_pre_hook(lambda m, args: (torch.ones_like(args[0]),))
        training.network.module.drop.register_forward_hook(lambda m, args, y, seen=seen: seen.append(y == 0))
        x, y = training.batches.example()
        for _ in range(2):
            torch.rand(draws)
            learn(training, x, y)
        masks.append(seen)
    (first, second), again, other = masks
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, other[0])
    assert 0.2 < first.double().mean() < 0.4


def test_updates_are_made_in_training_mode_and_accuracies_in_evaluation_mode(experiment):
    training = assemble(experiment).training
    modes = []
    training.network.module.body.norm.register_forward_hook(lambda m, args, y: modes.append(m.training))
    frozen = training.network.module.body.stages[0][0].norm1.eval()
    measure(training)
    assert modes == [False]
    before = state_of(training.network)
    learn(training, *training.batches.example())
    assert modes == [False, True]
    assert not frozen.training
    assert torch.equal(frozen.running_mean, before["body.stages.0.0.norm1.running_mean"])
    assert not torch.equal(training.network.module.body.norm.running_mean, before["body.norm.running_mean"])
    assert training.network.module.body.norm.num_batches_tracked == 1


def test_one_step_is_pytorchs_own(experiment):
    training = assemble(replace(experiment, precision="fp64")).training
    twin = copy.deepcopy(training.network)
    x, y = training.batches.example()
    with twin.fork_state(x):
        learn(training, x, y)
        after = state_of(training.network)
    torch.manual_seed(0)
    twin.module.drop.p = training.network.module.drop.p = 0.0
    training.network.load_state_dict(twin.state_dict())
    training.optimiser.state.clear()
    learn(training, x, y)
    nn.functional.cross_entropy(twin(x), y).backward()
    for p, q in zip(training.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-15)
    assert torch.equal(training.network.module.body.norm.running_var, twin.module.body.norm.running_var)
    assert not torch.equal(after["body.head.weight"], training.network.module.body.head.weight)  # dropout counted


@pytest.mark.parametrize("assumptions", ["ar", "kolen-pollack", "random-feedback,conv.feedback=learned"])
def test_a_killed_run_is_resumed_loaded_and_evaluated(experiment, tmp_path, monkeypatch, file, assumptions):
    """Through the run's folder: its checkpoint has the buffers and psi, and the same masks come next."""
    relaxation = Relaxation(assumptions, integrator="equilibrium", lift=("body.head.weight-gain=none",))
    optimisation = replace(experiment.optimisation, decay=0.1 if assumptions == "kolen-pollack" else None)
    experiment = replace(experiment, rule="ar", relaxation=relaxation, optimisation=optimisation)
    whole = Recording(out=tmp_path / "whole", quiet=True)
    broken = Recording(out=tmp_path / "broken", quiet=True, checkpoint_every=1)
    run_module.run(experiment, Execution(), whole)
    with monkeypatch.context() as patched:
        watchers = run_module._watchers
        patched.setattr(run_module, "_watchers", lambda *args: [*watchers(*args), StopsAfter(7)])
        with pytest.raises(KeyboardInterrupt):
            run_module.run(experiment, Execution(), broken)
    torch.manual_seed(5)
    run_module.run(experiment, Execution(), Recording(resume=broken.out, quiet=True, trust=True))
    states = [RunFolder(folder).checkpoint()["network"] for folder in (whole.out, broken.out)]
    assert any("running_var" in name for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    learned = {name for name in states[0] if name.endswith(".feedback")}
    assert (len(learned) > 5) == (assumptions != "ar")
    loaded = load_run(broken.out, network=f"{file}:resnet")
    assert not loaded.network.training
    assert all(torch.equal(value, states[0][name]) for name, value in loaded.network.state_dict().items())
    assert (loaded.input_shape, loaded.classes) == ((1, 8, 8), 10)


@pytest.mark.parametrize("depth", [8, 20])
def test_ar_trains_as_backprop_does(experiment, depth):
    """At equilibrium, with running statistics; `fork_state` hides the two passes with which AR begins."""
    model = Model(f"digits-resnet-{depth}", width=4)
    base = replace(experiment, model=model, precision="fp64", relaxation=Relaxation(integrator="equilibrium"))
    states = []
    for rule in ("backprop", "ar"):
        training = assemble(replace(base, rule=rule)).training
        before = state_of(training.network)
        for x, y in training.batches.epoch(1):
            learn(training, x, y)
        states.append(state_of(training.network))
    assert relative_error(states[0]["norm.running_var"], before["norm.running_var"]) > 1e-2
    for name, value in states[0].items():
        assert name.endswith("num_batches_tracked") or relative_error(states[1][name], value) < 1e-10
        assert not name.endswith("num_batches_tracked") or value == states[1][name] == len(training.batches)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"assumptions": "unfrozen"}, "^population '.*' is not one pointwise function of a sum of drives from populat"),
        (
            {"noise": 0.1, "steps": 10, "integrator": "euler"},
            "^--evaluation closed-form can't be used here: the closed",
        ),
    ],
)
def test_what_captured_networks_refuse(experiment, options, sentence):
    evaluated = replace(experiment, rule="ar", relaxation=Relaxation(**options), evaluation="closed-form")
    with pytest.raises(ActrelaxError, match=sentence):
        assemble(evaluated)


def test_a_finite_number_of_steps(experiment):
    """From zero, the top population's activity approaches its gradient by 1 - 0.9 ** steps, and so does the update."""
    base = replace(experiment, precision="fp64", relaxation=Relaxation(start="zero", steps=3))
    ends = []
    for each in (base, replace(base, relaxation=Relaxation(integrator="equilibrium"))):
        training = assemble(replace(each, rule="ar")).training
        training.network.module.drop.p = 0.0
        learn(training, *training.batches.example())
        ends.append({name: p.grad for name, p in training.network.named_parameters()})
    stepped, settled = ends
    assert torch.allclose(stepped["body.head.weight"], settled["body.head.weight"])  # reads the clamp itself
    name = "body.stages.2.0.norm2.weight"  # of the highest hidden population
    assert relative_error(stepped[name], (1 - 0.9**3) * settled[name]) < 1e-12
    assert stepped["body.stem.weight"].abs().max() < 0.01 * settled["body.stem.weight"].abs().max()


def test_angles_are_measured_with_the_same_units_dropped(experiment):
    """Which moves neither the running statistics nor what the next batch draws."""
    experiment = replace(experiment, rule="ar", epochs=1, relaxation=Relaxation(integrator="equilibrium"))
    watched, plain = (assemble(replace(experiment, precision="fp64")).training for _ in range(2))
    train(watched, [Alignment(1, loss_named("cross-entropy"), BackwardOptions(), PRESETS["ar"])])
    train(plain)
    assert len(watched.tables["alignment"]) == 5
    assert {"body.stem", "body.head", "mean"} < watched.tables["alignment"][0].keys()
    assert max(row["mean"] for row in watched.tables["alignment"]) < 1e-5
    states = [state_of(training.network) for training in (watched, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_bfloat16_is_autocasts(experiment):
    exact, rounded = (assemble(replace(experiment, precision=p)).training for p in ("fp32", "bf16"))
    seen = []
    rounded.network.module.body.stem.register_forward_hook(lambda m, args, y: seen.append(y.dtype))
    for training in (exact, rounded):
        learn(training, *training.batches.example())
    assert seen == [torch.bfloat16]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in rounded.network.parameters())
    found = [torch.cat([p.grad.flatten() for p in each.network.parameters()]) for each in (exact, rounded)]
    difference = (found[1] - found[0]).norm() / found[0].norm()
    assert 1e-4 < difference < 0.2


def test_what_a_function_may_return(experiment, file):
    made = assemble(replace(experiment, model=Model(f"{file}:chain"))).training.network
    assert type(made).__name__ == "Network"
    module = assemble(replace(experiment, model=Model(f"{file}:sequential")))
    assert isinstance(module.module, nn.Sequential)
    with pytest.raises(ActrelaxError, match=r"must return an nn\.Module or a Network, got int\.$"):
        assemble(replace(experiment, model=Model(f"{file}:number")))
    with pytest.raises(ActrelaxError, match=r"^--norm is for networks by name: set it in your function\.$"):
        assemble(replace(experiment, model=Model(f"{file}:resnet", norm="group")))
    with pytest.raises(ActrelaxError, match=r"^digits-cnn has no width to choose: leave it out\.$"):
        assemble(replace(experiment, model=Model("digits-cnn", width=3)))
    with pytest.raises(ActrelaxError, match=r"^--compile trace does not support captured networks: "):
        assemble(experiment, Execution(compile="trace"))


def test_factors_are_for_convolutions(experiment):
    plain, doubled = (
        assemble(replace(experiment, optimisation=Optimisation(conv_factor=factor))).training for factor in (1.0, 2.0)
    )
    for training in (plain, doubled):
        learn(training, *training.batches.example())
    for name, p in plain.network.named_parameters():
        factor = 2 if "conv" in name or "stem" in name else 1
        torch.testing.assert_close(doubled.network.get_parameter(name).grad, factor * p.grad)


def test_kinds_of_both():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    found = kinds(Network.from_module(module, torch.zeros(2, 1, 4, 4)))
    assert list(found) == list(module.parameters())
    assert list(found.values()) == ["conv", "conv", "phi", "phi", "dense", "dense"]
    assert list(kinds(build("digits-cnn")).values()) == ["conv"] * 4 + ["dense"] * 4


def test_what_is_measured_moves_nothing():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.BatchNorm1d(3).eval(), nn.Linear(3, 2))
    x = torch.randn(4, 3)
    network = Network.from_module(module, x)
    before, random = state_of(module), torch.get_rng_state()
    with network.fork_state(x):
        network(x)
        assert module[0].num_batches_tracked == 1
    with evaluating(network):
        network(x)
        assert not any(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in module.modules()] == [True, True, True, False, True]
    assert network.training
