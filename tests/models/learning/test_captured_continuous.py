"""Plasticity during the relaxation of captured networks. Oracles: hand-built networks, and loops written out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from modules import MODULES
from torch import nn

from actrelax import Assumptions, Knobs, Network
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, relax_backward, relax_continuously
from actrelax.models.results import DivergenceError, relative_error

N, ETA, RATE = 12, 0.2, 0.8


def alike(**knobs):
    return Assumptions(Knobs(plasticity="continuous", **knobs), Knobs(plasticity="continuous", **knobs))


PRESETS = {
    "continuous": alike(),
    "current": alike(activity_gain="current", weight_gain="current", presynaptic="current"),
    "kolen-pollack": alike(feedback="kolen-pollack"),
    "sign": alike(feedback="sign", activity_gain="none"),
    "dense": Assumptions(dense=Knobs(plasticity="continuous")),
}


@pytest.mark.parametrize("integrator", ["sequential", "euler"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_captured_chain_learns_as_the_hand_built_network(name, integrator):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Softplus(), nn.Flatten(), nn.Linear(18, 7), nn.Tanh(),
        nn.Linear(7, 3),
    )  # fmt: skip
    x, y, assumptions = torch.randn(3, 2, 6, 6), torch.tensor([0, 1, 2]), PRESETS[name]
    networks = Network.from_module(module, x), Network.from_sequential(copy.deepcopy(module), (2, 6, 6))
    first = copy.deepcopy(module)
    decay = 0.3 if assumptions.needs_decay else None
    options = BackwardOptions(Updates(factors={"conv": 2.0}, clip=0.2, decay=decay))
    results = []
    for network in networks:
        network.add_feedback(assumptions, 3)
        how = {"options": options, "assumptions": assumptions, "integrator": integrator}
        results.append(relax_continuously(network, x, y, N, eta=ETA, rate=RATE, **how))
    assert relative_error(results[0].loss.detach(), results[1].loss.detach()) < 1e-14
    own, built = module.parameters(), (w for p in networks[1].projections.values() for w in (p.weight, p.bias))
    for found, expected, before in zip(own, built, first.parameters(), strict=True):
        change = (expected - before).detach()
        assert float((found - expected).detach().abs().max()) < 1e-12 * float(change.abs().max())
        assert float(change.abs().max()) > 1e-4
        assert found.grad is None
    psi = [p.feedback for p in networks[1].projections.values() if isinstance(p.feedback, nn.Parameter)]
    assert len(psi) == (3 if name == "kolen-pollack" else 0)
    for found, expected in zip(networks[0].feedback.root.parameters(), psi, strict=True):
        assert relative_error(found.detach(), expected.detach()) < 1e-12


class Normed(nn.Module):
    """A norm with parameters, and a relay between two weights: relu reads a population that another weight reads."""

    def __init__(self):
        super().__init__()
        self.below, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.straight, self.rectified = nn.Linear(6, 3, bias=False), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.tanh(self.norm(self.below(x)))
        return self.straight(x) + self.rectified(torch.relu(x))


@pytest.mark.catches("relay kept while weights change")
def test_equals_the_loop_written_out():
    """Relays follow the changing weights; the norm's derivative is that of the forward pass."""
    torch.manual_seed(0)
    module, x, y = Normed(), torch.randn(3, 4), torch.tensor([0, 1, 2])
    drive = module.below(x).detach()
    scale, shift = module.norm.weight.detach().clone(), module.norm.bias.detach().clone()

    def phi(a, scale, shift):
        return torch.tanh(F.layer_norm(a, (6,), scale, shift))

    h, adjoint = torch.func.vjp(phi, drive, scale, shift)
    eps = torch.softmax(module(x), 1).detach() - F.one_hot(y, 3)
    W, S, R = (layer.weight.detach().clone() for layer in (module.below, module.straight, module.rectified))
    changed, state = {"scale": scale.clone(), "shift": shift.clone()}, torch.zeros(3, 6)
    for _ in range(N):
        state = (1 - ETA) * state + ETA * (eps @ S + (h > 0) * (eps @ R))
        delta, of_scale, of_shift = adjoint(state)
        W = W - RATE / N / 3 * delta.T @ x
        S = S - RATE / N / 3 * eps.T @ h
        R = R - RATE / N / 3 * eps.T @ torch.relu(h)
        changed["scale"] -= RATE / N / 3 * of_scale
        changed["shift"] -= RATE / N / 3 * of_shift
    before = module.below.weight.detach().clone()
    network = Network.from_module(module, x)
    assert len(network.relays) == 1
    relax_continuously(network, x, y, N, eta=ETA, rate=RATE, integrator="euler")
    found = {"scale": module.norm.weight, "shift": module.norm.bias}
    for weight, expected in (
        (module.below.weight, W),
        (module.straight.weight, S),
        (module.rectified.weight, R),
        *((found[name], changed[name]) for name in changed),
    ):
        assert relative_error(weight.detach(), expected) < 1e-13
    assert relative_error(before, W) > 1e-3


SLOW = ["tied", "tied-transposed", "multihead", "batch-norm", "pre-activation", "embedding", "class-token", "lstm"]


@pytest.mark.filterwarnings("ignore:after .* steps")
@pytest.mark.parametrize("name", SLOW)
def test_at_a_small_rate_it_adds_up_the_gradients_of_all_steps(name):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli(), output=case.output, paths=case.paths).eval()
    x, y = case.stimuli(3, seed=5), torch.tensor([0, 1, 2])
    for steps in (1, 2, 3):
        relax_backward(network, x, y, steps, eta=0.4, start="zero", integrator="sequential")
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    relax_continuously(network, x, y, 3, eta=0.4, rate=1e-7)
    for name, p in network.named_parameters():
        if p.grad is not None and p.grad.any():
            assert relative_error((before[name] - p.detach()) / 1e-7, p.grad / 3) < 1e-5, name
    assert any(p.grad is not None and p.grad.any() for p in network.parameters())


class Shared(nn.Module):
    """A weight that also scales a population."""

    def __init__(self):
        super().__init__()
        self.below, self.above = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.above(torch.tanh(self.below(x)) * self.above.weight.mean())


class Halves(nn.Module):
    """Two weights in one parameter, halves by chunk or by slices; or, without the parameter, in two layers."""

    def __init__(self, by_chunk):
        super().__init__()
        self.below, self.above, self.by_chunk = nn.Linear(4, 6), nn.Linear(6, 3), by_chunk
        self.weight = nn.Parameter(0.4 * torch.randn(12, 6))

    def forward(self, x):
        x = torch.tanh(self.below(x))
        if self.weight is None:
            return self.above(torch.tanh(self.left(x) + self.right(torch.sigmoid(x))))
        left, right = self.weight.chunk(2) if self.by_chunk else (self.weight[:6], self.weight[6:])
        return self.above(torch.tanh(F.linear(x, left) + F.linear(torch.sigmoid(x), right)))


COMPUTED = "the weights of {!r} are computed from parameters (pruned, normalised, masked ...) in the forward pass, so"
REFUSED = {
    "chunk": (
        lambda: Halves(by_chunk=True),
        lambda: torch.randn(3, 4),
        "the weights of {!r} are cut out of a parameter by chunk, split or unbind, and PyTorch does not let them",
    ),
    "weight-norm": (MODULES["weight-norm"].make, MODULES["weight-norm"].stimuli, COMPUTED),
    "pruned": (MODULES["pruned"].make, MODULES["pruned"].stimuli, COMPUTED),
    "shared": (
        Shared,
        lambda: torch.randn(3, 4),
        "the weights of {!r} also enter a function whose derivative is fixed by",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_weights_that_cannot_change_in_between_are_refused(name):
    """Unless they change once, after the last step."""
    make, stimuli, sentence = REFUSED[name]
    module, x = make(), stimuli()
    network, y = Network.from_module(module, x), torch.arange(len(x)) % 3
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ActrelaxError) as refused:
        relax_continuously(network, x, y, N, eta=ETA, rate=RATE)
    of = next(p for p in network.projections if sentence.format(p) in str(refused.value))
    assert str(refused.value).startswith(sentence.format(of))
    assert all(torch.equal(w, before[key]) for key, w in module.state_dict().items())
    after = Assumptions(projections={p: Knobs() for p in network.projections})
    relax_continuously(network, x, y, N, eta=ETA, rate=RATE, assumptions=after)
    assert any(not torch.equal(w, before[key]) for key, w in module.state_dict().items())


def test_slices_of_a_parameter_learn():
    """As separate parameters do."""
    torch.manual_seed(0)
    module, x, y = Halves(by_chunk=False), torch.randn(3, 4), torch.tensor([0, 1, 2])
    separate = copy.deepcopy(module)
    separate.weight = None
    separate.left, separate.right = (nn.Linear(6, 6, bias=False) for _ in range(2))
    for layer, weight in zip((separate.left, separate.right), module.weight.detach().chunk(2), strict=True):
        layer.weight = nn.Parameter(weight.clone())
    before = module.weight.detach().clone()
    for each in (module, separate):
        relax_continuously(Network.from_module(each, x), x, y, N, eta=ETA, rate=RATE)
    assert (
        relative_error(module.weight.detach(), torch.cat([separate.left.weight, separate.right.weight]).detach())
        < 1e-14
    )
    assert float((module.weight - before).detach().abs().max()) > 1e-4


def test_biases_change_under_autocast():
    """With current gains, which read them."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).float()
    network, x = Network.from_module(module, torch.randn(3, 4).float()), torch.randn(3, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        passed = network.feedforward(x)
    number = passed.path.names.index("2")
    before = passed.current_drive(number, passed.activity)
    with torch.no_grad():
        module[2].bias.add_(1.0)
    passed.follow_weights()
    assert torch.allclose(passed.current_drive(number, passed.activity), before + 1, rtol=0.02)


def test_divergence_changes_nothing():
    torch.manual_seed(0)
    module, x = Normed(), torch.randn(3, 4)
    network, before = Network.from_module(module, x), copy.deepcopy(module.state_dict())
    with pytest.raises(DivergenceError, match="became non-finite: lower rate or eta; no weight has changed"):
        relax_continuously(network, x, torch.tensor([0, 1, 2]), N, eta=ETA, rate=1e308)
    assert all(torch.equal(w, before[key]) for key, w in module.state_dict().items())
