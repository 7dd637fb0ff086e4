"""The `torch.autograd` function: arguments of the relaxation in its backward pass, and returned gradients."""

import pytest
import torch
from networks import graph_case, mlp_case

from actrelax.models.closed_form import PopulationState
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.autograd import InputFeedback, feedforward
from actrelax.models.problem import RelaxationProblem


def weights_of(network):
    return [getattr(network.projections[name], slot) for name, slot in network.slots]


def passed_forward(network, x):
    return network.feedforward(x, keep_drives=False)


def doubled(network, passed, gradient, wants_input):
    """Return twice the weights, instead of a relaxation."""
    found = {(name, slot): 2 * getattr(network.projections[name], slot) for name, slot in network.slots}
    return found, passed.activities[network.input] if wants_input else None


def test_the_relaxation_gets_the_feedforward_pass_and_the_gradient():
    case, seen = graph_case(), []

    def relax(network, passed, gradient, wants_input):
        seen.append((network, passed, gradient, wants_input))
        return {}, None

    output = feedforward(case.network, passed_forward, relax, case.x, weights_of(case.network))
    top = torch.randn_like(output)
    output.backward(top)
    ((network, passed, gradient, wants_input),) = seen
    expected = case.network.feedforward(case.x, keep_drives=False)
    assert network is case.network
    assert wants_input is False
    assert torch.equal(gradient, top)
    assert torch.equal(output, expected.activities["output"])
    assert all(torch.equal(x, expected.activities[name]) for name, x in passed.activities.items())
    assert all(torch.equal(x, expected.drives[name]) for name, x in passed.drives.items())
    assert passed.activities.keys() == expected.activities.keys()
    assert passed.routes.keys() == expected.routes.keys()


def test_gradients_go_to_their_weights_and_the_input():
    case = mlp_case()
    x = case.x.clone().requires_grad_()
    others = [(w + 1).detach().requires_grad_() for w in weights_of(case.network)]
    feedforward(case.network, passed_forward, doubled, x, others).sum().backward()
    assert torch.equal(x.grad, x)
    assert all(torch.equal(w.grad, 2 * w) for w in others)
    assert all(p.grad is None for p in case.network.parameters())


def test_refuses_a_second_derivative():
    case = mlp_case()
    output = feedforward(case.network, passed_forward, doubled, case.x, weights_of(case.network))
    with pytest.raises(ActrelaxError, match="no second derivative"):
        output.sum().backward(create_graph=True)
    assert all(p.grad is None for p in case.network.parameters())


def test_feedback_to_the_input_is_that_of_the_problem():
    """Feedback arrives in parts, and is computed again if the populations arrive again."""
    case = graph_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    state = problem.initial_state()
    watch = InputFeedback(problem)
    names = [*case.network.hidden, case.network.output]
    for _ in range(2):
        arrivals = [PopulationState((name,), {name: problem.initial_activity(name)}) for name in names[::-1]]
        assert list(watch(iter(arrivals))) == arrivals
        assert torch.allclose(watch.total, problem.feedback("input", state), rtol=1e-12)
