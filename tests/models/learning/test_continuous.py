"""Plasticity during the relaxation. Oracle: the loop written out, one step of the torch engine at a time."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, backprop_backward, relax_backward, relax_continuously
from actrelax.models.results import relative_error


def changes(case, **options):
    """Return the changes of all parameters by one call, which leaves the case unchanged."""
    network = copy.deepcopy(case.network)
    relax_continuously(network, case.x, case.y, **options)
    before = case.network.state_dict()
    return {name: value - before[name] for name, value in network.state_dict().items()}


def test_equals_the_loop_written_out():
    """Sequential sweep with weight updates after each step; feedback uses the updated weights."""
    case = mlp_case()
    rate, n, eta = 0.8, 12, 0.2
    W = [p.weight.detach().clone() for p in case.network.projections.values()]
    b = [p.bias.detach().clone() for p in case.network.projections.values()]
    activities, gains = [case.x], []
    for i in range(4):
        a = activities[-1] @ W[i].T + b[i]
        activities.append(torch.tanh(a) if i < 3 else a)
        gains.append(1 - torch.tanh(a) ** 2 if i < 3 else torch.ones_like(a))
    clamp = torch.softmax(activities[-1], 1) - torch.nn.functional.one_hot(case.y, 4)
    x = [torch.zeros_like(h) for h in activities[1:-1]] + [clamp]
    for _ in range(n):
        for i in (2, 1, 0):
            x[i] = (1 - eta) * x[i] + eta * (gains[i + 1] * x[i + 1]) @ W[i + 1]
        for i in range(4):
            post = gains[i] * x[i]
            W[i] = W[i] - rate / n * post.T @ activities[i] / 3
            b[i] = b[i] - rate / n * post.sum(0) / 3
    relax_continuously(case.network, case.x, case.y, rate=rate, steps=n, eta=eta)
    for i, p in enumerate(case.network.projections.values()):
        assert relative_error(p.weight, W[i]) < 1e-13
        assert relative_error(p.bias, b[i]) < 1e-13


def test_from_zero_the_change_is_parallel_to_the_gradient():
    case = mlp_case(gain=0.3)
    exact = copy.deepcopy(case.network)
    backprop_backward(exact, case.x, case.y)
    lowest = exact.projections["input->hidden1"].weight.grad.flatten()
    cosine = torch.nn.functional.cosine_similarity
    zero = changes(case, rate=1e-4, steps=100)["input->hidden1.weight"].flatten()
    assert cosine(-zero, lowest, dim=0) > 0.999
    with pytest.warns(UserWarning, match="^continuous plasticity from a start other than zero"):
        feedforward = changes(case, rate=1e-4, steps=100, start="feedforward")["input->hidden1.weight"].flatten()
    assert cosine(-feedforward, lowest, dim=0) < 0.9


@pytest.mark.parametrize("preset", ["learned-feedback", "random-feedback", "sign-feedback", "unfrozen"])
def test_other_knobs_go_with_it(preset, generator):
    case = graph_case()
    preset = PRESETS[preset]
    assumptions = replace(
        preset, dense=replace(preset.dense, plasticity="continuous"), conv=replace(preset.conv, plasticity="continuous")
    )
    plain = changes(case, rate=0.1, steps=12, eta=0.2)
    case.network.add_feedback(assumptions, generator)
    other = changes(case, rate=0.1, steps=12, eta=0.2, assumptions=assumptions)
    assert relative_error(other["input->conv1.weight"], plain["input->conv1.weight"]) > 1e-3
    learned = [name for name in other if name.endswith(".feedback") and other[name].dim()]
    for name in learned:
        weight = name.replace("feedback", "weight")
        expected = other[weight] if preset is PRESETS["learned-feedback"] else torch.zeros_like(other[weight])
        assert relative_error(1 + other[name], 1 + expected) < 1e-13


def test_timing_is_a_knob_of_each_kind():
    """Dense weights change during the relaxation, convolutions once after it, at the full rate."""
    case = graph_case()
    mixed = replace(PRESETS["ar"], dense=Knobs(plasticity="continuous"))
    during = changes(case, rate=0.1, steps=12, eta=0.2)
    after = changes(case, rate=0.1, steps=12, eta=0.2, assumptions=mixed)
    assert relative_error(after["hidden3->output.weight"], during["hidden3->output.weight"]) < 1e-12
    # convolutions now learn from the last state only, not from the mean over the rise from zero
    ratio = after["conv1->conv2.weight"].norm() / during["conv1->conv2.weight"].norm()
    assert ratio > 1.3
    tiny = changes(case, rate=1e-7, steps=12, eta=0.2, assumptions=mixed)["conv1->conv2.weight"]
    network = copy.deepcopy(case.network)
    relax_backward(network, case.x, case.y, steps=12, eta=0.2, start="zero")
    assert relative_error(tiny, -1e-7 * network.projections["conv1->conv2"].weight.grad) < 1e-5


def test_fields_and_decay_are_passed_on(generator):
    case = mlp_case()
    base = changes(case, rate=0.1, steps=12, eta=0.2)["input->hidden1.weight"]
    for fields in ({"clip": 0.01, "eta": 0.2}, {"tau": {"hidden1": 3.0}, "dt": 0.2}):
        assert relative_error(changes(case, rate=0.1, steps=12, **fields)["input->hidden1.weight"], base) > 1e-3
    knobs = Knobs(feedback="kolen-pollack", plasticity="continuous")
    case.network.add_feedback(Assumptions(dense=knobs), generator)
    with pytest.raises(ActrelaxError, match="needs a decay rate"):
        changes(case, rate=0.1, assumptions=Assumptions(dense=knobs))
    p = case.network.projections["hidden1->hidden2"]
    offset = (p.weight - p.feedback).detach()
    relax_continuously(
        case.network,
        case.x,
        case.y,
        rate=0.1,
        steps=10,
        assumptions=Assumptions(dense=knobs),
        options=BackwardOptions(Updates(decay=0.5)),
    )
    assert relative_error(p.weight - p.feedback, (1 - 0.1 / 10 * 0.5) ** 10 * offset) < 1e-12


def test_updates_are_applied():
    case = graph_case()
    mean = changes(case, rate=1e-6)
    total = changes(case, rate=1e-6, options=BackwardOptions(Updates(factors={"conv": 2.0}), "sum"))
    assert relative_error(total["input->conv1.weight"], 6 * mean["input->conv1.weight"]) < 1e-4
    assert relative_error(total["hidden3->output.weight"], 3 * mean["hidden3->output.weight"]) < 1e-4


def test_grad_is_not_used():
    case = mlp_case()
    result = relax_continuously(case.network, case.x, case.y, rate=0.1)
    assert all(p.grad is None for p in case.network.parameters())
    assert result.trajectory is None


def test_learns():
    case = mlp_case()
    losses = [float(relax_continuously(case.network, case.x, case.y, rate=0.5).loss) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]


def test_what_is_refused_changes_nothing():
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"^rate must be positive, got 0\.$"):
        changes(case, rate=0)
    with pytest.raises(ActrelaxError, match=r'needs an integrator with steps in time, got "equilibrium"'):
        changes(case, rate=0.1, integrator="equilibrium")
    before = copy.deepcopy(case.network.state_dict())
    with pytest.raises(ActrelaxError, match=r"^population \"hidden\d\" became non-finite: lower rate or eta; no"):
        relax_continuously(case.network, case.x, case.y, rate=1e200)
    assert all(torch.equal(value, before[name]) for name, value in case.network.state_dict().items())


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


def test_continuous_plasticity_with_noise_written_out():
    case, rate, n, eta, sigma = mlp_case(), 0.8, 12, 0.2, 0.3
    W = [p.weight.detach().clone() for p in case.network.projections.values()]
    passed = case.network.feedforward(case.x)
    activities = [x.detach() for x in passed.activities.values()]
    gains = [1 - x**2 for x in activities[1:-1]] + [torch.ones_like(activities[-1])]
    clamp = torch.softmax(activities[-1], 1) - torch.nn.functional.one_hot(case.y, 4)
    x, source = [torch.zeros_like(h) for h in activities[1:-1]] + [clamp], seeded()
    for _ in range(n):
        x = [(1 - eta) * x[i] + eta * (gains[i + 1] * x[i + 1]) @ W[i + 1] for i in range(3)] + [clamp]
        for i in (2, 1, 0):
            x[i] = x[i] + sigma * math.sqrt(2 * eta) * torch.randn(x[i].shape, generator=source)
        for i in range(4):
            W[i] = W[i] - rate / n * (gains[i] * x[i]).T @ activities[i] / 3
    silent = copy.deepcopy(case.network)
    options = {"rate": rate, "steps": n, "eta": eta, "integrator": "euler"}
    relax_continuously(silent, case.x, case.y, **options)
    relax_continuously(
        case.network, case.x, case.y, noise=sigma, options=BackwardOptions(generator=seeded()), **options
    )
    for i, (p, q) in enumerate(zip(case.network.projections.values(), silent.projections.values(), strict=True)):
        assert relative_error(p.weight, W[i]) < 1e-13
        assert i == 3 or relative_error(q.weight, W[i]) > 1e-3
