"""Assumptions of captured networks. Oracles: backward passes written out, and hand-built networks."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from backward_passes import gradients
from modules import MODULES
from torch import nn

from actrelax import (
    PRESETS,
    ActivationRelaxation,
    ActrelaxError,
    Assumptions,
    BackwardOptions,
    Knobs,
    Network,
    RelaxationProblem,
    Updates,
    relax_backward,
    solve,
)
from actrelax.models.network import Design, build_module

LOSS = "half-sum-of-squares"


class Inverted(nn.Module):
    """An inverted residual block: a depthwise convolution between two of size 1, with a skip."""

    def __init__(self, inputs, hidden, outputs, stride=1):
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.norm2, self.activation = nn.BatchNorm2d(hidden), nn.ReLU6()
        self.project, self.norm3 = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.squeeze, self.excite = nn.Linear(hidden, 3), nn.Linear(3, hidden)
        self.skips = inputs == outputs and stride == 1

    def forward(self, x):
        y = self.activation(self.norm1(self.expand(x)))
        y = self.activation(self.norm2(self.depthwise(y)))
        gate = self.excite(F.elu(self.squeeze(y.mean((2, 3))))).sigmoid()
        y = self.norm3(self.project(y * gate[..., None, None]))
        return x + y if self.skips else y


def mobile():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 3))
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Hardswish())
    return nn.Sequential(stem, Inverted(4, 8, 4), Inverted(4, 8, 6, stride=2), Inverted(6, 9, 6), head)


def drawn(module, seed=0):
    """Return a module with parameters drawn anew: no scale is 1, no bias 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.double()


SMALL = {"resnet": ("digits-resnet-8", 4), "vit": ("digits-vit", 8)}


def case_of(name):
    """Return a module and its stimuli."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if name == "mobile":
            module = mobile()
        else:
            architecture, width = SMALL[name]
            module = build_module(architecture, design=Design(width), generator=0)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return drawn(module), x


COMBINATIONS = [
    (feedback, gains, statistics)
    for feedback in ("transpose", "learned", "sign")
    for gains in ("feedforward", "none")
    for statistics in ("exact", "constant")
]


def assumptions_of(feedback, gains, statistics):
    knobs = Knobs(feedback=feedback, activity_gain=gains, weight_gain=gains)
    return Assumptions(knobs, knobs, statistics=statistics)


def psi_of(network, assumptions):
    """Return id of a weight -> the weights of its feedback, by the definitions of docs/theory.md."""
    found, parameters = {}, dict(network.module.named_parameters())
    for p in network.projections.values():
        kind = assumptions.of(p.name, p.kind).feedback
        if kind == "transpose" or p.number is None or p.source == "input":
            continue
        weight, own = parameters[p.weight], network.state_dict()[f"{p.psi}.feedback"]
        if kind == "sign":
            assert own == weight.std(correction=0)
            own = weight.detach().sign() * own
        found[id(weight)] = own
    return found


def assert_same(found, expected, bound=1e-9):
    """Relative to the largest gradient of each parameter, with a floor for those that are rounding themselves."""
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 1e-3
    for name, exact in expected.items():
        error = float((found[name] - exact).abs().max())
        assert error <= bound * max(float(exact.abs().max()), 1e-6 * largest), name


def difference(found, expected):
    return max(
        float((found[name] - exact).norm() / exact.norm()) for name, exact in expected.items() if exact.norm() > 1e-6
    )


@pytest.mark.catches("means subtracted under constant statistics")
@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
@pytest.mark.parametrize("name", ["resnet", "mobile", "vit"])
def test_equilibrium_is_the_backward_pass_written_out(name, combination):
    """Delivered population by population, and read off a state; by `relax_backward` and by `loss.backward()`."""
    module, x = case_of(name)
    assumptions = assumptions_of(*combination)
    network = Network.from_module(module, x)
    network.add_feedback(assumptions, 3)
    psi = psi_of(network, assumptions)
    y = torch.randn(network(x).shape, generator=torch.Generator().manual_seed(4))
    plain = dict(module.named_parameters())
    clamp = network(x).detach() - y
    expected = gradients(
        module, x, clamp, psi=psi, is_dropped=combination[1] == "none", is_constant=combination[2] == "constant"
    )
    for keep in (False, True):
        network.zero_grad()
        relax_backward(
            network,
            x,
            y,
            loss=LOSS,
            assumptions=assumptions,
            integrator="equilibrium",
            options=BackwardOptions(reduction="sum", keep=keep),
        )
        assert_same({name: p.grad for name, p in plain.items()}, expected)
        if combination[0] == "learned":
            parameters = dict(network.named_parameters())
            for p in network.projections.values():
                if (own := network.feedback.find(p.psi)) is not None:
                    assert torch.equal(own.grad, parameters[p.weight].grad)
    model = ActivationRelaxation(network, assumptions=assumptions, reduction="sum")
    model.zero_grad()
    (0.5 * (model(x) - y).square().sum()).backward()
    assert_same({name: p.grad for name, p in plain.items()}, expected)
    standard = gradients(module, x, clamp)
    is_idle = combination[:2] == ("transpose", "feedforward") and (name == "vit" or combination[2] == "exact")
    assert (difference(standard, expected) < 1e-9) == is_idle


@pytest.mark.parametrize("start", ["feedforward", "zero"])
@pytest.mark.parametrize("integrator", ["euler", "sequential"])
@pytest.mark.parametrize("name", ["resnet", "mobile", "vit"])
def test_the_closed_form_is_the_end_of_the_steps(name, integrator, start):
    module, x = case_of(name)
    assumptions = assumptions_of("sign", "none", "constant")
    network = Network.from_module(module, x)
    network.add_feedback(assumptions, 3)
    y = torch.randn(network(x).shape, generator=torch.Generator().manual_seed(4))
    problem = RelaxationProblem.from_batch(network, x, y, loss=LOSS, assumptions=assumptions, start=start)
    stepped, at_once = (
        solve(problem, integrator, 20, eta=0.1, evaluation=evaluation).final
        for evaluation in ("stepped", "closed-form")
    )
    for population, expected in stepped.items():
        error = float((at_once[population] - expected).abs().max())
        assert error <= 1e-10 * float(expected.abs().max()), population


class Branching(nn.Module):
    """Takes the other of two layers in every second pass, and in both the same readout."""

    def __init__(self):
        super().__init__()
        self.layers, self.head, self.passes = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)]), nn.Linear(6, 3), 0
        self.stem = nn.Linear(4, 6)

    def forward(self, x):
        self.passes += 1
        return self.head(torch.tanh(self.layers[self.passes % 2](torch.tanh(self.stem(x)))))


def test_psi_stays_with_its_weight_on_other_paths():
    """The other layer, which the first pass has not called, has none."""
    module, x = Branching(), torch.randn(5, 4)
    network = Network.from_module(module, x, paths="many")
    network.add_feedback("random-feedback", 0)
    assert {key for key in network.state_dict() if "feedback" in key} == {"layers.1.feedback", "head.feedback"}
    given = {"loss": LOSS, "assumptions": "random-feedback", "integrator": "equilibrium"}
    with pytest.raises(
        ActrelaxError, match=r"^projection 'layers.0' has no random feedback weights: call network.add_"
    ):
        relax_backward(network, x, torch.randn(5, 3), **given)
    relax_backward(network, x, torch.randn(5, 3), **given)
    only_head = Assumptions(projections={"head": Knobs(feedback="random")})
    relax_backward(network, x, torch.randn(5, 3), **(given | {"assumptions": only_head}))


def chain(convolutional, activation=nn.Tanh):
    """Return a chain in which no pool follows an activation, and stimuli."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        if convolutional:
            layers = [nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), activation(), nn.Conv2d(4, 4, 3, groups=2),
                      activation(), nn.Flatten(), nn.Linear(16, 6), nn.Softplus(), nn.Linear(6, 5, bias=False),
                      nn.GELU(), nn.Linear(5, 3)]  # fmt: skip
            shape = (2, 8, 8)
        else:
            layers = [nn.Linear(8, 7), activation(), nn.Linear(7, 6), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 3)]
            shape = (8,)
        return nn.Sequential(*layers), torch.randn(4, *shape)


STEPPED = [(2, "euler", "feedforward"), (12, "sequential", "feedforward"), (12, "euler", "zero")]
ON_CHAINS = {name: preset for name, preset in PRESETS.items() if name not in ("continuous", "constant-statistics")}
ON_CHAINS["one by one"] = Assumptions(
    dense=Knobs(weight_gain="none", activity_gain="current"),
    conv=Knobs(feedback="learned", presynaptic="current"),
    projections={"hidden1->hidden2": Knobs(feedback="sign", weight_gain="current")},
)


def by_module(assumptions, names):
    """Return assumptions with the names of a captured network in place of those of a hand-built one."""
    named = {names[name]: each for name, each in assumptions.projections.items()}
    return Assumptions(assumptions.dense, assumptions.conv, named)


@pytest.mark.catches("gain of the updates in the relaxation of pieces")
@pytest.mark.filterwarnings("ignore:after .* steps")
@pytest.mark.parametrize(("steps", "integrator", "start"), STEPPED, ids=str)
@pytest.mark.parametrize("preset", ON_CHAINS)
@pytest.mark.parametrize("convolutional", [False, True])
def test_a_captured_chain_is_the_hand_built_network(convolutional, preset, steps, integrator, start):
    """States and updates at every step, under every preset, with psi copied from one to the other."""
    module, x = chain(convolutional)
    network = Network.from_sequential(copy.deepcopy(module), x.shape[1:])
    captured = Network.from_module(module, x)
    y, assumptions = torch.arange(4) % 3, ON_CHAINS[preset]
    weighted = [p for p in network.projections.values() if p.weight is not None]
    ours = sorted(captured.projections.values(), key=lambda p: p.number)
    names = dict(zip((p.name for p in weighted), (p.name for p in ours), strict=True))
    named = by_module(assumptions, names)
    network.add_feedback(assumptions, 2)
    captured.add_feedback(named, 2)
    for p in weighted:  # drawn in the same order from the same generator
        psi = captured.state_dict().get(f"{names[p.name]}.feedback")
        assert (psi is None) == (p.feedback is None)
        assert psi is None or torch.equal(psi, p.feedback)
    options = BackwardOptions(
        Updates(decay=0.03 if assumptions.needs_decay else None, clip=0.05, factors={"conv": 2.0}), keep=True
    )
    given = {"integrator": integrator, "start": start, "options": options, "eta": 0.2}
    one = relax_backward(network, x, y, steps, assumptions=assumptions, **given).trajectory.final
    other = relax_backward(captured, x, y, steps, assumptions=named, **given).trajectory.final
    for (name, expected), found in zip(one.items(), other.values(), strict=True):
        assert float((found.flatten(1) - expected.flatten(1)).abs().max()) < 1e-12 * float(expected.abs().max()), name
    for keep in (True, False):  # without, by the closed form where it applies
        if not keep:
            captured.zero_grad()
            given["options"] = replace(options, keep=False)
            relax_backward(captured, x, y, steps, assumptions=named, **given)
        parameters = dict(captured.named_parameters())
        for p, q in zip(weighted, ours, strict=True):
            for slot, name in (("weight", q.weight), ("bias", q.bias), ("feedback", f"{q.psi}.feedback")):
                expected = getattr(p, slot)
                if isinstance(expected, nn.Parameter):
                    error = (parameters[name].grad - expected.grad).abs().max()
                    assert float(error) < 1e-11 * float(expected.grad.abs().max()), (p.name, slot, keep)


CAPTURED = [name for name, case in MODULES.items() if case.refused is None]
TWICE = Assumptions(Knobs(activity_gain="none"), Knobs(activity_gain="none"), statistics="constant")
OTHERWISE = Assumptions(Knobs(weight_gain="none"), Knobs(weight_gain="none"))


@pytest.mark.parametrize("name", CAPTURED)
def test_pieces_that_are_transposed_twice(name):
    """Freed on the way down, or kept: updates are the same, with parameters that several pieces share."""
    case = MODULES[name]
    module, found = case.make(), []
    network = Network.from_module(module, case.stimuli(), output=case.output, paths=case.paths)
    x = case.stimuli(4, seed=5)
    y = torch.randn(network(x).shape)
    for assumptions in (TWICE, OTHERWISE, PRESETS["no-derivatives"]):
        for keep in (False, True):
            network.zero_grad()
            options = BackwardOptions(reduction="sum", keep=keep)
            given = {"assumptions": assumptions, "integrator": "equilibrium", "options": options}
            with network.fork_state(x):  # some move their buffers
                torch.manual_seed(1)
                relax_backward(network, x, y, loss=LOSS, **given)
            found.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
        once, again = found[-2:]
        assert {name for name, g in once.items() if g.any()} == {name for name, g in again.items() if g.any()}
        largest = max(float(g.abs().max()) for g in again.values())
        for key, exact in again.items():
            error = float((once[key] - exact).abs().max()) if key in once else float(exact.abs().max())
            assert error <= 1e-9 * max(float(exact.abs().max()), 1e-6 * largest), key


class Halves(nn.Module):
    """Two layers that share one parameter, as packed projections of attention do, or with a parameter each."""

    def __init__(self, packed):
        super().__init__()
        self.first = nn.Linear(5, 4)
        weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
        if packed:
            self.weight = nn.Parameter(weight)
        else:
            self.upper, self.lower = nn.Parameter(weight[:3].clone()), nn.Parameter(weight[3:].clone())
        self.packed = packed

    def forward(self, x):
        upper, lower = self.weight.chunk(2) if self.packed else (self.upper, self.lower)
        y = self.first(x).tanh()
        return F.linear(y, upper) + F.linear(y, lower).tanh()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("preset", ["random-feedback", "learned-feedback"])
def test_psi_of_views_of_a_parameter(preset, frozen):
    """Views of a frozen parameter have no history, and must not carry feedback themselves."""
    x, y = torch.randn(7, 5), torch.randn(7, 3)
    found, psi = {}, None
    for packed in (True, False):
        torch.manual_seed(1)
        module = Halves(packed).double()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(not (frozen and "first" not in name))
        network = Network.from_module(module, example=x.double())
        network.add_feedback(preset, torch.Generator().manual_seed(0))
        own = {n: w for n, w in network.state_dict().items() if n.endswith("feedback")}
        if packed:
            (psi,) = own.values()
            assert psi.shape == (6, 4)
        else:
            assert len(own) == 2
            for w, part in zip(own.values(), psi.chunk(2), strict=True):
                with torch.no_grad():
                    w.copy_(part)
        relax_backward(network, x.double(), y.double(), loss=LOSS, assumptions=preset, integrator="equilibrium")
        found[packed] = module.first.weight.grad
        if preset == "learned-feedback":
            learned = [p.grad for n, p in network.named_parameters() if n.endswith("feedback")]
            found[packed, "psi"] = learned[0] if packed else torch.cat(learned)
    torch.testing.assert_close(found[True], found[False], rtol=1e-12, atol=1e-12)
    if preset == "learned-feedback":
        assert found[True, "psi"].any()
        torch.testing.assert_close(found[True, "psi"], found[False, "psi"], rtol=1e-12, atol=1e-12)
