"""A Network behaves as PyTorch users expect of a module, makes feedback weights, and says what a graph lacks."""

import copy
import pickle

import pytest
import torch
from networks import graph_case, mlp_case
from torch import nn

from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, relax_backward
from actrelax.models.network import Network, Projection, build


def linear(source, target, name=None):
    return Projection(source, target, nn.Linear(3, 3), name=name)


@pytest.mark.parametrize(
    ("populations", "projections", "sentence"),
    [
        ("ab", [("input", "a"), ("a", "b"), ("b", "a")], r"populations form a cycle: "),
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


def test_sizes_that_do_not_fit():
    projections = [Projection("input", "a", nn.Linear(4, 3)), Projection("input", "a", nn.Linear(4, 2), name="skip")]
    with pytest.raises(ActrelaxError, match=r"of population 'a' differ in shape: 'input->a' \(3,\), 'skip' \(2,\)"):
        Network((4,), {"a": "tanh"}, projections)
    with pytest.raises(ActrelaxError, match=r"a sample of shape \(5,\) doesn't fit the projections: mat1 and mat2"):
        Network((5,), {"a": "tanh"}, projections[:1])
    network = Network((4,), {"a": "tanh"}, projections[:1])
    with pytest.raises(ActrelaxError, match=r"^the network takes \(batch, 4\), got \(2, 5\)\.$"):
        network(torch.zeros(2, 5))
    with pytest.raises(ActrelaxError, match=r"^the network takes \(batch, 4\), got \(0, 4\)\.$"):
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
    """A relaxation leaves no tensor behind in the network, and no attribute changed."""
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


def test_printed_as_a_table():
    network = build("cnn")
    network.add_feedback("learned-feedback-dense", torch.Generator())
    assert (
        repr(network)
        == """\
Network: 5 populations besides the input, 5 projections, 418,300 parameters
  population  shape         units  activation
  input       (3, 32, 32)   3,072  -
  conv1       (6, 14, 14)   1,176  tanh
  conv2       (16, 10, 10)  1,600  tanh
  hidden1     (120,)          120  tanh
  hidden2     (120,)          120  tanh
  output      (10,)            10  identity
  projection        kind   pipeline                       parameters  feedback
  input->conv1      conv   Conv2d(3, 6, 5), MaxPool2d(2)         450  -
  conv1->conv2      conv   Conv2d(6, 16, 5)                    2,400  transpose
  conv2->hidden1    dense  Flatten, Linear(1600, 120)        192,120  own, learned
  hidden1->hidden2  dense  Linear(120, 120)                   14,520  own, learned
  hidden2->output   dense  Linear(120, 10)                     1,210  own, learned"""
    )


def carrying(network):
    return [p for p in network.projections.values() if p.weight is not None and p.source != "input"]


def test_registers_what_the_assumptions_ask_for(generator):
    network = graph_case().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.add_feedback("learned-feedback-conv", generator)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    new = set(network.state_dict()) - set(before)
    assert new == {"conv1->conv2.feedback", "conv2->conv3.feedback", "conv1->hidden1.feedback"}


def test_kinds_of_registration(generator):
    parameter = {"learned-feedback": True, "kolen-pollack": True, "random-feedback": False, "sign-feedback": False}
    for preset, learned in parameter.items():
        network = mlp_case().network
        network.add_feedback(preset, generator)
        for p in carrying(network):
            assert isinstance(p.feedback, torch.nn.Parameter) is learned
            assert p.feedback.shape == (() if preset == "sign-feedback" else p.weight.shape)
        assert network.projections["input->hidden1"].feedback is None
        assert ("hidden1->hidden2.feedback" in dict(network.named_parameters())) is learned


def test_scale_of_feedback_is_that_of_the_weights(generator):
    network = mlp_case(widths=(8, 60, 50, 40, 4)).network
    with torch.no_grad():
        network.projections["hidden2->hidden3"].weight.mul_(7)
    network.add_feedback("random-feedback", generator)
    for p in carrying(network):
        assert float(p.feedback.std() / p.weight.detach().std()) == pytest.approx(1, abs=0.15)
        pairs = torch.stack([p.feedback.flatten(), p.weight.detach().flatten()])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.2


@pytest.mark.parametrize("value", [0.0, 0.1])  # the float32 deviation of constant weights of 0.1 is 7e-9
@pytest.mark.parametrize("preset", ["learned-feedback", "random-feedback", "sign-feedback"])
def test_constant_weights_have_feedback_of_the_scale_of_their_fan_in(preset, value):
    """Else nothing below a readout that begins at zero would ever learn."""
    case = mlp_case(widths=(8, 40, 30))
    network = case.network.float()
    readout = network.projections["hidden1->output"]
    nn.init.constant_(readout.weight, value)
    network.add_feedback(preset, torch.Generator().manual_seed(0))
    psi = readout.feedback.detach()
    assert float(psi if psi.dim() == 0 else psi.std(correction=0)) == pytest.approx(40**-0.5, rel=0.05)
    relax_backward(network, case.x.float(), case.y, assumptions=preset, integrator="equilibrium")
    assert bool(network.projections["input->hidden1"].weight.grad.any()) == (preset != "sign-feedback" or value != 0)


def test_the_generator_decides_on_feedback():
    drawn = []
    for seed in (1, 1, 2):
        network = mlp_case().network
        network.add_feedback("random-feedback", torch.Generator().manual_seed(seed))
        drawn.append(network.projections["hidden1->hidden2"].feedback)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_feedback_of_another_kind_is_an_error(generator):
    case = mlp_case()
    case.network.add_feedback("random-feedback", generator)
    with pytest.raises(ActrelaxError, match="has feedback weights of another kind: build a new network"):
        relax_backward(case.network, case.x, case.y, assumptions="learned-feedback")
    with pytest.raises(ActrelaxError, match="'hidden1->hidden2' already has feedback weights: build a new network"):
        case.network.add_feedback("learned-feedback", generator)


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


def test_sign_feedback_follows_the_weights(generator):
    case = graph_case()
    case.network.add_feedback("sign-feedback", generator)
    p = case.network.projections["hidden1->hidden2"]
    initial = float(p.weight.detach().std(correction=0))
    with torch.no_grad():
        p.weight.mul_(-3)
    psi = case.network.feedback_weight(p, PRESETS["sign-feedback"])
    assert torch.equal(psi, p.weight.sign() * p.feedback)
    assert float(p.feedback) == pytest.approx(initial)
