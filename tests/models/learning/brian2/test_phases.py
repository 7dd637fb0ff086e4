"""Both phases of networks with cycles in one Brian2 run, against PyTorch step by step and implicit gradients."""

import copy

import pytest
import torch
from networks import conv_recurrent_case, hierarchy_case, mlp_case, recurrent_case
from torch import nn

from actrelax.analysis.implicit_gradients import implicit_gradients
from actrelax.models.engines import Settle, Steps, settle, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import postsynaptic_factor, presynaptic_factor
from actrelax.models.learning.brian2 import Learner, Phases
from actrelax.models.network import build
from actrelax.models.problem import ForwardProblem, RelaxationProblem
from actrelax.models.results import relative_error

LOSS = "half-sum-of-squares"


def hierarchy():
    return hierarchy_case(stem="softplus")  # gelu has no formula


def fixed_convolutions():
    case = conv_recurrent_case(pool=nn.AvgPool2d)
    for parameter in case.network.parameters():
        parameter.requires_grad_(False)
    return case


def run_in_torch(case, x, y, phases, start, *, loss, assumptions="ar"):
    """Return the states of a forward phase from `start`, the relaxation that it ends in, and its states."""
    network, taus = case.network, phases.taus(case.network)
    forward = {name: tau / phases.feedforward_eta for name, tau in taus.items()}
    problem = ForwardProblem(network, x, tau=forward, start=start)
    rising = solve(problem, "euler", Steps(phases.feedforward_steps, dt=1.0), record=True)
    held = problem.feedforward_pass(rising.state)
    tau = {name: taus[name] for name in network.hidden}
    relaxation = RelaxationProblem.from_batch(network, held, y, loss=loss, tau=tau, assumptions=assumptions)
    return rising, relaxation, solve(relaxation, "euler", Steps(phases.steps, dt=phases.eta), record=True)


def zero(network, output=None):
    shapes = {name: network.populations[name].shape for name in [*network.hidden, network.output]}
    return {name: torch.zeros(1, *shape) for name, shape in shapes.items()}


TAUS = {
    "dense": (recurrent_case, {"a": 0.7, "output": 1.5}),
    "hierarchy": (hierarchy, {"a": 1.3, "b": torch.linspace(0.6, 1.8, 6, dtype=torch.float64), "c": 0.8, "stem": 0.5}),
    "convolutions": (fixed_convolutions, {"a": 0.8, "b": 1.4, "read": 0.6}),
    "no cycle": (mlp_case, {"hidden1": 0.7, "hidden3": 1.6}),
}


@pytest.mark.parametrize("name", TAUS)
@pytest.mark.parametrize("loss", [LOSS, "cross-entropy"])
def test_both_phases_equal_pytorch_step_by_step(name, loss):
    make, tau = TAUS[name]
    case = make()
    phases = Phases(steps=60, eta=0.2, feedforward_steps=40, feedforward_eta=0.3, tau=tau)
    learner = Learner(case.network, rate=0.1, loss=loss, phases=phases)
    x, y = case.x[:1], case.y[:1]
    seen = learner.watch(x, y)
    rising, _, falling = run_in_torch(case, x, y, phases, zero(case.network), loss=loss)
    for population in case.network.hidden:
        expected = torch.cat([rising[population][1:], falling[population][1:]])[:, 0].flatten(1)
        assert relative_error(seen[population][:-1], expected) < 1e-12
    expected = rising["output"][1:][:, 0].flatten(1)
    assert relative_error(seen["output"][: phases.feedforward_steps], expected) < 1e-12


def test_responses_have_no_lag():
    """The output's held rate is f(a(r)), not the rate of its own leaky unit."""
    case = recurrent_case()
    phases = Phases(feedforward_steps=5, feedforward_eta=0.3)
    found = Learner(case.network, rate=0.1, loss=LOSS, phases=phases).respond(case.x[:1])
    rising, relaxation, _ = run_in_torch(case, case.x[:1], case.y[:1], phases, zero(case.network), loss=LOSS)
    assert relative_error(found, relaxation.feedforward.activities["output"].detach()) < 1e-13
    assert relative_error(found, rising.final["output"]) > 0.1


@pytest.mark.parametrize("name", ["dense", "hierarchy", "convolutions"])
def test_it_rests_at_the_implicit_gradient(name):
    make, tau = TAUS[name]
    case = make()
    phases = Phases(steps=300, eta=0.4, feedforward_steps=300, feedforward_eta=0.4, tau=tau)
    seen = Learner(case.network, rate=0.1, loss=LOSS, phases=phases).watch(case.x[:1], case.y[:1])
    rates = settle(case.network, case.x[:1], Settle(Steps.until(1e-13, eta=0.5)))
    for population, gradient in implicit_gradients(case.network, rates, case.y[:1], loss=LOSS).items():
        if population != case.network.output:
            assert relative_error(seen[population][-1], gradient.flatten()) < 1e-11


def learn_in_torch(case, x, y, phases, rate, assumptions):
    """Learn from one stimulus after another, each from the last one's final state; return the outputs."""
    network, start, outputs = case.network, zero(case.network), []
    for k in range(len(x)):
        _, relaxation, falling = run_in_torch(
            case, x[k : k + 1], y[k : k + 1], phases, start, loss="cross-entropy", assumptions=assumptions
        )
        outputs.append(relaxation.feedforward.activities["output"].detach())
        updates = {
            name: p.plasticity(
                presynaptic_factor(relaxation, p, falling.state), postsynaptic_factor(relaxation, p, falling.state)
            )
            for name, p in network.projections.items()
        }
        with torch.no_grad():
            for name, p in network.projections.items():
                for slot, update in updates[name].items():
                    getattr(p, slot).sub_(rate * update)
                if p.feedback is not None and p.feedback_is_learned:
                    p.feedback.sub_(rate * updates[name]["weight"])
        start = zero(network) | {name: falling.final[name] for name in network.hidden}
    return torch.cat(outputs)


@pytest.mark.parametrize(
    "assumptions", ["ar", "learned-feedback", "random-feedback", "sign-feedback", "no-derivatives"]
)
@pytest.mark.parametrize("make", [recurrent_case, hierarchy])
def test_it_learns_as_in_pytorch(make, assumptions):
    case = make()
    case.network.add_feedback(assumptions, torch.Generator().manual_seed(3))
    other, first = copy.deepcopy(case), copy.deepcopy(case.network)
    phases = Phases(steps=25, eta=0.2, feedforward_steps=30, feedforward_eta=0.4)
    x = torch.randn(4, *case.x.shape[1:], generator=torch.Generator().manual_seed(4))
    y = torch.arange(4)
    found = Learner(case.network, rate=0.05, assumptions=assumptions, phases=phases).learn(x, y)
    expected = learn_in_torch(other, x, y, phases, 0.05, assumptions)
    assert relative_error(found, expected) < 1e-12
    weights = zip(case.network.state_dict().items(), other.network.state_dict().values(), strict=True)
    assert all(relative_error(w, v) < 1e-12 for (_, w), v in weights)
    assert relative_error(case.network.projections["a->a"].weight, first.projections["a->a"].weight) > 1e-3


def test_a_network_by_name_learns():
    network = build("digits-rec", generator=0)
    x = torch.rand(4, 64, generator=torch.Generator().manual_seed(0))
    phases = Phases(steps=30, eta=0.3, feedforward_steps=30, feedforward_eta=0.3)
    learner = Learner(network, rate=0.1, phases=phases)
    y, every = torch.tensor([3, 1, 4, 1]), []
    for _ in range(5):
        every.append(float(nn.functional.cross_entropy(learner.learn(x, y), y)))
    assert every[-1] < 0.5 * every[0]


@pytest.mark.parametrize(
    ("tau", "sentence"),
    [
        ({"a": 0.1}, "eta and feedforward_eta must be below twice the tau of 'a', 0.1: take smaller steps."),
        ({"b": 1.0}, "tau names an unknown population 'b'; known: a, output."),
        ({"a": 0.0}, "tau of 'a' must be positive, got 0."),
    ],
)
def test_time_constants_are_checked(tau, sentence):
    with pytest.raises(ActrelaxError) as refused:
        Learner(recurrent_case().network, rate=0.1, phases=Phases(eta=0.2, feedforward_steps=9, tau=tau))
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    "options", [{"feedforward_eta": 0.5}, {"tau": {"hidden2": 1.5}}, {"tau": {"hidden2": torch.linspace(0.9, 1, 6)}}]
)
def test_rates_that_settle_over_many_steps_need_a_number_of_steps(options):
    """After as many steps as there are layers they would be wrong."""
    network = mlp_case().network
    with pytest.raises(ActrelaxError, match=r"^the rates of 'hidden.' need many steps to settle, since its tau is not"):
        Learner(network, rate=0.1, phases=Phases(**options))
    assert Learner(network, rate=0.1, phases=Phases(feedforward_steps=30, **options)).feedforward_steps == 30


def test_each_step_may_compute_one_layer_at_any_tau():
    case = mlp_case()
    learner = Learner(case.network, rate=0.1, phases=Phases(feedforward_eta=0.5, tau=0.5))
    assert relative_error(learner.respond(case.x), case.network(case.x).detach()) < 1e-12


def test_fixed_projections_have_transposed_feedback():
    case = fixed_convolutions()
    case.network.add_feedback("random-feedback", torch.Generator().manual_seed(0))
    phases = Phases(feedforward_steps=9)
    with pytest.raises(ActrelaxError, match=r"'a->a' is Conv2d.*: choose feedback=\"transpose\" for it\.$"):
        Learner(case.network, rate=0.1, assumptions="random-feedback", phases=phases)
