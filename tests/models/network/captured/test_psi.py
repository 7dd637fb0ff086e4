"""Feedback weights of captured networks: one psi per weight, and where it is kept."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from actrelax import (
    ActivationRelaxation,
    ActrelaxError,
    Assumptions,
    BackwardOptions,
    Knobs,
    Network,
    RelaxationProblem,
    Steps,
    Updates,
    relax_backward,
)
from actrelax.analysis.ledger import ledger_of
from actrelax.models.network.captured.psi import FeedbackWeights, parameter_of, view_of_feedback

LOSS = "half-sum-of-squares"


class Tied(nn.Module):
    """One matrix three times: as it is, transposed, and a slice of it."""

    def __init__(self):
        super().__init__()
        self.first, self.tied, self.last = nn.Linear(4, 6), nn.Linear(6, 6, bias=False), nn.Linear(5, 3)

    def forward(self, x):
        x = torch.tanh(self.tied(torch.tanh(self.first(x))))
        x = torch.tanh(nn.functional.linear(x, self.tied.weight.t()))
        return self.last(torch.tanh(nn.functional.linear(x, self.tied.weight[1:])))


def make(module=None, assumptions="learned-feedback", seed=0):
    torch.manual_seed(0)
    module = Tied() if module is None else module
    x = torch.randn(7, 4)
    network = Network.from_module(module, x)
    network.add_feedback(assumptions, seed)
    return network, x, torch.randn(7, 3)


def learn(network, x, y, assumptions="learned-feedback", integrator="equilibrium", **options):
    backward = BackwardOptions(**options)
    relax_backward(network, x, y, loss=LOSS, assumptions=assumptions, integrator=integrator, options=backward)


def test_names_and_places():
    network, _, _ = make()
    module = network.module
    assert list(module.state_dict()) == [key for key in network.state_dict() if not key.endswith(".feedback")]
    own = ["tied.feedback", "last.feedback"]
    assert [key for key in network.state_dict() if key.endswith(".feedback")] == own
    assert [name for name, _ in network.named_parameters()] == [*dict(module.named_parameters()), *own]
    assert network.state_dict()["tied.feedback"].shape == (6, 6)
    assert len(list(network.modules())) == len(list(module.modules())) + len(own)
    assert network.double().state_dict()["tied.feedback"].dtype == torch.float64
    fixed, _, _ = make(assumptions="random-feedback")
    assert [name for name, _ in fixed.named_buffers()] == own
    assert not any("feedback" in name for name, _ in fixed.named_parameters())
    signs, _, _ = make(assumptions="sign-feedback")
    assert signs.state_dict()["tied.feedback"] == signs.module.tied.weight.std(correction=0)


@pytest.mark.catches("psi of a transposed weight not transposed")
@pytest.mark.parametrize("computed", [False, True])
def test_tied_weights_share_psi_as_they_share_w(computed):
    """Against three separate weights with W, W^T and a slice of W, and psi likewise."""
    torch.manual_seed(0)
    module = Tied()
    if computed:  # anew for each use
        weight_norm(module.tied)
    network, x, y = make(module)
    learn(network, x, y)
    tied, psi = network.module.tied.weight, network.feedback.find("tied")
    plain = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6, bias=False), nn.Tanh(),
                          nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.Tanh(),
                          nn.Linear(5, 3))  # fmt: skip
    separate = Network.from_sequential(plain, (4,))
    separate.add_feedback("learned-feedback", 1)
    first, *same, last = separate.projections.values()
    with torch.no_grad():
        for p, w in zip(same, (tied, tied.t(), tied[1:]), strict=True):
            p.weight.copy_(w)
        for p, w in zip(same, (psi, psi.t(), psi[1:]), strict=True):
            p.feedback.copy_(w)
        for p, layer in ((first, network.module.first), (last, network.module.last)):
            p.weight.copy_(layer.weight)
            p.bias.copy_(layer.bias)
        last.feedback.copy_(network.feedback.find("last"))
    learn(separate, x, y)
    total = same[0].weight.grad + same[1].weight.grad.t()
    total[1:] += same[2].weight.grad
    assert torch.allclose(psi.grad, total, atol=1e-15)
    assert computed or torch.equal(psi.grad, tied.grad)
    assert torch.allclose(network.module.first.weight.grad, first.weight.grad, atol=1e-15)
    assert not torch.allclose(psi, tied, atol=0.1)


def test_the_distance_shrinks_exactly_under_tying():
    """W - psi is multiplied by 1 - lr decay per step, whatever the data (THEORY, section 7)."""
    network, x, y = make(assumptions="kolen-pollack")
    tied, psi = network.module.tied.weight, network.feedback.find("tied")
    before = (tied - psi).detach()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        learn(network, x, y, "kolen-pollack", updates=Updates(decay=0.2, clip=0.05))
        optimiser.step()
    assert torch.allclose((tied - psi).detach(), 0.9**3 * before, atol=1e-14)
    learned, x, y = make()
    before = (learned.module.tied.weight - learned.feedback.find("tied")).detach()
    optimiser = torch.optim.SGD(learned.parameters(), lr=0.5)
    learn(learned, x, y)
    optimiser.step()
    assert torch.allclose((learned.module.tied.weight - learned.feedback.find("tied")).detach(), before, atol=1e-14)


def test_computed_weights_have_a_psi_of_their_own():
    layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3))
    network, x, y = make(layers)
    psi, weight = network.state_dict()["2.feedback"], layers[2].weight.detach()
    assert psi.shape == weight.shape
    assert 0.5 < float(psi.std() / weight.std()) < 2
    signal = network.feedforward(x)
    problem = RelaxationProblem.from_batch(network, x, y, loss=LOSS, assumptions="learned-feedback")
    delta = torch.randn(7, 5)
    along = network.projections["2"].feedback_signal(
        delta, signal.routes["2"], problem.feedback_weight(network.projections["2"])
    )
    assert torch.allclose(along, delta @ psi)
    learn(network, x, y)
    presynaptic = torch.tanh(layers[0](x)).detach()
    post = ((layers(x) - y) / 7).detach() @ network.feedback.find("4").detach()
    post = post * (1 - torch.tanh(layers[2](presynaptic)).detach() ** 2)
    assert torch.allclose(network.feedback.find("2").grad, post.t() @ presynaptic, atol=1e-14)
    with pytest.raises(ActrelaxError, match=r'^"kolen-pollack" feedback needs weights that are Parameters'):
        learn(network, x, y, "kolen-pollack", updates=Updates(decay=0.1))


class Twice(nn.Module):
    """One layer twice, between two others."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(4, 6), layer, nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(torch.tanh(self.first(x)))))))


@pytest.mark.parametrize("parametrised", [weight_norm, spectral_norm, orthogonal])
def test_a_weight_that_each_call_computes_anew_has_one_psi(parametrised):
    """Its update is the sum over both calls, as of a tied Parameter with the same values."""
    torch.manual_seed(1)
    module = Twice(parametrised(nn.Linear(6, 6)))
    network, x, y = make(module)
    own = {"layer.feedback", "last.feedback"}
    assert {key for key in network.state_dict() if key.endswith(".feedback")} == own
    module.eval()  # in which spectral_norm computes the same weight in each call
    plain = Twice(nn.Linear(6, 6))
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(module.get_parameter(name) if "layer" not in name else getattr(module.layer, name[6:]))
    tied = Network.from_module(plain, x)
    tied.load_state_dict(plain.state_dict() | {key: network.state_dict()[key] for key in own})
    learn(network, x, y)
    learn(tied, x, y)
    for key in own:
        psi, same = (dict(each.named_parameters())[key] for each in (network, tied))
        assert torch.allclose(psi.grad, same.grad, atol=1e-14)
    assert torch.allclose(network.module.first.weight.grad, plain.first.weight.grad, atol=1e-14)
    found = ledger_of(tied, "ar", x)
    assert [e.synapses for e in ledger_of(network, "ar", x).entries] == [e.synapses for e in found.entries]


class Parts(nn.Module):
    """One matrix, masked in two ways, scaled in two ways, and transposed after one of these."""

    def __init__(self):
        super().__init__()
        self.w, self.first, self.last = nn.Parameter(torch.randn(6, 6)), nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("mask", torch.rand(6, 6) < 0.5)
        self.register_buffer("other", ~self.mask)

    def forward(self, x):
        x = self.first(x)
        for weight in (self.w * self.mask, self.w * self.other, self.w * 2, self.w * 3, (self.w * 2).t(), self.w * 2):
            x = nn.functional.linear(torch.tanh(x), weight)
        return self.last(torch.tanh(x))


def test_weights_that_are_computed_in_different_ways_do_not_share_psi():
    network, x, y = make(Parts())
    weights = [p for p in network.projections.values() if p.number is not None][::-1]
    computed = ["weight", "weight#2", "weight#3", "weight#4", "weight#3", "weight#3"]
    assert [p.psi for p in weights] == ["first", *computed, "last"]
    transposed = network.projections["weight#5"]
    problem = RelaxationProblem.from_batch(network, x, y, loss=LOSS, assumptions="learned-feedback")
    psi = network.feedback.find("weight#3")
    assert torch.equal(problem.feedback_weight(transposed), psi.t())


def test_a_frozen_weight_and_a_psi_that_learns():
    network, x, y = make()
    network.module.last.weight.requires_grad_(False)
    learn(network, x, y)
    assert network.module.last.weight.grad is None
    assert network.feedback.find("last").grad.any()
    network.feedback.find("tied").requires_grad_(False)
    network.zero_grad()
    learn(network, x, y)
    assert network.feedback.find("tied").grad is None
    assert network.module.tied.weight.grad.any()


@pytest.mark.parametrize("kind", ["learned-feedback", "random-feedback", "sign-feedback"])
def test_state_dicts(kind, tmp_path):
    """Into a network without psi, into one with another psi, into a part of another module; through a file."""
    network, x, _ = make(assumptions=kind)
    torch.save(network.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt")
    fresh = Network.from_module(Tied(), x)
    fresh.load_state_dict(state)
    other, _, _ = make(assumptions=kind, seed=9)
    other.load_state_dict(state)
    whole = nn.ModuleDict({"a": network, "b": nn.Linear(1, 1)})
    copied = nn.ModuleDict({"a": Network.from_module(Tied(), x), "b": nn.Linear(1, 1)})
    copied.load_state_dict(whole.state_dict())
    for loaded in (fresh, other, copied["a"], copy.deepcopy(network)):
        assert loaded.state_dict().keys() == state.keys()
        for key, value in state.items():
            assert torch.equal(loaded.state_dict()[key], value)
        assert isinstance(loaded.feedback.find("tied"), nn.Parameter) == (kind == "learned-feedback")
        RelaxationProblem.from_batch(loaded, x, torch.randn(7, 3), loss=LOSS, assumptions=kind)
    assert dict(copied.named_parameters()).keys() == dict(whole.named_parameters()).keys()
    del state["tied.feedback"]
    with pytest.raises(RuntimeError, match=r"tied.feedback"):
        other.load_state_dict(state)
    other.load_state_dict(state, strict=False)


def test_a_refused_state_dict_changes_no_psi():
    network, x, _ = make()
    state = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    before = {name: psi.clone() for name, psi in network.feedback.named().items()}
    for bad in (
        {**state, "last.feedback": torch.zeros(2, 2)},
        {name: tensor for name, tensor in state.items() if name != "last.feedback"},
        {**state, "last.weight": torch.zeros(2, 2)},
    ):
        with pytest.raises(RuntimeError, match=r"last\.(feedback|weight)"):
            network.load_state_dict(bad)
        fresh = Network.from_module(Tied(), x)
        with pytest.raises(RuntimeError, match=r"last\.weight|size mismatch for last\.feedback"):
            fresh.load_state_dict({**bad, "last.weight": torch.zeros(2, 2)})
        assert fresh.feedback.is_empty
    assert all(torch.equal(psi, before[name]) for name, psi in network.feedback.named().items())
    network.load_state_dict(state)
    assert all(torch.equal(psi, before[name] + 1) for name, psi in network.feedback.named().items())


@pytest.mark.parametrize(
    ("kind", "words"), [("learned", "(6, 6), learned"), ("random", "(6, 6), fixed"), ("sign", "signs")]
)
def test_psi_is_printed_with_its_shape(kind, words):
    options = BackwardOptions(generator=torch.Generator().manual_seed(0))
    model = ActivationRelaxation(Tied(), example=torch.randn(2, 4), assumptions=f"{kind}-feedback", options=options)
    assert f"    (tied): Feedback({words})\n" in repr(model)


def test_the_front_door_has_psi_among_its_parameters():
    """With a module it holds psi beside it, with a network in it."""
    network, x, y = make()
    generator, options = torch.Generator().manual_seed(0), {}
    for given in ({"module": network}, {"module": Tied(), "example": x}):
        options = {} if "example" not in given else {"options": BackwardOptions(generator=generator)}
        model = ActivationRelaxation(**given, assumptions="learned-feedback", **options)
        names = [name for name, _ in model.named_parameters() if name.endswith("tied.feedback")]
        assert len(names) == 1
        (0.5 * (model(x) - y).square().sum(1)).mean().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        other = copy.deepcopy(model)
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
        other.load_state_dict(model.state_dict())
        assert all(torch.equal(p, q) for p, q in zip(other.parameters(), model.parameters(), strict=True))
    assert {key for key in model.state_dict() if key.startswith("feedback")} == {
        "feedback.tied.feedback",
        "feedback.last.feedback",
    }
    bad = dict(model.state_dict()) | {"feedback.nowhere.feedback": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: .feedback.nowhere.feedback"):
        model.load_state_dict(bad)


@pytest.mark.parametrize("steps", [Steps.until(1e-6), Steps(20, eta=0.3)])
def test_psi_given_to_functional_call(steps):
    """They carry the feedback and get the updates, as the psi of a model that holds them do."""
    torch.manual_seed(0)
    x, module = torch.randn(7, 4), nn.Sequential(OrderedDict(body=Tied(), head=nn.Linear(3, 3)))
    options = {"assumptions": "learned-feedback", "steps": steps}
    model, other = (
        ActivationRelaxation(copy.deepcopy(module), example=x, options=BackwardOptions(generator=seed), **options)
        for seed in (0, 1)
    )
    names = [name for name, _ in model.named_parameters() if name.startswith("feedback.")]
    assert names == ["feedback.body.tied.feedback", "feedback.body.last.feedback", "feedback.head.feedback"]
    given = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    scaled = {name: 1.0 * p for name, p in given.items()}  # no leaves
    before = copy.deepcopy(other.state_dict())
    model(x).square().sum().backward()
    loss = functional_call(other, scaled, (x,)).square().sum()
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad.any()
        assert torch.equal(given[name].grad, p.grad)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert all(p.grad is None for p in other.parameters())
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


def test_functional_call_does_not_reach_the_psi_of_a_network():
    network, x, _ = make()
    model = ActivationRelaxation(network, assumptions="learned-feedback")
    own = dict(model.named_parameters())
    functional_call(model, own, (x,)).sum().backward()
    assert all(p.grad is not None for p in own.values())
    keys = list(network.state_dict())
    for kind in (torch.clone, nn.Parameter):
        given = {name: kind(p.detach()) for name, p in own.items()}
        with pytest.raises(ActrelaxError, match=r"^functional_call can't replace tied.feedback of a captured network"):
            functional_call(model, given, (x,))
    assert list(network.state_dict()) == keys


def test_a_part_called_feedback():
    class Layer(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.feedback = nn.Linear(4, 4)

        def forward(self, x):
            return torch.tanh(self.feedback(torch.tanh(super().forward(x))))

    module = nn.Sequential(nn.Linear(4, 4), Layer(), nn.Linear(4, 3))
    network, _, _ = make(module)
    own = {"1.feedback", "1.feedback.feedback", "2.feedback"}
    assert {name for name, _ in network.named_parameters()} - {name for name, _ in module.named_parameters()} == own
    again = Network.from_module(module, torch.randn(2, 4))
    again.load_state_dict(network.state_dict())
    assert all(torch.equal(again.feedback.find(name), psi) for name, psi in network.feedback.named().items())


def test_a_tensor_called_feedback():
    """It is the module's own: no state_dict takes it for psi, and psi cannot take its name."""
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(2, 4)
    module[2].register_parameter("feedback", nn.Parameter(torch.randn(3)))
    network = Network.from_module(module, x)
    network.load_state_dict({name: tensor + 1 for name, tensor in network.state_dict().items()})
    assert network.feedback.is_empty
    with pytest.raises(
        ActrelaxError, match=r"^the module has a tensor '2.feedback', which is the name of the feedback"
    ):
        network.add_feedback("random-feedback", 0)
    assert network.feedback.is_empty


def test_loaded_psi_have_the_order_of_drawn_ones():
    """So that an optimiser's state fits both."""
    torch.manual_seed(0)
    module = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 4))
    network, x, _ = make(module)
    loaded = Network.from_module(copy.deepcopy(module), x)
    loaded.load_state_dict(network.state_dict())
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in network.named_parameters()]


def test_what_is_refused_changes_nothing():
    module, x = Tied(), torch.randn(7, 4)
    network, generator = Network.from_module(module, x), torch.Generator().manual_seed(0)
    before = generator.get_state()
    with pytest.raises(ActrelaxError, match=r"^tau names an unknown population"):
        ActivationRelaxation(
            network, assumptions="learned-feedback", tau={"a": 1.0}, options=BackwardOptions(generator=generator)
        )
    assert network.feedback.is_empty
    assert torch.equal(generator.get_state(), before)
    names = [p.name for p in network.projections.values()]
    second = next(name for name in names if network.projections[name].psi == "tied" and name != "tied")
    mixed = Assumptions(dense=Knobs(feedback="random"), projections={second: {"feedback": "learned"}})
    with pytest.raises(ActrelaxError, match=r"^projections 'tied' and '.*' share a weight, so they need the same"):
        network.add_feedback(mixed, 0)
    with pytest.raises(ActrelaxError, match=r"^assumptions name an unknown projection 'tide'; known: tied, "):
        network.add_feedback(Assumptions(projections={"tide": Knobs()}), 0)
    with pytest.raises(ActrelaxError, match=r"^projection 'last' has no learned feedback weights: call network.add_f"):
        RelaxationProblem.from_batch(network, x, torch.randn(7, 3), loss=LOSS, assumptions="learned-feedback")
    network.add_feedback("random-feedback", 0)
    with pytest.raises(ActrelaxError, match=r"already has feedback weights: build a new network"):
        network.add_feedback("random-feedback", 0)
    with pytest.raises(
        ActrelaxError, match=r"^projection 'last' has feedback weights of another kind: build a new net"
    ):
        RelaxationProblem.from_batch(network, x, torch.randn(7, 3), loss=LOSS, assumptions="learned-feedback")


def test_feedback_transforms():
    """Half of the connections are missing in the feedback alone, and the same ones at all times."""
    network, x, y = make(assumptions="ar")
    sparse = RelaxationProblem.from_batch(network, x, y, loss=LOSS, feedback_transform="sparse-0.5")
    last = network.projections["last"]
    psi = sparse.feedback_weight(last)
    kept = psi != 0
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(psi[kept], network.module.last.weight.detach()[kept])
    relax_backward(network, x, y, loss=LOSS, integrator="equilibrium", feedback_transform="sparse-0.5")
    clamp = ((network(x) - y) / 7).detach()
    below = clamp @ psi
    hidden = network.feedforward(x).activities[last.source]
    read = next(p for p in network.projections.values() if p.target == last.source)
    presynaptic = network.feedforward(x).activities[read.source]
    slice_grad = ((1 - hidden**2) * below).t() @ presynaptic
    whole = network.module.tied.weight.grad.clone()
    network.zero_grad()
    relax_backward(network, x, y, loss=LOSS, integrator="equilibrium")
    assert not torch.allclose(whole, network.module.tied.weight.grad, atol=1e-4)
    assert slice_grad.any()


def test_views_of_psi():
    weight, psi = nn.Parameter(torch.randn(4, 6)), torch.randn(6, 4).t()
    for view in (lambda w: w, lambda w: w.t(), lambda w: w[1:3], lambda w: w.chunk(2, 1)[1], lambda w: w.view(2, 12)):
        assert parameter_of(view(weight)) is weight
        assert torch.equal(view_of_feedback(psi, view(weight)), view(psi.contiguous()))


def test_a_key_that_is_missing_is_named():
    weights = FeedbackWeights()
    weights.add("a.b", torch.zeros(2), learned=True)
    assert weights.load({}, "", {"a.b": torch.zeros(2)}, {}) == (["a.b.feedback"], [])
    with pytest.raises(RuntimeError, match=r"size mismatch for a.b.feedback"):
        weights.load({"a.b.feedback": torch.zeros(3)}, "", {"a.b": torch.zeros(2)}, {})
    with pytest.raises(RuntimeError, match=r"size mismatch for c.feedback: \(3,\), \(2,\)"):
        weights.load({"c.feedback": torch.zeros(3)}, "", {"c": torch.zeros(2)}, {})
    assert weights.find("c") is None
    for name, saved, like in (("c", (), 2), ("d", 3, ())):  # the scale of sign feedback; psi of a computed weight
        missing, changes = weights.load({f"{name}.feedback": torch.zeros(saved)}, "", {name: torch.zeros(like)}, {})
        assert not missing
        assert weights.find(name) is None
        changes[0]()
        assert weights.find(name).shape == torch.zeros(saved).shape
