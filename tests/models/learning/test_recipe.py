"""The front door on captured modules: ``loss.backward()`` relaxes, and everything else is PyTorch's."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from modules import MODULES
from torch import nn

from actrelax import ActivationRelaxation, ActrelaxError, BackwardOptions, Network, Steps, relax_backward

CAPTURED = [name for name, case in MODULES.items() if case.refused is None]


def door(name, **options):
    """Return the case, the door, its module, and a module of the same weights for autograd."""
    case = MODULES[name]
    module, plain = case.make(), case.make()
    network = Network.from_module(module, case.stimuli(), output=case.output, paths=case.paths)
    return case, ActivationRelaxation(network, **options), module, plain


def gradients(module):
    return {key: p.grad for key, p in module.named_parameters() if p.grad is not None}


def assert_same(found, expected, bound=1e-9):
    expected = {key: g for key, g in expected.items() if bool(g.any())}
    largest = max(float(g.abs().max()) for g in expected.values())
    assert expected.keys() <= found.keys()
    for key, exact in expected.items():
        error = float((found[key] - exact).abs().max())
        assert error <= bound * max(float(exact.abs().max()), 1e-6 * largest), key


@pytest.mark.parametrize("name", CAPTURED)
def test_a_loss_runs_backward(name):
    case, model, module, plain = door(name)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    for batch in (4, 5):  # accumulated
        x = case.stimuli(batch, seed=batch)
        results = []
        for each in (model, plain):
            torch.manual_seed(0)
            output = each(x) if each is model else case.output_of(plain(x))
            output = output.flatten(1)
            y = torch.arange(len(output)) % output.shape[1]
            loss(output, y).backward()
            results.append(output.detach())
        assert torch.equal(*results)
    assert_same(gradients(module), gradients(plain))
    for key, buffer in module.named_buffers():
        assert torch.equal(buffer, plain.get_buffer(key)), key


def test_a_module_and_an_example():
    case = MODULES["dictionary"]
    module = case.make()
    model = ActivationRelaxation(module, example=case.stimuli(), output=lambda result: result["logits"])
    assert list(model.state_dict()) == [f"module.{key}" for key in module.state_dict()]
    assert model.network.hidden == ["hidden"]
    x = case.stimuli(3)
    with torch.no_grad():
        assert torch.equal(model(x), module(x)["logits"])
    assert "assumptions='ar'" in repr(model)


def test_two_forward_passes_before_one_backward():
    case, model, module, plain = door("residual")
    x, other = case.stimuli(4, seed=1), case.stimuli(3, seed=2)
    for each in (model, plain):
        (each(x).square().sum() + each(other).exp().sum()).backward()
    assert_same(gradients(module), gradients(plain))


def test_frozen_layers():
    case, model, module, plain = door("residual")
    x = case.stimuli(4, seed=1)
    for each in (module, plain):
        for part in (each.stem, each.norm1):
            part.requires_grad_(False)
    for each in (model, plain):
        each(x).square().sum().backward()
    assert_same(gradients(module), gradients(plain))
    assert module.stem.weight.grad is None
    for each in (module, plain):
        each.zero_grad()
        each.requires_grad_(False)
        each.head.bias.requires_grad_(True)
    for each in (model, plain):
        each(x).square().sum().backward()
    assert_same(gradients(module), gradients(plain))


@pytest.mark.parametrize("name", ["residual", "class-token", "items", "conv1d"])
def test_the_gradient_of_the_stimulus(name):
    case, model, module, plain = door(name)
    found = []
    for each in (model, plain):
        x = case.stimuli(4, seed=1).requires_grad_()
        (2 * each(x + 0)).square().sum().backward()
        found.append(x.grad)
    assert torch.allclose(*found, rtol=1e-9, atol=1e-12)
    assert_same(gradients(module), gradients(plain))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_finite_steps_are_those_of_relax_backward(reduction, scale):
    steps = Steps(12, eta=0.2)
    case, model, module, _ = door("residual", steps=steps, reduction=reduction, start="zero", tau=2.0)
    model.loss_scale = scale
    x, y = case.stimuli(4, seed=1), torch.arange(4) % 3
    (scale * F.cross_entropy(model(x), y, reduction=reduction)).backward()
    found = {key: g / scale for key, g in gradients(module).items()}
    other = MODULES["residual"].make()
    network = Network.from_module(other, case.stimuli())
    options = BackwardOptions(reduction=reduction)
    relax_backward(network, x, y, steps, options=options, start="zero", tau=2.0)
    assert_same(found, gradients(other), 1e-11)
    exact = MODULES["residual"].make()
    F.cross_entropy(exact(x), y, reduction=reduction).backward()
    with pytest.raises(AssertionError):
        assert_same(found, gradients(exact), 1e-2)


def test_functional_call_replaces_the_weights():
    case, model, module, plain = door("batch-norm")
    x = case.stimuli(4, seed=1)
    scale = torch.tensor(1.5, requires_grad=True)
    new = {f"module.{key}": p.detach() * scale for key, p in module.named_parameters()}
    torch.func.functional_call(model, new, (x,)).square().sum().backward()
    found, scale.grad = scale.grad, None
    new = {key: p.detach() * scale for key, p in plain.named_parameters()}
    torch.func.functional_call(plain, new, (x,)).square().sum().backward()
    assert torch.allclose(found, scale.grad, rtol=1e-10)
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())


def test_a_copy_has_weights_of_its_own():
    case, model, module, _ = door("residual")
    x = case.stimuli(4, seed=1)
    model(x).sum().backward()
    other = copy.deepcopy(model)
    other.zero_grad()
    other(x).sum().backward()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    assert_same(gradients(other.module.module), gradients(module))
    assert torch.equal(other(x), other.module.module(x))
    assert float(other(x).detach().abs().max()) > 0.01


@pytest.mark.parametrize("name", ["residual", "transformer", "scaled-dot-product"])
def test_autocast(name):
    """In bfloat16 the gradients are those of autograd under autocast, and near float32's."""
    case = MODULES[name]
    exact = copy.deepcopy(case.make()).float().eval()
    x = case.stimuli(8, seed=1).float()
    exact(x).float().square().mean().backward()
    results = []
    for rule in ("relax", "autograd"):
        module = case.make().float().eval()
        each = ActivationRelaxation(module, example=case.stimuli().float()) if rule == "relax" else module
        with torch.autocast("cpu", torch.bfloat16):
            loss = each(x).float().square().mean()
        loss.backward()
        results.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
        assert results[-1].dtype == torch.float32
    reference = torch.cat([p.grad.flatten() for p in exact.parameters()])
    error = [float((result - reference).norm() / reference.norm()) for result in results]
    assert 1e-4 < error[0] < 0.03
    assert float((results[0] - results[1]).norm() / reference.norm()) < 5e-3


def test_compiled():
    """The relaxation is left out of the trace, which would lose gradients."""
    case, model, module, plain = door("residual")
    x = case.stimuli(4, seed=1)
    compiled = torch.compile(model, backend="eager")
    compiled(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert_same(gradients(module), gradients(plain))


def test_an_empty_batch():
    case, model, module, _ = door("layer-norm")
    model(case.stimuli(4)[:0]).sum().backward()
    assert all(not bool(g.any()) for g in gradients(module).values())
    options = BackwardOptions(generator=0)
    model = ActivationRelaxation(module, example=case.stimuli(4), assumptions="learned-feedback", options=options)
    given = {name: torch.zeros_like(p).requires_grad_() for name, p in model.named_parameters()}
    computed = {name: 2 * p for name, p in given.items()}
    torch.func.functional_call(model, computed, (case.stimuli(4)[:0],)).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in given.values())  # psi, too


def test_clamps_that_are_not_finite():
    """As a GradScaler expects, they arrive in the gradients."""
    case, model, module, _ = door("layer-norm")
    (model(case.stimuli(4)).sum() * torch.inf).backward()
    assert any(not bool(g.isfinite().all()) for g in gradients(module).values())


REFUSED = {
    "twice": "the relaxation has run backward already: call the model again before each backward",
    "second derivative": "a relaxation has no second derivative",
    "changed": r"a weight has changed in place since the forward pass: run backward before optimiser.step\(\)",
    "both": "example and input_shape exclude each other: pass example for any module",
    "output alone": "output needs an example: pass a batch as the module takes it",
    "captured": "the network is captured already: leave example and output out",
    "preset": "the assumptions need feedback weights, which are drawn at random: pass options=BackwardOptions",
    "current": "population '.*' is not one pointwise function of a sum of drives from populations that relax",
    "tau": "tau names an unknown population 'nowhere'; known: 4, 1, 0",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case):
    given, model, module, _ = door("layer-norm")
    x, build = given.stimuli(4), ActivationRelaxation
    attempts = {
        "twice": lambda: [loss.backward(retain_graph=True) for loss in [model(x).sum()] * 2],
        "second derivative": lambda: torch.autograd.grad(model(x).sum(), module[0].weight, create_graph=True),
        "both": lambda: build(module, input_shape=(6,), example=x),
        "output alone": lambda: build(module, input_shape=(6,), output=lambda result: result),
        "captured": lambda: build(model.network, example=x),
        "preset": lambda: build(module, example=x, assumptions="random-feedback"),
        "current": lambda: build(module, example=x, assumptions="unfrozen-weights"),
        "tau": lambda: build(module, example=x, tau={"nowhere": 1.0}),
        "changed": lambda: changed(model, module, x),
    }
    with pytest.raises(ActrelaxError, match=REFUSED[case]):
        attempts[case]()


def changed(model, module, x):
    loss = model(x).sum()
    with torch.no_grad():
        module[-1].weight.mul_(2)
    loss.backward()


def test_training_lowers_the_loss():
    case, model, module, plain = door("transformer")
    x, y = case.stimuli(8, seed=1), torch.arange(8) % 3
    losses = {}
    for each in (model, plain):
        each.eval()
        optimiser = torch.optim.Adam(each.parameters(), lr=0.01)
        for _ in range(10):
            optimiser.zero_grad()
            loss = F.cross_entropy(each(x), y)
            loss.backward()
            optimiser.step()
        losses[each] = float(loss.detach())
    assert losses[model] == pytest.approx(losses[plain], rel=1e-9)
    assert losses[model] < 1.0
    for p, q in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-10)


def test_it_can_be_pickled():
    case, model, _, _ = door("residual")
    x = case.stimuli(4, seed=1)
    model(x).sum().backward()
    other = pickle.loads(pickle.dumps(model))
    other.zero_grad()
    other(x).sum().backward()
    assert_same(gradients(other.module.module), gradients(model.module.module), 0)


class Borrowed(nn.Module):
    """Uses a parameter that another module holds."""

    def __init__(self, parameter):
        super().__init__()
        self.layer, self.parameter = nn.Linear(4, 4), [parameter]

    def forward(self, x):
        (parameter,) = self.parameter
        return torch.tanh(self.layer(x)) @ parameter * parameter[0]


def test_a_parameter_that_the_module_does_not_hold():
    parameter = nn.Parameter(torch.randn(4, 4))
    module, x = Borrowed(parameter), torch.randn(3, 4)
    model, found = ActivationRelaxation(module, example=torch.randn(2, 4)), []
    for each in (model, module):
        each(x).square().sum().backward()
        found.append((parameter.grad, module.layer.weight.grad))
        parameter.grad = None
        module.zero_grad()
    for relaxed, exact in zip(*found, strict=True):
        assert torch.allclose(relaxed, exact, rtol=1e-10)


def test_saved_tensors_may_be_kept_elsewhere():
    """Hooks around the whole model are no checkpointing."""
    case, model, module, plain = door("residual")
    x = case.stimuli(4, seed=1)
    with torch.autograd.graph.save_on_cpu():
        loss = model(x).square().sum()
    loss.backward()
    plain(x).square().sum().backward()
    assert_same(gradients(module), gradients(plain))


def test_a_copy_of_the_stimulus_in_the_output():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return x + self.inner(x) * x

    model, x = ActivationRelaxation(Gated(), example=torch.randn(2, 4)), torch.randn(3, 4)
    model(x).square().sum().backward()
    found = {key: g.clone() for key, g in gradients(module).items()}
    module.zero_grad()
    (x + module(x) * x).square().sum().backward()
    assert_same(found, gradients(module), 1e-12)
