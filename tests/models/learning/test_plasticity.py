"""The local rule: the values that an update uses. Oracles: the product written out, the steps."""

import copy
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import exploding_case, graph_case, make_case, mlp_case
from torch import nn

from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.engines import solve
from actrelax.models.learning import BackwardOptions, Updates, relax_backward
from actrelax.models.learning import relax as learning
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import DivergenceError, relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


def relaxed(case, seed=4, steps=12, dt=0.2, **fields):
    return solve(problem_of(case, **fields), "euler", steps=steps, dt=dt, generator=seeded(seed))


def test_current_presynaptic_activity_is_the_noisy_input_itself():
    case = mlp_case()
    options = {"integrator": "euler", "steps": 12, "eta": 0.2, "assumptions": "current-presynaptic"}
    result = relax_backward(
        case.network, case.x, case.y, input_noise=0.5, options=BackwardOptions(generator=seeded(), keep=True), **options
    )
    state, passed = result.trajectory.state, case.network.feedforward(case.x)
    gain = 1 - torch.tanh(passed.drives["hidden1"]) ** 2
    found = case.network.projections["input->hidden1"].weight.grad
    expected = (gain * state["hidden1"]).T @ state["input"] / 3
    assert relative_error((gain * state["hidden1"]).T @ case.x / 3, expected) > 1e-3
    assert relative_error(found, expected) < 1e-13


def test_updates_come_from_the_noisy_state():
    case = mlp_case()
    options = {"integrator": "euler", "steps": 12, "eta": 0.2}
    relax_backward(case.network, case.x, case.y, noise=0.3, options=BackwardOptions(generator=seeded()), **options)
    final = relaxed(case, noise=0.3).final
    gain = 1 - torch.tanh(case.network.feedforward(case.x).drives["hidden1"]) ** 2
    expected = (gain * final["hidden1"]).T @ case.x / 3
    assert relative_error(case.network.projections["input->hidden1"].weight.grad, expected) < 1e-13


def gradients(rule, case, **options):
    network = copy.deepcopy(case.network)
    rule(network, case.x, case.y, **options)
    return {name: p.grad for name, p in network.named_parameters()}


FROZEN = {
    name: p
    for name, p in PRESETS.items()
    if not p.is_continuous and all(k.activity_gain != "current" for k in p.all_knobs)
}


BELOW = Assumptions(*[Knobs(feedback="learned", weight_gain="current", presynaptic="current")] * 2)
"""Assumptions under which the rule uses later values: the current drive and presynaptic activity."""


def image_case():
    edges = [
        ("input", "conv1", [nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2)]),
        ("conv1", "conv2", [nn.Conv2d(4, 3, 3, padding=1), nn.AvgPool2d(2)]),
        ("conv2", "hidden1", [nn.Flatten(), nn.Linear(12, 7)]),
        ("hidden1", "hidden2", [nn.Linear(7, 6)]),
        ("hidden2", "output", [nn.Linear(6, 5)]),
    ]
    activations = {"conv1": "tanh", "conv2": "relu", "hidden1": "softplus", "hidden2": "sigmoid", "output": "identity"}
    return make_case((2, 8, 8), activations, edges, gain=2.0)


@pytest.mark.parametrize("make", [image_case, graph_case], ids=["chain", "graph"])
@pytest.mark.parametrize("name", [*FROZEN, "below"])
@pytest.mark.parametrize("integrator", ["euler", "sequential", "equilibrium"])
def test_streamed_updates_are_those_of_the_steps(name, make, integrator, generator):
    """Weights, biases and psi learn by the same rule from the same state, in whatever order populations arrive."""
    case, assumptions = make(), BELOW if name == "below" else name
    case.network.add_feedback(assumptions, generator)
    decay = {"decay": 0.01} if name == "kolen-pollack" else {}
    options = {"assumptions": assumptions, "integrator": integrator}
    if integrator != "equilibrium":
        options |= {"steps": 9, "eta": 0.2}
    for common in (
        BackwardOptions(Updates(**decay), "sum"),
        BackwardOptions(Updates(factors={"conv": 2.0}, clip=0.02, **decay)),
    ):
        stepped = gradients(relax_backward, case, options=replace(common, evaluation="stepped"), **options)
        assert any(parameter.endswith(".feedback") for parameter in stepped) == ("learned" in str(case.network))
        for more in ({}, {"evaluation": "closed-form"}, {"keep": True}, {"check_finite": False}):
            streamed = gradients(relax_backward, case, options=replace(common, **more), **options)
            for parameter, gradient in stepped.items():
                assert relative_error(streamed[parameter], gradient) < 1e-12, parameter
    # the clip is active, and decay follows it
    assert name == "kolen-pollack" or any(gradient.abs().max() == 0.02 for gradient in stepped.values())


def test_the_rule_reads_what_arrives_later(generator):
    """Current gains and activities differ from the feedforward ones, which the test above relies on."""
    case = graph_case()
    case.network.add_feedback(BELOW, generator)
    options = {"steps": 9, "eta": 0.2}
    current = gradients(relax_backward, case, assumptions=BELOW, **options)
    frozen = gradients(relax_backward, case, assumptions="learned-feedback", **options)
    assert relative_error(current["conv2->conv3.weight"], frozen["conv2->conv3.weight"]) > 1e-2


@pytest.mark.parametrize("evaluation", ["stepped", "closed-form"])
@pytest.mark.parametrize("make", [mlp_case, graph_case])
def test_a_sample_without_a_loss_gradient_adds_nothing(make, evaluation):
    """Its remaining initial activities must not change weights."""
    case, without = make(), make()
    output = case.network(case.x).detach()
    target = torch.stack([output[0] + 1, output[1], output[2] + 1])
    without.x, without.y, case.y = case.x[[0, 2]], target[[0, 2]], target
    options = BackwardOptions(reduction="sum", evaluation=evaluation)
    found, expected = (
        gradients(relax_backward, each, loss="sum-of-squares", steps=9, options=options) for each in (case, without)
    )
    for parameter, gradient in expected.items():
        assert relative_error(found[parameter], gradient) < 1e-13, parameter


@pytest.mark.parametrize(
    "how", [{}, {"options": BackwardOptions(keep=True)}, {"options": BackwardOptions(evaluation="stepped"), "steps": 3}]
)
def test_frozen_projections_hide_no_divergence(generator, how):
    case = exploding_case(generator)
    for p in list(case.network.projections.values())[:2]:
        p.requires_grad_(False)
    options = {"assumptions": "random-feedback", "integrator": "euler", "eta": 0.5, "steps": 50} | how
    with pytest.raises(DivergenceError, match=r'^population "hidden\d" became non-finite at step \d of '):
        relax_backward(case.network, case.x, case.y, **options)


def test_an_activity_behind_a_closed_gain_shows_as_presynaptic_factor():
    """relu's kernel maps an infinite signal to 0, but the update above uses the activity itself."""
    case = mlp_case("relu")
    below, above = list(case.network.projections.values())[:2]
    with torch.no_grad():
        below.bias[0] = -1e3  # its first unit is silent
        above.weight[:, 0] = 1e308
    options = {"assumptions": "current-presynaptic", "integrator": "equilibrium"}
    with pytest.raises(DivergenceError, match=r'^population "hidden1" became non-finite at step 1 of 1'):
        relax_backward(case.network, case.x, case.y, loss=lambda *batch: 1e3 * half_squares(*batch), **options)
    assert all(w.grad is None for w in case.network.parameters())


def half_squares(output, y):
    return (output - F.one_hot(y, output.shape[1])).square().sum(1) / 2


def test_an_update_that_overflows_is_named():
    """Activities of 1e160 are finite, but their products with presynaptic rates of 1e160 are not."""
    module = nn.Sequential(nn.Linear(3, 2, bias=False), nn.LeakyReLU(), nn.Linear(2, 2, bias=False))
    network = Network.from_sequential(module, (3,))
    options = {"loss": lambda output, y: 1e160 * output.sum(1), "integrator": "equilibrium"}
    with pytest.raises(
        DivergenceError, match=r"^the update of projection 'input->hidden1' is not finite, although all "
    ):
        relax_backward(network, torch.full((4, 3), 1e160), torch.zeros(4), **options)
    assert all(w.grad is None for w in network.parameters())


@pytest.mark.parametrize(
    ("assumptions", "most"), [("ar", 2), ("unfrozen-weights", 3), ("current-presynaptic", 3)], ids=lambda x: str(x)
)
@pytest.mark.parametrize("integrator", ["equilibrium", "sequential"])
def test_populations_are_freed_as_they_are_used(monkeypatch, assumptions, most, integrator):
    """Two populations are alive at a time, or three if the rule uses both ends of a projection."""
    alive: list[weakref.ref] = []
    counts = []

    def watched(problem, plan):
        for relaxed in original(problem, plan):
            alive.extend(weakref.ref(x) for name, x in relaxed.state.items() if name != problem.network.output)
            counts.append(sum(reference() is not None for reference in alive))
            yield relaxed

    original = learning.stream
    monkeypatch.setattr(learning, "stream", watched)
    case = mlp_case(widths=(6,) * 12)
    options = {} if integrator == "equilibrium" else {"steps": 30}
    relax_backward(case.network, case.x, case.y, assumptions=assumptions, integrator=integrator, **options)
    assert len(counts) == 11
    assert 1 <= max(counts) <= most
    assert sum(reference() is not None for reference in alive) == 0


def test_what_arrives_at_the_output_alone_counts_as_well():
    """Targets of nan make the clamp non-finite."""
    case = mlp_case(widths=(5, 4))
    y = torch.zeros(3, 4)
    y[1, 2] = float("nan")
    result = relax_backward(case.network, case.x, y, loss="sum-of-squares", options=BackwardOptions(check_finite=False))
    assert not bool(result.finite)
