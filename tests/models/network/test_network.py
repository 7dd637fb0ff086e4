"""A Network is an ordinary PyTorch module, and explains invalid graphs."""

import copy
import pickle

import pytest
import torch
from networks import graph_case, mlp_case
from torch import nn

from actrelax.models.engines import Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, relax_backward
from actrelax.models.network import Network, Projection, build


def linear(source, target, name=None):
    return Projection(source, target, nn.Linear(3, 3), name=name)


@pytest.mark.parametrize(
    ("populations", "projections", "sentence"),
    [
        (
            "ab",
            [("input", "a"), ("a", "b"), ("b", "a")],
            r"outside all cycles, but the cycle of 'a', 'b' feeds no other .*, such as Projection\('b', 'output'\)\.$",
        ),
        ("a", [("input", "a"), ("a", "a")], r"outside all cycles, but the cycle of 'a' feeds no other population"),
        (
            "abco",
            [("input", "a"), ("a", "b"), ("b", "a"), ("c", "c"), ("c", "b"), ("b", "o")],
            r"nothing outside their cycle drives 'c': add a projection from 'input' to one\.$",
        ),
        (
            "abcdo",
            [("input", "a"), ("a", "b"), ("a", "c"), ("c", "d"), ("d", "c"), ("b", "o")],
            r"outside all cycles, but the cycle of 'c', 'd' feeds no other population",
        ),
        ("ab", [("input", "b")], r"nothing drives population 'a': add a projection to it"),
        (
            "ab",
            [("input", "a"), ("input", "b")],
            r"exactly one population, the output, must feed no other, got \['a', 'b'\]",
        ),
        ("a", [("input", "c")], r"projection 'input->c' names an unknown population 'c'; known: \['input', 'a'\]"),
        ("a", [("input", "a"), ("a", "input")], r"projection 'a->input' drives the input"),
        ("a", [("input", "a"), ("input", "a")], r"two projections are called 'input->a': give one of them another"),
        ("a", [("input", "a", "x.y")], r"a projection can't be called 'x.y': choose another name"),
        ("a", [("input", "a", "forward")], r"a projection can't be called 'forward': choose another name"),
        (["input"], [("input", "input")], r"the population 'input' is made from input_shape"),
    ],
)
def test_graphs_that_are_none(populations, projections, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        Network((3,), dict.fromkeys(populations, "tanh"), [linear(*p) for p in projections])


def test_stimuli_that_do_not_fit():
    network = Network((4,), {"a": "tanh"}, [Projection("input", "a", nn.Linear(4, 3))])
    with pytest.raises(ActrelaxError, match=r"^the network takes \(batch, 4\), got \(2, 5\)\.$"):
        network(torch.zeros(2, 5))
    with pytest.raises(ActrelaxError, match=r"^a batch needs at least one sample, got stimuli of shape \(0, 4\)"):
        network(torch.zeros(0, 4))
    with pytest.raises(ActrelaxError, match=r"^stimuli must be a torch.Tensor, got list: use torch.as_tensor\.$"):
        network([[0.0] * 4])
    with pytest.raises(ActrelaxError, match=r"weights are torch.float64 on cpu, got stimuli of torch.uint8 on cpu"):
        network(torch.zeros(2, 4, dtype=torch.uint8))


def test_state_dict_keys_are_projection_names():
    assert set(mlp_case().network.state_dict()) == {
        f"{edge}.{kind}"
        for edge in ("input->hidden1", "hidden1->hidden2", "hidden2->hidden3", "hidden3->output")
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_are_independent(copied):
    case = graph_case()
    twin = copied(case.network)
    assert torch.equal(twin(case.x), case.network(case.x))
    relax_backward(twin, case.x, case.y)
    assert all(p.grad is None for p in case.network.parameters())
    assert all(p.grad is not None for p in twin.parameters())


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"steps": Steps.until()},
        {"integrator": "equilibrium"},
        {"options": BackwardOptions(evaluation="stepped")},
    ],
    ids=["papers", "until", "equilibrium", "stepped"],
)
def test_holds_no_relaxation_state(make, options):
    """A relaxation leaves no tensor in the network, and changes no attribute."""
    case = make()
    before = pickle.dumps(case.network)
    relax_backward(case.network, case.x, case.y, **options)
    expected = {name: p.grad.clone() for name, p in case.network.named_parameters()}
    case.network.zero_grad()
    assert pickle.dumps(case.network) == before
    for twin in (copy.deepcopy(case.network), pickle.loads(before)):
        relax_backward(twin, case.x, case.y, **options)
        assert all(torch.equal(p.grad, expected[name]) for name, p in twin.named_parameters())


@pytest.mark.parametrize("integrator", ["sequential", "equilibrium"])
def test_single_precision_gives_the_same_within_its_precision(integrator):
    case = graph_case()
    single = copy.deepcopy(case.network).float()
    relax_backward(case.network, case.x, case.y, integrator=integrator)
    relax_backward(single, case.x.float(), case.y, integrator=integrator)
    for p, q in zip(case.network.parameters(), single.parameters(), strict=True):
        assert q.grad.dtype == torch.float32
        assert (p.grad - q.grad).abs().max() / p.grad.abs().max() < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_second_device_gives_the_same():
    case = graph_case()
    moved = copy.deepcopy(case.network).to("cuda")
    relax_backward(case.network, case.x, case.y)
    relax_backward(moved, case.x.cuda(), case.y.cuda())
    for p, q in zip(case.network.parameters(), moved.parameters(), strict=True):
        assert (p.grad - q.grad.cpu()).abs().max() / p.grad.abs().max() < 1e-10


def test_saved_feedback_weights_of_another_shape_are_refused(generator):
    case, fresh = mlp_case(), mlp_case()
    case.network.add_feedback("random-feedback", generator)
    saved = case.network.state_dict()
    saved["hidden1->hidden2.feedback"] = saved["hidden1->hidden2.feedback"][:, :1]
    with pytest.raises(RuntimeError, match=r"size mismatch for hidden1->hidden2.feedback"):
        fresh.network.load_state_dict(saved)


def test_weights_are_the_same_with_and_without_feedback():
    plain = build("digits-cnn", generator=torch.Generator().manual_seed(3))
    own = build("digits-cnn", generator=torch.Generator().manual_seed(3))
    own.add_feedback("learned-feedback", torch.Generator().manual_seed(4))
    for name, value in plain.state_dict().items():
        assert torch.equal(own.state_dict()[name], value)


def test_a_network_with_cycles_has_no_feedforward_pass():
    projections = [linear("input", "a"), linear("a", "b"), linear("b", "a"), linear("b", "b"), linear("b", "out")]
    network = Network((3,), {"b": "tanh", "a": "tanh", "out": "identity"}, projections)
    assert network.is_recurrent
    assert network.hidden == ["a", "b"]
    assert not mlp_case().network.is_recurrent
    for run in (network, network.feedforward):
        with pytest.raises(
            ActrelaxError, match=r"^a feedforward pass needs a network without cycles, got a cycle of a, b"
        ):
            run(torch.zeros(2, 3))
