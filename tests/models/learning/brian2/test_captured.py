"""Captured networks that learn inside Brian2. Oracle: the same rule in PyTorch, sample by sample."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax import PRESETS, ActrelaxError, Network
from actrelax.brian2 import Learner, Phases
from actrelax.models.learning import BackwardOptions, Updates, relax_backward

DECAY = 0.1


class Branches(nn.Module):
    """Dense layers with skips: a copy, two drives of one population, names with dots, and a SiLU."""

    def __init__(self):
        super().__init__()
        self.block = nn.ModuleDict({"stem": nn.Linear(4, 6), "left": nn.Linear(6, 6)})
        self.right, self.graph, self.head = nn.Linear(6, 5), nn.Linear(6, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x):
        x = torch.tanh(self.block["stem"](x.flatten(1)))
        y = F.silu(self.block["left"](x) + x)
        return self.head(torch.sigmoid(self.right(y) + self.graph(x)))


def fixed_convolution():
    """A convolution whose weights stay, then dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 2).requires_grad_(False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)
    )


def made(make, assumptions="ar", shape=(4,)):
    torch.manual_seed(0)
    module = make()
    network = Network.from_module(module, torch.randn(2, *shape))
    network.add_feedback(assumptions, 3)
    return network, torch.randn(6, *shape), torch.randint(3, (6,))


def learned(network, x, y, assumptions, decay):
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    outputs = []
    for k in range(len(x)):
        optimiser.zero_grad()
        options = BackwardOptions(Updates(decay=decay))
        how = {"eta": 0.2, "assumptions": assumptions, "integrator": "euler", "options": options}
        outputs.append(relax_backward(network, x[k : k + 1], y[k : k + 1], 20, **how).output)
        optimiser.step()
    return torch.cat(outputs)


def check_equal(make, assumptions="ar", shape=(4,)):
    network, x, y = made(make, assumptions, shape)
    first, other = copy.deepcopy(network.state_dict()), copy.deepcopy(network)
    decay = DECAY if PRESETS[assumptions].needs_decay else None
    learner = Learner(network, rate=0.1, assumptions=assumptions, phases=Phases(steps=20, eta=0.2), decay=decay)
    output = learner.learn(x, y)
    expected = learned(other, x, y, assumptions, decay)
    assert float((output - expected).abs().max()) < 1e-12
    found, by_torch = network.state_dict(), other.state_dict()
    assert list(found) == list(by_torch)
    assert max(float((found[name] - by_torch[name]).abs().max()) for name in found) < 1e-12
    changed = {name for name in found if not torch.equal(found[name], first[name])}
    assert changed == {name for name, _ in network.named_parameters() if _.requires_grad}
    assert max(float((found[name] - first[name]).abs().max()) for name in changed) > 0.02


@pytest.mark.parametrize("assumptions", ["unfrozen", "kolen-pollack", "sign-feedback"])
def test_weights_are_those_of_pytorch(assumptions):
    check_equal(Branches, assumptions)


def test_behind_a_fixed_convolution():
    check_equal(fixed_convolution, shape=(1, 3, 3))


class Between(nn.Module):
    """Two dense layers with something between them."""

    def __init__(self, function, *layers):
        super().__init__()
        self.below, self.above, self.function = nn.Linear(4, 6), nn.Linear(6, 3), function
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self.above(self.function(self.below(x)))


class Relay(nn.Module):
    def __init__(self):
        super().__init__()
        self.below, self.norm, self.above = nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 3)

    def forward(self, x):
        x = torch.tanh(self.below(x))
        return self.above(self.norm(x)) + x


class Scaled(Between):
    def forward(self, x):
        return super().forward(2 * x - 1)


def shared_by_positions():
    return nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3))


def convolution():
    return nn.Sequential(nn.Conv2d(1, 2, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))


def weight_normed():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 3))


NOT_LOCAL = "population {!r} is not one pointwise function, known by name, of the sum of its inputs, so its learning is"
NONE_DENSE = "Brian2 learns only the weights of dense layers, and {!r} into population {!r} is not one: use relax_"
REFUSED = {
    "batch norm": (lambda: Between(nn.BatchNorm1d(6)), NOT_LOCAL.format("below")),
    "evaluation": (lambda: Between(nn.BatchNorm1d(6)).eval(), "population 'below' has a BatchNorm, with which Brian2"),
    "layer norm": (lambda: Between(nn.LayerNorm(6)), NOT_LOCAL.format("below")),
    "softmax": (lambda: Between(nn.Softmax(1)), NOT_LOCAL.format("below")),
    "unknown": (lambda: Between(torch.sin), NOT_LOCAL.format("below")),
    "scale": (lambda: Between(lambda a: torch.add(torch.zeros(6), torch.tanh(a), alpha=2)), NOT_LOCAL.format("below")),
    "order": (lambda: Between(lambda a: a.view(-1, 2, 3).mT.flatten(1)), NOT_LOCAL.format("below")),
    "constant": (lambda: Between(lambda a: a + 0.5), NOT_LOCAL.format("below")),
    "small constant": (lambda: Between(lambda a: a + 1e-6), NOT_LOCAL.format("below")),
    "dropout": (lambda: Between(nn.Dropout(0.5)), NOT_LOCAL.format("below")),
    "relay": (Relay, NOT_LOCAL.format("below'")),
    "positions": (shared_by_positions, NONE_DENSE.format("1", "1")),
    "computed weight": (weight_normed, NONE_DENSE.format("0", "0")),
    "stimuli": (lambda: Scaled(torch.tanh), "the weights of 'below' don't read population 'input' unchanged: tra"),
    "convolution": (
        convolution,
        "Brian2 learns in dense projections, 'input->0' is Conv2d(1, 2, 2, padding=1): choose",
    ),
    "formula": (lambda: Between(nn.GELU()), "activation 'gelu' of population 'below' has no formula for Brian2: let t"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_local_is_refused(name):
    make, sentence = REFUSED[name]
    network, *_ = made(make, shape=(1, 2, 2) if make is convolution else (4,))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ActrelaxError) as refused:
        Learner(network, rate=0.1)
    assert str(refused.value).startswith(sentence)
    assert all(torch.equal(w, before[name]) for name, w in network.state_dict().items())


def test_making_a_learner_draws_nothing_from_the_global_generator():
    network, _, _ = made(Branches)
    before = torch.get_rng_state()
    Learner(network, rate=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def test_modules_that_choose_their_path_are_refused():
    network = Network.from_module(Branches(), torch.randn(2, 4), paths="many")
    with pytest.raises(ActrelaxError, match='with paths="many" the computation depends on the batch'):
        Learner(network, rate=0.1)


def replaced(module):
    module.head.weight = nn.Parameter(torch.zeros(3, 5))


def hooked(module):
    module.head.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda module: module.eval(), "the module's training mode or Parameters have changed since the Learner was"),
        (replaced, "the module's training mode or Parameters have changed since the Learner was made: make a new Lear"),
        (hooked, "layer 'head' has a hook, which a relaxation does not call: remove it"),
    ],
)
def test_a_module_that_has_changed_is_refused(change, sentence):
    network, x, y = made(Branches)
    learner = Learner(network, rate=0.1)
    change(network.module)
    with pytest.raises(ActrelaxError) as refused:
        learner.learn(x, y)
    assert str(refused.value).startswith(sentence)


def test_missing_feedback_weights_have_the_captured_name():
    network, *_ = made(Branches)
    with pytest.raises(ActrelaxError, match=r"^projection 'head' has no learned feedback weights"):
        Learner(network, rate=0.1, assumptions="learned-feedback")
