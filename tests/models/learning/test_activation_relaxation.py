"""`ActivationRelaxation`: `loss.backward()` relaxes, with the same gradients as `relax_backward`."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from networks import exploding_case, graph_case, make_case, mlp_case
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint

from actrelax import (
    INTEGRATORS,
    PRESETS,
    ActivationRelaxation,
    ActrelaxError,
    BackwardOptions,
    DivergenceError,
    Network,
    RelaxationProblem,
    Steps,
    Updates,
    build,
    relax_backward,
    solve,
)
from actrelax.models.learning.activation_relaxation import SETTLED
from actrelax.models.results import relative_error

SHORT = Steps(12, eta=0.2)
FROZEN = [name for name in PRESETS if name != "continuous"]


def chain(double=True):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 10)
    )
    return layers.double() if double else layers.float()


def batch(size=6, double=True):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 1, 8, 8, generator=generator)
    return x.double() if double else x.float(), torch.arange(size) % 10


def door(layers=None, steps=SHORT, **options):
    return ActivationRelaxation(chain() if layers is None else layers, input_shape=(1, 8, 8), steps=steps, **options)


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}


def learned(model, x, y, loss=F.cross_entropy, scale=1.0):
    """Return the gradients of one batch, with the loss times a factor."""
    model.zero_grad()
    (scale * loss(model(x), y)).backward()
    return gradients(model)


def difference(found, expected):
    assert found.keys() == expected.keys()
    return max(relative_error(found[name], expected[name]) for name in expected)


def options_for(preset):
    decay = 0.01 if "kolen-pollack" in preset else None
    return BackwardOptions(updates=Updates(decay=decay), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("preset", FROZEN)
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_equals_relax_backward(preset, integrator):
    case = graph_case()
    relaxed = INTEGRATORS[integrator].takes_time
    if integrator in ("exact", "equilibrium") and preset in ("unfrozen", "unfrozen-relaxation"):
        pytest.skip("needs a constant activity gain")
    steps = {"steps": SHORT} if relaxed else {}
    options = options_for(preset)
    model = ActivationRelaxation(case.network, assumptions=preset, integrator=integrator, options=options, **steps)
    found = {name: grad.clone() for name, grad in learned(model, case.x, case.y).items() if grad is not None}
    case.network.zero_grad()
    relax_backward(case.network, case.x, case.y, assumptions=preset, integrator=integrator, options=options, **steps)
    expected = {f"module.{name}": p.grad for name, p in case.network.named_parameters() if p.grad is not None}
    assert difference(found, expected) < 1e-12


@pytest.mark.parametrize(
    "fields", [{"tau": 2.0, "start": "zero"}, {"clip": 0.05}, {"integrator": "euler", "delays": 0.4}]
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_fields_and_reduction(fields, reduction):
    case = graph_case()
    steps = Steps(12, dt=0.2)
    model = ActivationRelaxation(case.network, steps=steps, reduction=reduction, **fields)
    found = learned(model, case.x, case.y, lambda out, y: F.cross_entropy(out, y, reduction=reduction))
    found = {name: grad.clone() for name, grad in found.items()}
    case.network.zero_grad()
    relax_backward(case.network, case.x, case.y, steps, options=BackwardOptions(reduction=reduction), **fields)
    assert difference(found, {f"module.{n}": p.grad for n, p in case.network.named_parameters()}) < 1e-12


def test_a_start_of_the_units():
    """A given initial state has the batch's size, which is checked for each batch."""
    case = mlp_case()
    start = {name: torch.randn(3, *case.network.populations[name].shape) for name in case.network.hidden}
    found = learned(ActivationRelaxation(case.network, steps=SHORT, start=start), case.x, case.y)
    found = {name: grad.clone() for name, grad in found.items()}
    case.network.zero_grad()
    relax_backward(case.network, case.x, case.y, SHORT, start=start)
    assert difference(found, {f"module.{n}": p.grad for n, p in case.network.named_parameters()}) < 1e-12
    with pytest.raises(ActrelaxError, match="start must give population"):
        F.cross_entropy(ActivationRelaxation(case.network, steps=SHORT, start=start)(case.x[:2]), case.y[:2]).backward()


def test_the_default_is_the_gradient():
    x, y = batch()
    model = ActivationRelaxation(chain(), input_shape=(1, 8, 8))
    found = learned(model, x, y)
    assert difference(found, {f"module.{n}": g for n, g in learned(chain(), x, y).items()}) < 1e-12
    assert difference(learned(door(), x, y), found) > 1e-3


@pytest.mark.parametrize("scale", [65536.0, torch.tensor(65536.0), lambda: 65536.0])
def test_a_scaled_loss(scale):
    """As under a GradScaler: gradients stay the same if the factor is given, and change otherwise."""
    x, y = batch()
    expected, model = learned(door(), x, y), door()
    without = {name: grad / 65536 for name, grad in learned(model, x, y, scale=65536.0).items()}
    assert difference(without, expected) > 1e-2
    model.loss_scale = scale
    found = {name: grad / 65536 for name, grad in learned(model, x, y, scale=65536.0).items()}
    assert difference(found, expected) < 1e-12


@pytest.mark.parametrize("preset", ["ar", "no-derivatives", "current-presynaptic", "unfrozen-weights"])
def test_a_settled_relaxation_needs_no_scale_unless_knobs_are_current(preset):
    x, y = batch()
    model = ActivationRelaxation(chain(), input_shape=(1, 8, 8), assumptions=preset)
    expected = {name: grad.clone() for name, grad in learned(model, x, y).items()}
    halved = {name: 2 * grad for name, grad in learned(model, x, y, scale=0.5).items()}
    if preset in ("ar", "no-derivatives"):
        assert difference(halved, expected) < 1e-12
    else:
        assert difference(halved, expected) > 1e-2
        model.loss_scale = 0.5
        found = {name: 2 * grad for name, grad in learned(model, x, y, scale=0.5).items()}
        assert difference(found, expected) < 1e-12


def test_accumulation_over_batches():
    x, y = batch()
    expected, model = learned(door(), x, y), door()
    for loss_scale, accepted in ((1.0, False), (0.5, True)):
        model.zero_grad()
        model.loss_scale = loss_scale
        for part in (slice(0, 3), slice(3, 6)):
            (F.cross_entropy(model(x[part]), y[part]) / 2).backward()
        assert (difference(gradients(model), expected) < 1e-12) is accepted


def test_shares_of_processes():
    """As under DDP, which averages gradients over processes with 7 and 6 samples."""
    x, y = batch(13)
    expected, found = learned(door(), x, y), []
    for part in (slice(0, 7), slice(7, 13)):
        model = door()
        share = 2 * len(x[part]) / 13
        model.loss_scale = share
        found.append(learned(model, x[part], y[part], scale=share))
    assert difference({name: (found[0][name] + found[1][name]) / 2 for name in expected}, expected) < 1e-12


def test_ignored_samples_and_class_weights():
    """PyTorch's mean does not divide by the batch size here; the ratio of both divisors is the scale."""
    x, y = batch()
    weight = torch.linspace(0.5, 2, 10).double()
    expected = learned(door(), x, y, lambda out, y: F.cross_entropy(out, y, weight=weight, reduction="none").mean())
    model = door()
    model.loss_scale = 6 / weight[y].sum()
    found = learned(model, x, y, lambda out, y: F.cross_entropy(out, y, weight=weight))
    assert difference({name: grad / model.loss_scale for name, grad in found.items()}, expected) < 1e-12
    some = y.clone()
    some[:2] = -100
    model.loss_scale = 6 / 4
    assert difference(learned(model, x, some), learned(door(), x[2:], y[2:])) < 1e-12


@pytest.mark.parametrize("evaluation", ["closed-form", "stepped"])
def test_a_sample_without_a_loss_adds_nothing(evaluation):
    x, y = batch()
    rows = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]).double()
    options = BackwardOptions(evaluation=evaluation)
    of_some = door(reduction="sum", options=options)
    found = learned(of_some, x, y, lambda out, y: (rows * F.cross_entropy(out, y, reduction="none")).sum())
    kept = rows.bool()
    model = door(reduction="sum", options=options)
    expected = learned(model, x[kept], y[kept], lambda out, y: F.cross_entropy(out, y, reduction="sum"))
    assert difference(found, expected) < 1e-12
    network = Network.from_sequential(chain(), (1, 8, 8))
    loss = lambda out, y: rows * F.cross_entropy(out, y, reduction="none")  # noqa: E731
    relax_backward(network, x, y, SHORT, loss=loss, options=BackwardOptions(reduction="sum", evaluation=evaluation))
    for p, grad in zip(network.parameters(), expected.values(), strict=True):
        assert relative_error(p.grad, grad) < 1e-12


def test_two_forward_passes_before_the_backward_pass():
    x, y = batch()
    model = door(reduction="sum")
    loss = F.cross_entropy(model(x[:2]), y[:2], reduction="sum") + F.cross_entropy(model(x[2:]), y[2:], reduction="sum")
    loss.backward()
    both = {name: grad.clone() for name, grad in gradients(model).items()}
    expected = learned(model, x, y, lambda out, y: F.cross_entropy(out, y, reduction="sum"))
    assert difference(both, expected) < 1e-12


def test_without_gradients_it_is_the_module_alone():
    x, _ = batch()
    calls, layers = [], chain()
    model = door(layers)
    layers.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert torch.equal(model(x), layers(x))
    assert len(calls) == 2


def test_evaluation_mode_relaxes_too():
    x, y = batch()
    assert difference(learned(door().eval(), x, y), learned(door().train(), x, y)) == 0


def test_a_transform_of_the_feedback_reaches_the_input():
    x, y = batch()
    model = door(feedback_transform="sparse-0.5")
    x.requires_grad_()
    F.cross_entropy(model(x), y).backward()
    problem = RelaxationProblem.from_batch(model.network, x.detach(), y, feedback_transform="sparse-0.5")
    expected = problem.feedback("input", solve(problem, "sequential", SHORT).state) / len(x)
    assert relative_error(x.grad, expected) < 1e-12


@pytest.mark.parametrize("steps", [Steps.until(1e-6), SHORT])
@pytest.mark.parametrize("integrator", ["sequential", "rk4"])
def test_gradient_of_the_input(steps, integrator):
    """The input's gradient is the feedback that arrives there, and autograd's at equilibrium."""
    x, y = batch()
    model = door(steps=steps, integrator=integrator)
    x.requires_grad_()
    F.cross_entropy(model(x), y).backward()
    problem = RelaxationProblem.from_batch(model.network, x.detach(), y)
    expected = problem.feedback("input", solve(problem, integrator, steps).state) / len(x)
    assert relative_error(x.grad, expected) < 1e-12
    exact = torch.autograd.grad(F.cross_entropy(model.module(x), y), x)[0]
    assert (relative_error(x.grad, exact) < 1e-5) is (steps is not SHORT)


def test_gradient_of_an_input_that_feeds_two_populations():
    """Both contributions are added, one after the other."""
    edges = [("input", "hidden1", [nn.Linear(6, 5)]), ("input", "hidden2", [nn.Linear(6, 4)])]
    edges += [("hidden1", "hidden2", [nn.Linear(5, 4)]), ("hidden2", "output", [nn.Linear(4, 3)])]
    case = make_case((6,), {"hidden1": "tanh", "hidden2": "sigmoid", "output": "identity"}, edges)
    x = case.x.clone().requires_grad_()
    F.cross_entropy(ActivationRelaxation(case.network)(x), case.y).backward()
    expected = torch.autograd.grad(F.cross_entropy(case.network(x), case.y), x)[0]
    assert relative_error(x.grad, expected) < 1e-12


def test_layers_in_front_and_behind():
    x, y = batch()
    torch.manual_seed(3)
    front, behind = nn.Conv2d(1, 1, 3, padding=1).double(), nn.Linear(10, 10).double()
    found = learned(nn.Sequential(front, ActivationRelaxation(chain(), input_shape=(1, 8, 8)), behind), x, y)
    expected = learned(nn.Sequential(front, chain(), behind), x, y)
    for grad, exact in zip(found.values(), expected.values(), strict=True):
        assert relative_error(grad, exact) < 1e-9


def test_weights_given_to_functional_call():
    x, y = batch()
    model = door()
    weights = {name: (1.1 * p).detach().requires_grad_() for name, p in model.named_parameters()}
    F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y).backward()
    assert all(p.grad is None for p in model.parameters())
    scaled = chain()
    with torch.no_grad():
        for p in scaled.parameters():
            p.mul_(1.1)
    assert difference({name: w.grad for name, w in weights.items()}, learned(door(scaled), x, y)) < 1e-12


@pytest.mark.parametrize("what", ["weight", "stimuli"])
def test_a_change_between_the_passes_is_refused(what):
    x, y = batch()
    model = door()
    loss = F.cross_entropy(model(x), y)
    with torch.no_grad():
        (model.module[0].weight if what == "weight" else x).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_output_may_change_in_place():
    x, y = batch()
    model, halved = door(steps=Steps.until(1e-6)), chain()
    F.cross_entropy(model(x).mul_(0.5), y).backward()
    F.cross_entropy(halved(x).mul_(0.5), y).backward()
    assert difference(gradients(model), {f"module.{n}": g for n, g in gradients(halved).items()}) < 1e-9


def test_autocast():
    x, y = batch(double=False)
    model = door(chain(double=False))
    exact = {name: grad.clone() for name, grad in learned(model, x, y).items()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
        loss = F.cross_entropy(output, y)
    loss.backward()
    assert output.dtype is torch.bfloat16
    assert all(p.grad.dtype is torch.float32 for p in model.parameters())
    assert 1e-4 < difference(gradients(model), exact) < 0.05
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(model(x), y).backward()  # inside the block, too
    assert difference(gradients(model), exact) < 0.05


def test_hooks_and_frozen_layers():
    x, y = batch()
    expected, model, seen = learned(door(), x, y), door(), []
    model.module[0].weight.register_hook(lambda grad: 2 * grad)
    model.module[4].weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    model.module[4].bias.requires_grad_(False)
    model.module[6].requires_grad_(False)
    found = learned(model, x, y)
    assert relative_error(found["module.0.weight"], 2 * expected["module.0.weight"]) < 1e-12
    assert torch.equal(seen[0], found["module.4.weight"])
    frozen = ("module.4.bias", "module.6.weight", "module.6.bias")
    assert [name for name, grad in found.items() if grad is None] == list(frozen)
    assert relative_error(found["module.0.bias"], expected["module.0.bias"]) < 1e-12


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda out, y: F.cross_entropy(out, F.one_hot(y, 10).double() * 0.8 + 0.02),
        lambda out, y: F.cross_entropy(out.view(len(out), 2, 5), torch.stack([y % 2] * 5, 1)),
        nn.MultiMarginLoss(),
    ],
)
def test_any_loss(loss):
    """Losses with smoothed labels, with soft targets, and with one label per token."""
    x, y = batch()
    model = ActivationRelaxation(chain(), input_shape=(1, 8, 8))
    expected = {f"module.{name}": grad for name, grad in learned(chain(), x, y, loss).items()}
    assert difference(learned(model, x, y, loss), expected) < 1e-9


def test_an_optimiser_learns():
    x, y = batch(32, double=False)
    model = door(chain(double=False), steps=Steps(100, eta=0.1))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1


def saved(model):
    """Return what `torch.load` reads after `torch.save`, whose protocol of pickling is older than pickle's own."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("wrapped", ["input_shape", "example", "network", "captured"])
def test_copies(wrapped):
    x, y = batch()
    if wrapped in ("network", "captured"):
        net = Network.from_sequential(chain(), (1, 8, 8)) if wrapped == "network" else Network.from_module(chain(), x)
        module, given = saved(net), {}
    else:
        module, given = chain(), {wrapped: (1, 8, 8) if wrapped == "input_shape" else x}
    model = ActivationRelaxation(
        module, steps=SHORT, assumptions="learned-feedback", options=options_for("learned-feedback"), **given
    )
    expected = {name: grad.clone() for name, grad in learned(model, x, y).items()}
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), saved(model)):
        assert difference(learned(other, x, y), expected) == 0
        with torch.no_grad():
            next(other.module.parameters()).zero_()
        assert difference(learned(other, x, y), expected) > 0.1
    assert difference(learned(model, x, y), expected) == 0


def test_state_dicts():
    """The module's state is a plain checkpoint; the model's state also has the feedback weights."""
    model = door(assumptions="learned-feedback", options=options_for("learned-feedback"))
    plain = list(chain().state_dict())
    assert list(model.module.state_dict()) == plain
    feedback = ["feedback.conv1->hidden1", "feedback.hidden1->output"]
    assert list(model.state_dict()) == [*(f"module.{name}" for name in plain), *feedback]
    other = door(chain(), assumptions="learned-feedback", options=BackwardOptions(generator=torch.Generator()))
    x, y = batch()
    assert difference(learned(other, x, y), learned(model, x, y)) > 1e-3
    other.load_state_dict(model.state_dict())
    assert difference(learned(other, x, y), learned(model, x, y)) == 0


@pytest.mark.parametrize("preset", ["learned-feedback", "kolen-pollack", "random-feedback", "sign-feedback"])
def test_feedback_weights_move_along(preset):
    """Random feedback weights change precision with the model, although they are not parameters."""
    x, y = batch(double=False)
    model = door(chain(double=False), assumptions=preset, options=options_for(preset)).double()
    expected = door(chain(double=False).double(), assumptions=preset, options=options_for(preset))
    assert difference(learned(model, x.double(), y), learned(expected, x.double(), y)) < 1e-5
    learnable = preset in ("learned-feedback", "kolen-pollack")
    assert any(name.startswith("feedback") for name, _ in model.named_parameters()) is learnable


def test_noise_from_the_generator():
    x, y = batch()

    def noisy(seed):
        options = BackwardOptions(generator=torch.Generator().manual_seed(seed))
        fields = {"integrator": "euler", "noise": 0.1, "options": options}
        found = learned(door(**fields), x, y)
        network = Network.from_sequential(chain(), (1, 8, 8))
        options.generator.manual_seed(seed)
        relax_backward(network, x, y, SHORT, **fields)
        for grad, p in zip(found.values(), network.parameters(), strict=True):
            assert relative_error(grad, p.grad) < 1e-12
        return found

    assert difference(noisy(0), noisy(0)) == 0
    assert difference(noisy(0), noisy(1)) > 1e-3


def test_an_empty_batch_has_zero_gradients():
    """As for one process if the batch is smaller than the number of processes."""
    x, y = batch()
    model = door(assumptions="learned-feedback", options=options_for("learned-feedback"))
    found = learned(model, x[:0], y[:0], lambda out, y: out.sum())
    assert all(grad is not None and not grad.any() for grad in found.values())


@pytest.mark.parametrize("name", ["mlp-2x5", "digits-rec"])
def test_an_empty_batch_without_gradients(name):
    model = ActivationRelaxation(build(name, input_shape=(4,), classes=3, generator=0))
    with torch.no_grad():
        assert model(torch.zeros(0, 4)).shape == (0, 3)


def test_divergence_changes_no_gradient():
    case = exploding_case(torch.Generator().manual_seed(0))
    fields = {"assumptions": "random-feedback", "steps": Steps(30, eta=0.5)}
    with pytest.raises(DivergenceError, match="non-finite"):
        F.cross_entropy(ActivationRelaxation(case.network, **fields)(case.x), case.y).backward()
    assert all(p.grad is None for p in case.network.parameters())
    unchecked = ActivationRelaxation(case.network, options=BackwardOptions(check_finite=False), **fields)
    F.cross_entropy(unchecked(case.x), case.y).backward()
    assert not all(p.grad.isfinite().all() for p in case.network.parameters())


@pytest.mark.parametrize("steps", [SHORT, Steps.until(1e-6)])
def test_a_loss_that_is_not_finite_gives_such_gradients(steps):
    """Gradients are non-finite as in any module, so that a GradScaler skips the step."""
    x, y = batch()
    found = learned(door(steps=steps), x, y, scale=torch.inf)
    assert not any(grad.isfinite().all() for grad in found.values())


def test_grad_scaler_skips_what_overflows():
    x, y = batch(double=False)
    model = door(chain(double=False), steps=Steps(100, eta=0.1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    model.loss_scale = scaler.get_scale
    scales, losses = [], []
    for _ in range(30):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        scales.append(scaler.get_scale())
        losses.append(loss.item())
    assert scales[0] < 2.0**24  # the first steps overflow
    assert losses[-1] < 0.9 * losses[0]


def linear_pruned():
    layers = chain()
    prune.l1_unstructured(layers[4], "weight", amount=0.3)
    return layers


def linear_orthogonal():
    layers = chain()
    nn.utils.parametrizations.orthogonal(layers[4])
    return layers


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.layer(x)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Moody(nn.Module):
    """Module that is another function in evaluation mode, or freezes its first layer."""

    def __init__(self, mood):
        super().__init__()
        self.first, self.tanh, self.relu, self.last = nn.Linear(8, 7), nn.Tanh(), nn.ReLU(), nn.Linear(7, 3)
        self.mood = mood

    def forward(self, x):
        with torch.set_grad_enabled(self.mood != "fixed"):
            x = self.first(x)
        if self.mood == "other" and not self.training:
            return self.last(self.relu(x))
        return self.last(self.tanh(x))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda: ActivationRelaxation(torch.tanh, input_shape=(4,)), "module must be a Network or an nn.Module, got"),
        (lambda: ActivationRelaxation(chain()), "input_shape is missing: pass the shape of one sample"),
        (
            lambda: ActivationRelaxation(mlp_case().network, input_shape=(3,)),
            r"of shape \(8,\), got input_shape",
        ),
        (lambda: door(assumptions="continuous"), "use relax_continuously"),
        (lambda: door(assumptions="random-feedback"), "pass options=BackwardOptions"),
        (lambda: door(reduction="none"), "unknown reduction 'none'; known: mean, sum"),
        (lambda: door(reduction="mean", options=BackwardOptions(reduction="sum")), "leave reduction out of options"),
        (lambda: door(options=BackwardOptions(keep=True)), "leave keep out of options, or call relax_backward"),
        (lambda: door(clip=-1.0), "clip must be positive"),
        (lambda: door(eta=0.1), "eta can't be combined with Steps"),
        (lambda: door(steps=3, eta=5.0), "eta must lie between 0 and 2"),
        (lambda: door(noise=0.1), 'it does not support noise: use "euler"'),
        (lambda: door(integrator="equilibrium"), "is a single sweep without time"),
        (lambda: door(steps=SETTLED, integrator="equilibrium", eta=0.05), "is a single sweep without time"),
        (lambda: door(linear_pruned()), "layer '4' has a hook, .* remove it .prune.remove does so for pruning"),
        (lambda: door(linear_orthogonal()), "remove_parametrizations"),
        (lambda: ActivationRelaxation(Residual(), input_shape=(8,)), "Residual is not a chain of layers, .*'add'"),
        (lambda: ActivationRelaxation(Branching(), input_shape=(8,)), "Branching is not supported: use Linear"),
        (
            lambda: ActivationRelaxation(Moody("other"), input_shape=(8,)),
            "Moody does more in evaluation mode than",
        ),
        (lambda: ActivationRelaxation(Moody("fixed"), input_shape=(8,)), "Moody does more in training mode than"),
        (lambda: ActivationRelaxation(door(), input_shape=(1, 8, 8)), "already an ActivationRelaxation"),
        (
            lambda: ActivationRelaxation(chain(), input_shape=8),
            r"positive integers, such as \(3, 32, 32\), got 8",
        ),
        (lambda: door(steps=None), "steps must be a whole number, 0 or more, got None"),
        (lambda: door(nn.Sequential(nn.BatchNorm2d(1))), "BatchNorm2d is not supported"),
        (lambda: relax_backward(chain(), *batch()), "network must be a Network, got Sequential: pass Network.from_seq"),
        (lambda: RelaxationProblem.from_batch(chain(), *batch()), "network must be a Network, got Sequential"),
    ],
)
def test_refused_at_once(given, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        given()


@pytest.mark.parametrize("given", ["input_shape", "example"])
@pytest.mark.parametrize(
    "transform",
    [
        lambda model, x, w: torch.func.grad(lambda w: torch.func.functional_call(model, w, (x,)).sum())(w),
        lambda model, x, w: torch.func.vjp(model, x),
        lambda model, x, w: torch.func.vmap(lambda sample: model(sample[None]))(x),
        lambda model, x, w: torch.func.jvp(model, (x,), (x,)),
    ],
    ids=["grad", "vjp", "vmap", "jvp"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of PyTorch's own jvp
def test_transforms_of_torch_func_are_refused(given, transform):
    x, _ = batch()
    model = ActivationRelaxation(chain(), **{given: (1, 8, 8) if given == "input_shape" else x})
    with pytest.raises(ActrelaxError, match=r"torch\.func \(grad, vmap, jvp, \.\.\.\) can't see a relax"):
        transform(model, x, dict(model.named_parameters()))
    with torch.no_grad():  # nothing relaxes
        each = torch.func.vmap(lambda sample: model(sample[None])[0])(x)
        assert torch.allclose(each, model.module(x))


@pytest.mark.parametrize("given", ["input_shape", "example"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of PyTorch's own jvp
def test_forward_mode_is_refused(given):
    """An autograd function would drop the tangents of a captured module without a word."""
    x, _ = batch()
    model = ActivationRelaxation(chain(), **{given: (1, 8, 8) if given == "input_shape" else x})
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(ActrelaxError, match=r"^forward-mode derivatives \(dual tensors\) can't see a relax"):
            model(dual)
        with torch.no_grad():  # nothing relaxes
            tangents = [torch.autograd.forward_ad.unpack_dual(m(dual)).tangent for m in (model, model.module)]
        assert torch.equal(*tangents)
        assert tangents[0].any()


def test_refused_on_the_way():
    x, y = batch()
    model = door()
    with pytest.raises(ActrelaxError, match="no second derivative: leave create_graph out"):
        torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()), create_graph=True)
    with pytest.raises(ActrelaxError, match="use DistributedDataParallel"):
        model._replicate_for_data_parallel()(x)
    with pytest.raises(ActrelaxError, match=r"must be a torch\.Tensor, got list"):
        model([1.0])
    with pytest.raises(ActrelaxError, match=r"the network takes \(batch, 1, 8, 8\), got"):
        model(x[:, 0])
    prune.l1_unstructured(model.module[4], "weight", amount=0.3)
    with pytest.raises(ActrelaxError, match="layer '4' has a hook"):
        model(x)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_a_compiled_module_is_refused():
    with pytest.raises(ActrelaxError, match="wrap the plain one, then compile the result"):
        ActivationRelaxation(torch.compile(chain()), input_shape=(1, 8, 8))


def with_a_new_head(layers):
    layers[6] = nn.Linear(16, 10)


def with_another_activation(layers):
    layers[5] = nn.ReLU()


def with_another_stride(layers):
    layers[2].stride = 1


def without_a_bias(layers):
    layers[6].bias = None


def with_one_more(layers):
    layers.append(nn.Tanh())


def with_a_backward_hook(layers):
    layers[4].register_full_backward_hook(lambda *_: None)


def parametrised(layers):
    parametrize.register_parametrization(layers[4], "weight", nn.Softplus())


@pytest.mark.parametrize(
    "change",
    [
        with_a_new_head,
        with_another_activation,
        with_another_stride,
        without_a_bias,
        with_one_more,
        with_a_backward_hook,
        parametrised,
    ],
)
def test_a_change_of_the_module_is_noticed(change):
    x, _ = batch()
    model = door()
    change(model.module)
    with pytest.raises(ActrelaxError, match=r"make a new ActivationRelaxation\.$|has a hook|is parametrised"):
        model(x)


def test_tied_weights_may_be_untied():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    layers[2].weight = layers[0].weight
    model = ActivationRelaxation(layers, input_shape=(8,))
    x, y = torch.randn(5, 8), torch.arange(5) % 4
    for _ in range(2):
        expected = {f"module.{name}": grad.clone() for name, grad in learned(layers, x, y).items()}
        assert difference(learned(model, x, y), expected) < 1e-9
        layers[2].weight = nn.Parameter(layers[0].weight.detach() * 1.5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant):
    x, y = batch()
    model = door()
    x.requires_grad_()
    expected = {name: grad.clone() for name, grad in learned(model, x, y).items()}
    found = learned(lambda_module(lambda x: checkpoint(model, x, use_reentrant=reentrant), model), x, y)
    assert difference(found, expected) == 0
    with torch.autograd.graph.save_on_cpu():
        loss = F.cross_entropy(model(x), y)
    model.zero_grad()
    loss.backward(retain_graph=True)
    assert difference(gradients(model), expected) == 0
    loss.backward()
    assert difference(gradients(model), {name: 2 * grad for name, grad in expected.items()}) < 1e-12


def lambda_module(function, model):
    """Return a function that calls the model."""

    class Called(nn.Module):
        def forward(self, x):
            return function(x)

        def named_parameters(self, *_, **__):
            return model.named_parameters()

        def zero_grad(self):
            model.zero_grad()

    return Called()


def test_what_is_refused_changes_nothing():
    case = mlp_case()
    generator = torch.Generator().manual_seed(0)
    before, names = generator.get_state(), list(case.network.state_dict())
    options = BackwardOptions(generator=generator)
    for refused in ({"clip": -1.0}, {"assumptions": "kolen-pollack"}, {"steps": 3, "eta": 5.0}):
        with pytest.raises(ActrelaxError):
            ActivationRelaxation(case.network, **{"assumptions": "learned-feedback", "options": options} | refused)
        assert list(case.network.state_dict()) == names
        assert torch.equal(generator.get_state(), before)


def test_copies_of_a_sweep():
    x, y = batch()
    model = ActivationRelaxation(chain(), input_shape=(1, 8, 8), integrator="equilibrium")
    expected = {name: grad.clone() for name, grad in learned(model, x, y).items()}
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert difference(learned(other, x, y), expected) == 0


def test_a_step_size_alone_keeps_the_default_length():
    model = ActivationRelaxation(chain(), input_shape=(1, 8, 8), eta=0.05)
    assert "steps=Steps.until(1e-06, of='activity', eta=0.05, most=10000)" in repr(model)
    timed = ActivationRelaxation(chain(), input_shape=(1, 8, 8), dt=0.5, duration=3.0)
    assert "steps=Steps(dt=0.5, duration=3.0)" in repr(timed)


def test_an_empty_batch_behind_other_layers():
    """Other layers see the empty batch, too; also without gradients, and in another precision."""
    x, _ = batch()
    front = nn.Conv2d(1, 1, 1)
    model = door()
    model(front(x[:0])).sum().backward()
    assert front.weight.grad is not None
    with torch.no_grad():
        assert model(x[:0]).shape == (0, 10)
    with torch.autocast("cpu", torch.bfloat16):
        half = door(chain(double=False))(x[:0].float())
    assert half.dtype is torch.bfloat16


@pytest.mark.parametrize("scale", [0, -1.0, torch.inf, torch.nan, "2", None, torch.ones(3)])
def test_a_scale_that_is_none(scale):
    x, _ = batch()
    model = door()
    model.loss_scale = scale
    with pytest.raises(ActrelaxError, match="loss_scale must be a positive number"):
        model(x)


def test_autocast_leaves_double_precision_alone():
    x, y = batch()
    model = door()
    expected = {name: grad.clone() for name, grad in learned(model, x, y).items()}
    with torch.autocast("cpu", torch.bfloat16):
        assert difference(learned(model, x, y), expected) == 0


@pytest.mark.parametrize("grad_mode", [True, False])
def test_a_network_behind_a_layer_under_autocast(grad_mode):
    case = graph_case()
    model = ActivationRelaxation(case.network.float())
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad_mode):
        assert model(case.x.to(torch.bfloat16)).dtype is torch.bfloat16


def test_the_network_has_the_current_weights():
    model = door()
    other = {name: 2 * w for name, w in model.state_dict().items()}
    model.load_state_dict(other, assign=True)
    assert model.network.projections["input->conv1"].weight is model.module[0].weight


@pytest.mark.parametrize("name", ["steps", "assumptions"])
def test_what_cannot_be_set(name):
    model = door()
    before = getattr(model, name)
    with pytest.raises(AttributeError):
        setattr(model, name, before)


def test_it_says_what_it_is():
    assert "assumptions='ar', integrator='sequential', steps=Steps(12, eta=0.2)" in repr(door())
