"""A module and its network: changes to one apply to both, or are refused. Oracle: the module."""

import copy
import pickle
import types

import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.utils.module_tracker import ModuleTracker

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import ActivationRelaxation, backprop_backward, relax_backward, relax_continuously
from actrelax.models.network import Network, Projection
from actrelax.models.problem import RelaxationProblem


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.LeakyReLU(0.1), nn.Linear(5, 3))


def batch():
    return torch.rand(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])


def shared_by_memory(module):
    module.share_memory()


def half_frozen(module):
    module[2].requires_grad_(False)
    module[0].bias.requires_grad_(False)


def other_values(module):
    module.load_state_dict({name: 2 * w for name, w in layers().state_dict().items()})


def other_data(module):
    module[0].weight.data = torch.ones(5, 6)


@pytest.mark.parametrize("change", [shared_by_memory, half_frozen, other_values, other_data, nn.Module.eval])
def test_what_changes_both_holds_in_both(change):
    module = layers()
    network = Network.from_sequential(module, (6,))
    change(module)
    x, y = batch()
    assert torch.equal(network(x), module(x))
    nn.functional.cross_entropy(module(x), y).backward()
    expected = [p.grad for p in module.parameters()]
    for rule, options in ((backprop_backward, {}), (relax_backward, {"integrator": "equilibrium"})):
        module.zero_grad()
        rule(network, x, y, **options)
        for p, gradient in zip(module.parameters(), expected, strict=True):
            if gradient is None:
                assert p.grad is None
            else:
                torch.testing.assert_close(p.grad, gradient)


def test_another_precision_holds_in_both():
    module = layers()
    network = Network.from_sequential(module, (6,))
    module.float()
    x, _ = batch()
    assert torch.equal(network(x.float()), module(x.float()))


def assigned(module):
    module.load_state_dict(layers().state_dict(), assign=True)


def assigned_in_a_layer(module):
    module[4].bias = nn.Parameter(torch.zeros(3))


def replaced(module):
    module[2] = nn.Linear(5, 5)


def appended(module):
    module.append(nn.Tanh())


def another_slope(module):
    module[3].negative_slope = 0.5


def hooked(module):
    module[1].register_forward_hook(lambda _m, _x, out: 2 * out)


def hooked_backward(module):
    module.register_full_backward_hook(lambda *_: None)


def pruned(module):
    prune.l1_unstructured(module[2], "weight", 0.5)


def parametrised(module):
    parametrize.register_parametrization(module[2], "weight", nn.Softplus())


def weight_normed(module):
    parametrizations.weight_norm(module[2])


def spectral_normed(module):
    parametrizations.spectral_norm(module[2])


def formerly_weight_normed(module):
    weight_norm(module[2])


def formerly_spectral_normed(module):
    spectral_norm(module[2])


def patched(module):
    module[2].forward = types.MethodType(lambda _self, x: -x, module[2])


def resized(module):
    module[4].weight.data, module[4].bias.data = torch.ones(2, 5), torch.ones(2)


BEFORE = [
    hooked,
    hooked_backward,
    pruned,
    parametrised,
    weight_normed,
    spectral_normed,
    formerly_weight_normed,
    formerly_spectral_normed,
    patched,
]
AFTER = [*BEFORE, assigned, assigned_in_a_layer, replaced, appended, another_slope, resized]
old = pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning")


@old
@pytest.mark.parametrize("change", BEFORE)
def test_no_network_is_made_of_what_it_would_ignore(change):
    module = layers()
    change(module)
    with pytest.raises(ActrelaxError, match=r"^layer '.*' (has a hook, .*|is parametrised, .*|has a forward .*)"):
        Network.from_sequential(module, (6,))
    if change is not hooked_backward:
        with pytest.raises(ActrelaxError, match=r"^layer '.*' (has a hook, .*|is parametrised, .*|has a forward .*)"):
            Projection("input", "output", module[1 if change is hooked else 2])


@old
@pytest.mark.parametrize("change", AFTER)
@pytest.mark.parametrize(
    "use",
    [
        Network.forward,
        relax_backward,
        backprop_backward,
        RelaxationProblem.from_batch,
        lambda *batch: relax_continuously(*batch, rate=0.1),
    ],
)
def test_a_module_that_changes_later_is_refused(change, use):
    module = layers()
    network = Network.from_sequential(module, (6,))
    change(module)
    x, y = batch()
    with pytest.raises(ActrelaxError, match=r"^layer '|^(the module|projection) .* make a new network\.$"):
        use(network, x) if use is Network.forward else use(network, x, y)
    assert all(p.grad is None for p in network.parameters())


def test_a_layer_of_a_projection_is_watched_too():
    layer, pool = nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)
    network = Network((1, 6, 6), {"output": "tanh"}, [Projection("input", "output", layer, pool)])
    x = torch.rand(2, 1, 6, 6)
    network(x)
    pool.ceil_mode = True
    with pytest.raises(ActrelaxError, match="make a new network"):
        network(x)
    pool.ceil_mode = False
    layer.weight = nn.Parameter(torch.ones(2, 1, 3, 3))
    with pytest.raises(ActrelaxError, match=r"^projection 'input->output' and its layer no longer share their weight,"):
        network(x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_a_module_that_nobody_holds_can_not_change(copied):
    x, _ = batch()
    network = Network.from_sequential(layers(), (6,))
    network.load_state_dict(Network.from_sequential(layers(), (6,)).state_dict(), assign=True)
    module = layers()
    other = copied(Network.from_sequential(module, (6,)))
    assigned(module)
    assert torch.equal(network(x), other(x))


def test_functional_call_passes():
    module = layers()
    network = Network.from_sequential(module, (6,))
    x, _ = batch()
    weights = {name: w.detach() for name, w in Network.from_sequential(layers(), (6,)).named_parameters()}
    assert torch.equal(torch.func.functional_call(network, weights, (x,)), module(x))


@pytest.mark.parametrize("on", [lambda n: n, lambda n: n.projections["input->hidden1"]], ids=["network", "projection"])
def test_a_hook_on_the_network_is_refused(on):
    network = Network.from_sequential(layers(), (6,))
    on(network).register_forward_hook(lambda *_: None)
    for rule in (relax_backward, backprop_backward):
        with pytest.raises(ActrelaxError, match="has a hook, which a relaxation does not call: remove it"):
            rule(network, *batch())


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.tanh, self.last, self.linear = nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), False

    def forward(self, x):
        x = self.first(x)
        return self.last(x if self.linear else self.tanh(x))


def test_a_flag_that_changes_the_forward_pass_is_noticed():
    module = Moody()
    network = Network.from_sequential(module, (6,))
    module.linear = True
    with pytest.raises(ActrelaxError, match=r"^the module has changed at layer '' since the network was made: make a"):
        network(batch()[0])


class Training(Moody):
    def forward(self, x):
        return self.last(self.tanh(self.first(x))) if self.training else self.last(self.first(x))


def test_another_function_in_evaluation_is_refused():
    with pytest.raises(ActrelaxError, match=r"^Training does more in evaluation mode than"):
        Network.from_sequential(Training(), (6,))


@pytest.mark.parametrize(
    "register",
    [
        module_hooks.register_module_forward_hook,
        module_hooks.register_module_forward_pre_hook,
        module_hooks.register_module_full_backward_hook,
        module_hooks.register_module_full_backward_pre_hook,
    ],
)
def test_a_hook_on_all_modules_is_refused_while_it_is_registered(register):
    network, (x, y) = Network.from_sequential(layers(), (6,)), batch()
    model = ActivationRelaxation(layers(), input_shape=(6,))

    def doubled(module, *values):
        return None

    handle = register(doubled)
    try:
        for call in (
            lambda: relax_backward(network, x, y),
            lambda: backprop_backward(network, x, y),
            lambda: RelaxationProblem.from_batch(network, x, y),
            lambda: model(x),
        ):
            with pytest.raises(ActrelaxError, match=r"^a global module hook, .*doubled, is registered, which a rel"):
                call()
    finally:
        handle.remove()
    relax_backward(network, x, y)
    model(x).sum().backward()


def test_pytorchs_own_tools_may_watch_all_modules():
    network, (x, y) = Network.from_sequential(layers(), (6,)), batch()
    with ModuleTracker():
        relax_backward(network, x, y)
