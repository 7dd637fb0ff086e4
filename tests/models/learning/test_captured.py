"""Captured networks learn autograd's gradients at equilibrium, and relax as their law says."""

import copy
import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from modules import MODULES
from torch import nn

from actrelax import (
    ActivationRelaxation,
    ActrelaxError,
    BackwardOptions,
    Network,
    RelaxationProblem,
    Steps,
    Updates,
    activity_gradients,
    backprop_backward,
    relax_backward,
    solve,
)
from actrelax.models.closed_form import predict
from actrelax.models.integrators import EULER, SEQUENTIAL
from actrelax.models.learning.captured import deliver
from actrelax.models.learning.captured_updates import ParameterUpdates
from actrelax.models.results import DivergenceError, relative_error

CAPTURED = [name for name, case in MODULES.items() if case.refused is None]
LOSS = "half-sum-of-squares"


def make(name, training=True, **options):
    case = MODULES[name]
    module = case.make()
    network = Network.from_module(module, case.stimuli(), output=case.output, paths=case.paths, **options)
    return case, module, network.train(training)


def assert_gradients(found, expected):
    """Relative to the largest gradient of each parameter, with a floor for those that are rounding themselves."""
    largest = max(float(g.abs().max()) for g in expected.values() if g is not None)
    assert largest > 1e-3
    for key, exact in expected.items():
        if exact is None or not bool(exact.any()):
            assert found[key] is None or not bool(found[key].any()), key
            continue
        assert found[key] is not None, key
        error = float((found[key] - exact).abs().max())
        assert error <= 1e-9 * max(float(exact.abs().max()), 1e-6 * largest), key


def gradients(module):
    return {key: p.grad for key, p in module.named_parameters()}


@pytest.mark.catches("gate left open")
@pytest.mark.catches("copy forgotten")
@pytest.mark.parametrize(("batch", "training"), [(4, True), (7, True), (3, False)])
@pytest.mark.parametrize("name", CAPTURED)
def test_equilibrium_is_autograds_gradient(name, batch, training):
    case, module, network = make(name, training)
    plain, x = case.make().train(training), case.stimuli(batch, seed=5)
    for repeat in range(2):  # the second pass of a path finds what the first has recorded
        torch.manual_seed(repeat)
        output = case.output_of(plain(x))
        clamp = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
        plain.zero_grad()
        output.backward(clamp)
        torch.manual_seed(repeat)
        updates = ParameterUpdates()
        deliver(network.run(x, values=False), clamp, updates)
        by_parameter = updates.gradients()
        found = {key: by_parameter.get(p) for key, p in module.named_parameters()}
        assert_gradients(found, gradients(plain))


@pytest.mark.parametrize("start", ["feedforward", "zero"])
@pytest.mark.parametrize("integrator", [EULER, SEQUENTIAL], ids=lambda i: i.name)
@pytest.mark.parametrize("name", CAPTURED)
def test_steps_follow_the_law(name, integrator, start):
    case, _, network = make(name, training=False)
    x = case.stimuli(3, seed=5)
    y = torch.randn(network(x).shape)
    torch.manual_seed(1)
    problem = RelaxationProblem.from_batch(network, x, y, loss=LOSS, start=start)
    state = solve(problem, integrator, 12, eta=0.2).final
    law = predict(problem, integrator, dt=0.2, steps=12)
    assert {*law} == {*problem.network.hidden}
    for population, expected in law.items():
        assert float((state[population] - expected).abs().max()) <= 1e-12 * float(expected.abs().max()), population


@pytest.mark.parametrize("name", CAPTURED)
def test_populations_end_at_the_gradients_of_the_whole_graph(name):
    """Against autograd without cuts, on the module's own graph."""
    case, _, network = make(name, training=False)
    x = case.stimuli(3, seed=5)
    y = torch.randn(network(x).shape)
    torch.manual_seed(1)
    exact = activity_gradients(network, x, y, loss=LOSS)
    torch.manual_seed(1)
    problem = RelaxationProblem.from_batch(network, x, y, loss=LOSS)
    settled = solve(problem, "equilibrium").final
    assert {*exact} - {"output"} == {*problem.network.hidden}
    for population in problem.network.hidden:
        error = float((settled[population] - exact[population]).abs().max())
        assert error <= 1e-12 * float(exact[population].abs().max()), population


@pytest.mark.parametrize("steps", [Steps(400, eta=0.5), Steps.until(1e-13)], ids=["stepped", "until"])
@pytest.mark.parametrize("name", ["residual", "transformer", "shifted", "class-token", "low-rank", "experts"])
def test_relax_backward_is_backprop_backward(name, steps):
    case, module, network = make(name, training=name != "transformer")
    plain = copy.deepcopy(network)
    x = case.stimuli(4, seed=5)
    y = torch.randn(network(x).shape)
    torch.manual_seed(1)
    first = backprop_backward(plain, x, y, loss=LOSS)
    for key, buffer in copy.deepcopy(plain.module).named_buffers():
        module.get_buffer(key).copy_(buffer)
    network.load_state_dict(make(name)[1].state_dict())
    plain.zero_grad()
    plain.load_state_dict(network.state_dict())
    torch.manual_seed(1)
    first = backprop_backward(plain, x, y, loss=LOSS)
    torch.manual_seed(1)
    second = relax_backward(network, x, y, steps, loss=LOSS)
    assert torch.equal(first.output, second.output)
    assert torch.equal(first.loss, second.loss)
    assert bool(second.finite)
    assert_gradients(gradients(module), gradients(plain.module))


@pytest.mark.parametrize("start", ["feedforward", "zero"])
@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.filterwarnings("ignore:after 20 steps")
def test_the_closed_form_learns_what_steps_learn(name, start):
    """By both doors, and without a sample that has no loss gradient."""
    case, module, network = make(name, training=False)
    x = case.stimuli(4, seed=5)
    y = torch.randn(network(x).shape)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5]).view(-1, *[1] * (y.dim() - 1))

    def losses(output, target):
        return (weights * (output - target) ** 2).flatten(1).sum(1)

    found = []
    for rule in ("stepped", "closed-form", "front door"):
        network.zero_grad()
        torch.manual_seed(1)
        if rule == "front door":
            model = ActivationRelaxation(network, steps=Steps(20, eta=0.2), start=start)
            losses(model(x), y).mean().backward()
        else:
            options = BackwardOptions(evaluation=rule)
            relax_backward(network, x, y, 20, eta=0.2, loss=losses, start=start, options=options)
        found.append({key: None if g is None else g.clone() for key, g in gradients(module).items()})
    assert_gradients(found[1], found[0])
    assert_gradients(found[2], found[0])


@pytest.mark.parametrize(
    "preset", ["kolen-pollack", "simplified", "no-derivatives-relaxation", "sign-feedback", "constant-statistics"]
)
def test_the_closed_form_learns_under_other_assumptions(preset):
    case, module, network = make("residual")
    network.add_feedback(preset, 3)
    x, y = case.stimuli(4, seed=5), torch.randint(3, (4,))
    decay = 0.01 if preset == "kolen-pollack" else None
    found = []
    for rule in ("stepped", "closed-form"):
        network.zero_grad()
        options = BackwardOptions(Updates(decay=decay), evaluation=rule)
        relax_backward(network, x, y, 60, eta=0.2, assumptions=preset, options=options)
        found.append({key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None})
    assert len(found[0]) >= len(list(module.parameters()))
    assert_gradients(found[1], found[0])


def test_factors_and_clip():
    case, module, network = make("residual", training=False)
    x = case.stimuli(4, seed=5)
    y = torch.randint(3, (4,))
    updates = Updates(factors={"conv": 2.0}, clip=0.01)
    for reduction in ("mean", "sum"):
        found = []
        for rule in ("exact", "settled", "stepped"):
            network.zero_grad()
            if rule == "exact":
                backprop_backward(network, x, y, reduction=reduction, updates=updates)
            else:
                options = BackwardOptions(updates, reduction)
                steps = Steps(500, eta=0.5) if rule == "stepped" else Steps.until(1e-13)
                relax_backward(network, x, y, steps, options=options)
            found.append({key: g.clone() for key, g in gradients(module).items()})
        assert_gradients(found[1], found[0])
        assert_gradients(found[2], found[0])
        assert max(float(g.abs().max()) for g in found[0].values()) == 0.01


@pytest.mark.parametrize("rule", [backprop_backward, relax_backward])
@pytest.mark.parametrize("name", ["pruned", "weight-norm"])
def test_factors_of_computed_weights_are_refused(name, rule):
    """Backprop would scale nothing here, and AR everything that the weights are computed from."""
    case, module, network = make(name, training=False)
    options = {"updates": Updates(factors={"dense": 2.0})}
    if rule is relax_backward:
        options = {"options": BackwardOptions(**options), "steps": Steps.until(1e-13)}
    with pytest.raises(ActrelaxError, match=r"^factors={'dense': 2} needs weights that are Parameters"):
        rule(network, case.stimuli(4, seed=5), torch.randint(3, (4,)), **options)
    assert all(p.grad is None for p in module.parameters())


def test_samples_without_a_loss_gradient_teach_nothing():
    case, module, network = make("layer-norm", training=False)
    x = case.stimuli(4, seed=5)
    network(x)

    def loss(output, target):
        return ((output - target) ** 2).sum(1) * torch.tensor([1.0, 0.0, 1.0, 0.0])

    y = torch.zeros(4, 3)
    with pytest.warns(UserWarning, match="of the gradient has reached"):
        relax_backward(network, x, y, 3, eta=0.1, loss=loss, options=BackwardOptions(reduction="sum"))
    several = gradients(module)
    network.zero_grad()
    alone = BackwardOptions(reduction="sum")
    relax_backward(network, x[::2], y[::2], 3, eta=0.1, loss="sum-of-squares", options=alone)
    one = gradients(module)
    assert all(torch.allclose(several[key], one[key], atol=1e-13) for key in one)


def test_a_warning_where_little_has_arrived():
    case, _, network = make("transformer", training=False)
    x, y = case.stimuli(4), torch.randint(3, (4,))
    with pytest.warns(UserWarning, match=r"after 20 steps \d+% of the gradient has reached population '0'") as said:
        relax_backward(network, x, y, 20, eta=0.1)
    assert len(said) == 1
    assert "Steps.until" in str(said[0].message)
    assert 'start="zero"' in str(said[0].message)
    relax_backward(network, x, y, 20, eta=0.1)  # once per network
    fresh = make("transformer", training=False)[2]
    relax_backward(fresh, x, y, 20, eta=0.1, start="zero")
    relax_backward(fresh, x, y, 200, eta=0.1)


def test_a_parameters_hook_sees_its_whole_gradient_once():
    case, module, network = make("one-parameter-everywhere")
    x, y = case.stimuli(4), torch.randint(3, (4,))
    relax_backward(network, x, y, integrator="equilibrium")
    expected = module.temperature.grad.clone()
    network.zero_grad()
    seen = []
    module.temperature.register_hook(lambda g: seen.append(g.clone()) or g.clamp(-1e-3, 1e-3))
    relax_backward(network, x, y, integrator="equilibrium")
    assert len(seen) == 1
    assert torch.allclose(seen[0], expected, rtol=1e-12)
    assert float(module.temperature.grad.abs()) == 1e-3


def test_numbers_that_are_not_finite():
    case, module, network = make("residual")
    x, y = case.stimuli(4), torch.randint(3, (4,))
    x[0] = torch.nan
    with pytest.raises(DivergenceError, match="an update of a captured network is not finite"):
        relax_backward(network, x, y, integrator="equilibrium")
    assert all(p.grad is None for p in module.parameters())
    done = relax_backward(network, x, y, integrator="equilibrium", options=BackwardOptions(check_finite=False))
    assert not bool(done.finite)
    with pytest.raises(DivergenceError, match="an update of a captured network is not finite"):
        relax_backward(network, x, y, 300, eta=0.1)
    with pytest.raises(DivergenceError, match="non-finite at the start"):
        relax_backward(network, x, y, 300, eta=0.1, options=BackwardOptions(evaluation="stepped"))


REFUSED = {
    "preset": (
        {"assumptions": "random-feedback"},
        r"^projection 'head' has no random feedback weights: call network.add_feedback\(assumptions, gen",
    ),
    "closed form": (
        {"options": BackwardOptions(evaluation="closed-form"), "clip": 0.1},
        "the closed form needs a linear relaxation: leave clip out",
    ),
    "continuous": ({"assumptions": "continuous"}, "continuous plasticity changes weights during the relaxation: use"),
    "current": ({"assumptions": "unfrozen"}, "^population '.*' is not one pointwise function of a sum of drives"),
    "noise": (
        {"assumptions": "current-presynaptic", "input_noise": 0.1},
        "the current gains and presynaptic factors of a captured network read the stimulus itself: leave input_noise",
    ),
    "relay": ({"tau": {"stem'": 2.0}}, """"stem'" is a relay, it has no tau: it equals its input at all times"""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case):
    fields, sentence = REFUSED[case]
    given, module, network = make("pre-activation")
    x, y = given.stimuli(4), torch.randint(3, (4,))
    with pytest.raises(ActrelaxError, match=sentence):
        relax_backward(network, x, y, **fields)
    assert all(p.grad is None for p in module.parameters())


def test_time_constants_noise_and_delays_take_names():
    case, _, network = make("pre-activation", training=False)
    x, y = case.stimuli(4), torch.randint(3, (4,))
    exact = activity_gradients(network, x, y)
    taus = {name: 1.0 + i for i, name in enumerate(network.hidden)}
    delays = {name: 0.3 for name, p in network.projections.items() if p.source != "input"}
    for fields in ({"tau": taus}, {"delays": delays}, {"start": {k: torch.zeros_like(exact[k]) for k in taus}}):
        problem = RelaxationProblem.from_batch(network, x, y, **fields)
        final = solve(problem, "euler", dt=0.1, duration=120.0).final
        for name in network.hidden:
            assert torch.allclose(final[name], exact[name], atol=1e-9), (name, *fields)
    noisy = RelaxationProblem.from_batch(network, x, y, noise={network.hidden[0]: 0.1})
    first, second = (solve(noisy, "euler", 5, eta=0.1, generator=g).final for g in (1, 2))
    assert not torch.equal(first[network.hidden[0]], second[network.hidden[0]])


def test_tolerance_of_the_gradient():
    case, _, network = make("residual", training=False)
    x, y = case.stimuli(4), torch.randint(3, (4,))
    exact = activity_gradients(network, x, y)
    problem = RelaxationProblem.from_batch(network, x, y)
    final = solve(problem, "euler", Steps.until(1e-3, of="gradient"), evaluation="stepped").final
    errors = [float((final[v] - exact[v]).abs().max() / exact[v].abs().max()) for v in network.hidden]
    assert 0 < max(errors) < 1e-3


class Positions(nn.Module):
    """Two parameters that are added to one sum: autograd gives both the same gradient, in one sample or expanded."""

    def __init__(self, samples=1):
        super().__init__()
        self.a, self.o = nn.Linear(6, 5), nn.Linear(5, 3)
        self.pos, self.row = (nn.Parameter(torch.randn(samples, 4, 5)) for _ in range(2))

    def forward(self, x):
        return self.o(torch.tanh(self.a(x) + self.pos + self.row)).mean(1)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("rule", [partial(relax_backward, integrator="equilibrium"), backprop_backward])
def test_gradients_share_no_memory(rule, samples):
    module, x, y = Positions(samples), torch.randn(samples, 4, 6), torch.arange(samples)
    network = Network.from_module(module, x)
    rule(network, x, y)
    once = module.pos.grad.clone()
    rule(network, x, y)
    assert torch.equal(module.pos.grad, 2 * once)
    assert torch.equal(module.row.grad, 2 * once)
    clip = float(once.abs().median())
    module.zero_grad()
    options = BackwardOptions(updates=Updates(clip=clip))
    rule(network, x, y, options=options)
    assert torch.equal(module.row.grad, once.clamp(-clip, clip))


class Tokens(nn.Module):
    """A module whose output has more rows than its batch has samples."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x))).flatten(0, 1)


@pytest.mark.parametrize("rule", [partial(relax_backward, integrator="equilibrium"), backprop_backward])
def test_a_mean_is_over_the_rows_of_the_output(rule):
    module, x, y = Tokens(), torch.randn(5, 4, 6), torch.randint(3, (20,))
    F.cross_entropy(module(x), y).backward()
    expected = module.a.weight.grad.clone()
    module.zero_grad()
    result = rule(Network.from_module(module, x), x, y)
    assert relative_error(module.a.weight.grad, expected) < 1e-5
    assert float(result.loss) == pytest.approx(F.cross_entropy(module(x), y).item(), rel=1e-6)
    assert result.samples == 20


@pytest.mark.parametrize("how", [{}, {"integrator": "euler", "steps": 40, "eta": 0.5}], ids=["settled", "steps"])
@pytest.mark.parametrize("options", [Updates(clip=0.01), Updates(decay=0.1)], ids=["clip", "decay"])
def test_clip_and_decay_are_those_of_the_unscaled_loss(how, options):
    x, y, found = torch.randn(8, 6), torch.randint(3, (8,)), []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        given = {"assumptions": "kolen-pollack" if options.decay else "ar", **how}
        model = ActivationRelaxation(module, example=x, options=BackwardOptions(updates=options, generator=1), **given)
        model.loss_scale = scale
        (F.cross_entropy(model(x), y) * scale).backward()
        found.append(module[2].weight.grad / scale)
    assert relative_error(found[1], found[0]) < 1e-5


def test_a_clip_of_updates_leaves_the_gradient_of_the_input():
    module, y = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), torch.arange(3)
    x = torch.randn(3, 6, requires_grad=True)
    (expected,) = torch.autograd.grad(F.cross_entropy(module(x), y), x)
    model = ActivationRelaxation(module, example=x.detach(), options=BackwardOptions(updates=Updates(clip=1e-4)))
    F.cross_entropy(model(x), y).backward()
    assert float(module[0].weight.grad.abs().max()) == pytest.approx(1e-4)
    assert torch.equal(x.grad, expected)


class Levels(nn.Module):
    """As many layers as it is told to use."""

    def __init__(self, used):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(8))
        self.o, self.used = nn.Linear(6, 3), used

    def forward(self, x):
        for layer in self.layers[: self.used]:
            x = torch.tanh(layer(x))
        return self.o(x)


def test_each_path_takes_the_steps_that_it_needs():
    module, x, y = Levels(2).double(), torch.randn(5, 6).double(), torch.tensor([0, 1, 2, 2, 1])
    network = Network.from_module(module, x, paths="many")
    model = ActivationRelaxation(network, steps=Steps.until(1e-4), integrator="euler")
    for module.used in (2, 8):
        exact = torch.autograd.grad(F.cross_entropy(module(x), y), module.layers[0].weight)[0]
        module.zero_grad()
        F.cross_entropy(model(x), y).backward()
        assert relative_error(module.layers[0].weight.grad, exact) < 2e-3


def test_relays_follow_the_feedback_weights():
    """What a relay keeps belongs to the weights that carried it, also when another problem has the same pass."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.n, self.b, self.c = nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            return self.b(self.n(h)) + self.c(h)

    x, y = torch.randn(5, 6), torch.tensor([0, 1, 2, 2, 1])
    network = Network.from_module(Branches(), x)
    plain = RelaxationProblem.from_batch(network, x, y)
    weaker = dataclasses.replace(plain, feedback_transform="scaled-0.5")
    alone = RelaxationProblem.from_batch(network, x, y, feedback_transform="scaled-0.5")
    _, after, expected = (
        solve(each, "euler", Steps(50, eta=0.3), evaluation="stepped").final["a"] for each in (plain, weaker, alone)
    )
    assert torch.equal(after, expected)


def test_sparse_gradients_of_embeddings():
    module = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(12, 3))
    network = Network.from_module(module, torch.zeros(2, 3, dtype=torch.int64))
    x, y = torch.randint(9, (5, 3)), torch.randint(3, (5,))
    relax_backward(network, x, y, integrator="equilibrium")
    found = module[0].weight.grad
    network.zero_grad()
    backprop_backward(network, x, y)
    assert torch.allclose(found.to_dense(), module[0].weight.grad.to_dense(), atol=1e-13)


class Outside(nn.Module):
    """Reads weights that it doesn't hold: as they are, computed, and in a piece."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.stem, self.head = weights, nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        direct, computed, own = self.weights
        x = torch.tanh(self.stem(x) @ direct)
        return self.head(F.linear(x, 2 * computed) * own)


def test_weights_held_elsewhere_learn():
    weights = [nn.Parameter(torch.randn(s)) for s in ((5, 5), (5, 5), (5,))]
    module, x = Outside(weights), torch.randn(4, 6)
    exact = torch.autograd.grad(module(x).square().sum(), weights)
    model = ActivationRelaxation(module, example=x)
    model(x).square().sum().backward()
    for weight, expected in zip(weights, exact, strict=True):
        assert torch.allclose(weight.grad, expected, rtol=1e-12)


class WritesStimuli(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden = torch.tanh(self.stem(x))
        x.mul_(2)
        return self.head(hidden)


def test_what_a_weight_read_must_not_change():
    module = WritesStimuli()
    model = ActivationRelaxation(module, example=torch.randn(4, 6))
    with pytest.raises(ActrelaxError, match="a tensor that a weight reads has changed in place since the forward pass"):
        model(torch.randn(4, 6)).sum().backward()
    module.stem.weight.requires_grad_(False)  # then nothing needs the old values
    model(torch.randn(4, 6)).sum().backward()


def test_an_embedding_may_scale_its_weight():
    module, x = nn.Sequential(nn.Embedding(5, 4, max_norm=1.0), nn.Linear(4, 3)), torch.randint(5, (6,))
    exact = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    ActivationRelaxation(module, example=x)(x).square().sum().backward()
    for p, expected in zip(module.parameters(), exact, strict=True):
        assert torch.allclose(p.grad, expected, rtol=1e-12)


class Alternates(nn.Module):
    """Reads, copies or scales by one of two tensors, or by one twice and by both, with the same functions."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.other = kind, False
        self.one, self.two, self.three, self.head = (nn.Linear(6, 6) for _ in range(4))
        self.scales = nn.ParameterList([torch.ones(6), torch.ones(6)])

    def forward(self, x):
        a = torch.tanh(self.one(x))
        b = torch.tanh(self.two(a))
        chosen = b if self.other else a
        read = {"read": chosen, "both": b}.get(self.kind, a)
        y = torch.tanh(self.three(read)) + {"copy": chosen, "both": a * chosen}.get(self.kind, b)
        return self.head(self.scales[self.other and self.kind == "own"] * y)


@pytest.mark.parametrize("kind", ["read", "copy", "own", "both"])
def test_the_same_functions_of_other_tensors_are_another_path(kind):
    module, x = Alternates(kind), torch.randn(4, 6)
    one, many = ActivationRelaxation(module, example=x), Network.from_module(module, x, paths="many")
    one(x).sum().backward()
    module.other = True
    with pytest.raises(ActrelaxError, match=r'capture .* with paths="many"'):
        one(x).sum().backward()
    exact = torch.autograd.grad(module(x).sum(), list(module.parameters()), allow_unused=True)
    module.zero_grad()
    ActivationRelaxation(many)(x).sum().backward()
    assert_gradients(gradients(module), dict(zip(gradients(module), exact, strict=True)))


class ComplexPopulation(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.one, self.two = (nn.Parameter(torch.randn(4, dtype=torch.complex128)) for _ in range(2))

    def forward(self, x):
        modes = torch.fft.rfft(self.stem(x))
        y = torch.tanh(self.hidden(torch.fft.irfft(modes * self.one, n=6)))
        return self.head(y + torch.fft.irfft(modes * self.two, n=6))


def test_complex_populations_have_an_equilibrium_only():
    module, x = ComplexPopulation(), torch.randn(4, 6)
    network, y = Network.from_module(module, x), torch.randint(3, (4,))
    relax_backward(network, x, y, integrator="equilibrium")
    found = gradients(module)
    network.zero_grad()
    backprop_backward(network, x, y)
    assert_gradients(found, gradients(module))
    with pytest.raises(ActrelaxError, match="population 'stem' is complex, and has no real state to step"):
        relax_backward(network, x, y, 100, eta=0.1)


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.stem(x.transpose(0, 1)))).mean(0)


def test_steps_of_a_sequence_are_no_samples():
    """With as many samples as steps, a sample without a loss gradient must not silence the step of its number."""
    module = TimeFirst()
    network, x, y = Network.from_module(module, torch.randn(3, 4, 6)), torch.randn(4, 4, 6), torch.randn(4, 3)
    y[0] = network(x)[0].detach()  # no error
    found = []
    for samples in (slice(None), [0, 1, 2, 3, 0]):  # five samples and four steps can't be confused
        network.zero_grad()
        relax_backward(network, x[samples], y[samples], 30, eta=0.1, start="zero", loss=LOSS,
                       options=BackwardOptions(reduction="sum"))  # fmt: skip
        found.append(gradients(module))
    assert all(torch.allclose(found[0][key], found[1][key], rtol=1e-12) for key in found[0])
