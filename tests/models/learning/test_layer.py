"""Networks with cycles as layers of larger models. Oracles: finite differences, autograd through 500 steps."""

import copy

import pytest
import torch
from networks import RECURRENT, hierarchy_case, recurrent_case, responses_of
from torch import nn
from torch.func import functional_call

from actrelax.models.engines import Settle, Steps
from actrelax.models.learning import ActivationRelaxation, BackwardOptions
from actrelax.models.network import Network, Projection
from actrelax.models.results import relative_error

TIGHT = BackwardOptions(settle=Settle(Steps.until(1e-14, eta=0.4)))
METHODS = {"sequential": Steps.until(1e-12, eta=0.4), "equilibrium": Steps.until(1e-12)}


def layer(network, integrator="sequential"):
    return ActivationRelaxation(network, steps=METHODS[integrator], integrator=integrator, options=TIGHT)


@pytest.mark.parametrize("integrator", METHODS)
@pytest.mark.parametrize("make", [recurrent_case, hierarchy_case])
def test_gradcheck(make, integrator):
    """The gradients of input and parameters are finite differences of the settled output.

    Of the larger network, differences in one random direction of each.
    """
    case = make()
    model = layer(case.network, integrator)
    names, weights = zip(*model.named_parameters(), strict=True)
    chosen = [name for name in names if "a->a" in name or "input" in name or "b->a.weight" in name]

    def output(x, *values):
        return functional_call(model, dict(zip(chosen, values, strict=True)), x)

    of = dict(zip(names, weights, strict=True))
    values = [of[name].detach().clone().requires_grad_() for name in chosen]
    x = case.x[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        output, (x, *values), eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=make is hierarchy_case
    )


class Between(nn.Module):
    """A layer below, a network with cycles, and a layer above."""

    def __init__(self, below, middle, above):
        super().__init__()
        self.below, self.middle, self.above = below, middle, above

    def forward(self, x):
        return self.above(torch.tanh(self.middle(torch.tanh(self.below(x)))))


@pytest.mark.parametrize("name", list(RECURRENT))
def test_layers_below_and_above_get_the_gradient_through_many_steps(name):
    case = RECURRENT[name]()
    torch.manual_seed(0)
    below = nn.Conv2d(3, 2, 3, padding=1) if case.x.dim() == 4 else nn.Linear(5, 8)
    x = torch.randn(3, 3, 6, 6) if case.x.dim() == 4 else torch.randn(3, 5)
    above = nn.Linear(4, 2)
    model = Between(below, layer(copy.deepcopy(case.network)), above)
    nn.functional.mse_loss(model(x), torch.ones(3, 2)).backward()
    found = {key: p.grad for key, p in [*below.named_parameters(), *above.named_parameters(prefix="above")]}
    stimuli = torch.tanh(below(x))
    rates = {v: torch.zeros(3, *case.network.populations[v].shape) for v in [*case.network.hidden, "output"]}
    for _ in range(500):
        towards = responses_of(case, {"input": stimuli, **rates})
        rates = {v: r + 0.4 * (towards[v] - r) for v, r in rates.items()}
    output = above(torch.tanh(responses_of(case, {"input": stimuli, **rates})["output"]))
    loss = nn.functional.mse_loss(output, torch.ones(3, 2))
    outer = dict([*below.named_parameters(), *above.named_parameters(prefix="above")])
    expected = dict(zip(outer, torch.autograd.grad(loss, list(outer.values())), strict=True))
    for key, gradient in expected.items():
        assert relative_error(found[key], gradient) < 1e-9
        assert bool(gradient.any())


def recurrent_maps():
    """Return maps of 8 and 16 channels with lateral and upsampled top-down connections, read by a copy of the first."""
    torch.manual_seed(1)
    projections = [
        Projection("input", "conv1", nn.Conv2d(4, 8, 3, padding=1)),
        Projection("conv1", "conv1", nn.Conv2d(8, 8, 3, padding=1, bias=False)),
        Projection("conv1", "conv2", nn.Conv2d(8, 16, 3, stride=2, padding=1)),
        Projection("conv2", "conv2", nn.Conv2d(16, 16, 3, padding=1, bias=False)),
        Projection("conv2", "conv1", nn.Conv2d(16, 8, 3, padding=1, bias=False), nn.Upsample(scale_factor=2)),
        Projection("conv1", "output"),
    ]
    for p in projections[1:5]:
        nn.init.normal_(p.weight, std=0.5 / p.weight[0].numel() ** 0.5)
    return Network((4, 8, 8), {"conv1": "tanh", "conv2": "tanh", "output": "identity"}, projections)


def test_trains_between_two_convolutions():
    """Four classes of 8 x 8 textures: all layers learn, and the samples have settled."""
    torch.set_default_dtype(torch.float32)
    middle = ActivationRelaxation(recurrent_maps())
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), middle, nn.Conv2d(8, 4, 8), nn.Flatten())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stripes = torch.stack([torch.arange(8) % 2, torch.arange(8) // 2 % 2]).float()
    textures = torch.stack([*(s.expand(8, 8) for s in stripes), *(s.expand(8, 8).T for s in stripes)])[:, None]
    generator = torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.003)
    losses = []
    for _ in range(25):
        y = torch.randint(4, (16,), generator=generator)
        x = textures[y] + 0.3 * torch.randn(16, 1, 8, 8, generator=generator)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        middle.module.bound_recurrence(1.0)
        losses.append(float(loss.detach()))
        assert int(middle.report.count) == 0
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_defaults_give_nearly_the_implicit_gradient_below():
    case = hierarchy_case()
    gradients = {}
    for name, model in {"default": ActivationRelaxation(case.network), "tight": layer(case.network)}.items():
        x = case.x.clone().requires_grad_()
        nn.functional.cross_entropy(model(x), case.y).backward()
        gradients[name] = x.grad
    assert 1e-6 < relative_error(gradients["default"], gradients["tight"]) < 0.1


def test_other_uses_of_the_module_go_on():
    """Empty batches, autocast, compiled calls, copies and an accumulated gradient."""
    case = recurrent_case()
    model = ActivationRelaxation(case.network)
    assert model(case.x[:0]).shape == (0, 4)
    model(case.x).sum().backward()
    first = {name: p.grad.clone() for name, p in model.named_parameters()}
    model(case.x).sum().backward()
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, 2 * first[name])
    twin = copy.deepcopy(model)
    assert torch.equal(twin(case.x), model(case.x))
    assert torch.equal(torch.compile(model, backend="eager")(case.x), model(case.x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ActivationRelaxation(recurrent_case().network.float())(case.x.float())
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
