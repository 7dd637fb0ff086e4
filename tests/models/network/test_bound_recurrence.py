"""The bound on recurrent weights. Oracle: singular values of the cycle's map as one dense matrix."""

import copy

import numpy as np
import pytest
import torch
from networks import RECURRENT, conv_recurrent_case, make_case, mlp_case, recurrent_case
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, Projection, build


def matrix(case_or_network, members, slot="weight"):
    """Return the map from the rates of a cycle to the drives inside it, one basis vector after another."""
    network = case_or_network
    inside = [p for name in members for p in network.incoming[name] if p.source in members]
    shapes = {name: network.populations[name].shape for name in members}
    columns = []
    for source in members:
        for i in range(int(np.prod(shapes[source]))):
            unit = torch.zeros(1, *shapes[source]).flatten()
            unit[i] = 1.0
            drives = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
            for p in inside:
                if p.source == source:
                    plain = p.with_weights({(p.name, "weight"): getattr(p, slot).detach()})
                    drives[p.target] = drives[p.target] + plain.find(unit.view(1, *shapes[source]))[0]
            columns.append(torch.cat([d.flatten() for d in drives.values()]))
    return torch.stack(columns, 1).numpy()


@pytest.fixture(params=["dense", "hierarchy", "conv"])
def network(request):
    return (conv_recurrent_case(pool=nn.AvgPool2d) if request.param == "conv" else RECURRENT[request.param]()).network


def test_the_norm_is_the_largest_singular_value(network):
    (members,) = network.graph.cycles
    expected = np.linalg.norm(matrix(network, members), 2)
    before = copy.deepcopy(network.state_dict())
    (found,) = network.bound_recurrence(1e3, iterations=200).values()
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert 0.9 * expected < float(*network.bound_recurrence(1e3).values()) <= expected * (1 + 1e-12)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])  # within the limit nothing changes


def test_weights_inside_a_cycle_get_one_factor(network):
    (members,) = network.graph.cycles
    before = copy.deepcopy(network)
    limit = 0.4 * float(*network.bound_recurrence(1e3, iterations=200).values())
    network.bound_recurrence(limit, iterations=200)
    assert np.linalg.norm(matrix(network, members), 2) == pytest.approx(limit, rel=1e-6)
    inside = {p.name for p in network.projections.values() if p.source in members and p.target in members}
    assert 0 < len(inside) < len(network.projections)
    for name, p in network.projections.items():
        if p.weight is not None:
            old = before.projections[name]
            assert torch.allclose(p.weight, old.weight * (0.4 if name in inside else 1.0), rtol=1e-6)
            assert p.bias is None or torch.equal(p.bias, old.bias)


def test_learned_feedback_has_a_norm_of_its_own(generator):
    case = recurrent_case()
    case.network.add_feedback("learned-feedback", generator)
    loop = case.network.projections["a->a"]
    with torch.no_grad():
        loop.feedback.mul_(3.0)
    case.network.bound_recurrence(0.5, iterations=300)
    for slot in ("weight", "feedback"):
        assert np.linalg.norm(matrix(case.network, ("a",), slot), 2) == pytest.approx(0.5, rel=1e-6)
    fixed = recurrent_case()
    fixed.network.add_feedback("random-feedback", generator)
    psi = fixed.network.projections["a->a"].feedback.clone()
    fixed.network.bound_recurrence(0.1)
    assert torch.equal(fixed.network.projections["a->a"].feedback, psi)  # which never grows


def test_each_cycle_has_a_norm_of_its_own():
    edges = [
        ("input", "a", [nn.Linear(8, 7)]),
        ("a", "a", [nn.Linear(7, 7, bias=False)]),
        ("a", "b", [nn.Linear(7, 6)]),
        ("b", "b", [nn.Linear(6, 6, bias=False)]),
        ("b", "output", [nn.Linear(6, 4)]),
    ]
    network = make_case((8,), {"a": "tanh", "b": "tanh", "output": "identity"}, edges).network
    with torch.no_grad():
        network.projections["a->a"].weight.mul_(5.0)
    small = network.projections["b->b"].weight.clone()
    bound = 1.01 * np.linalg.norm(small.detach().numpy(), 2)
    norms = network.bound_recurrence(bound, iterations=300)
    assert list(norms) == [("a",), ("b",)]
    assert np.linalg.norm(network.projections["a->a"].weight.detach().numpy(), 2) == pytest.approx(bound, rel=1e-6)
    assert torch.equal(network.projections["b->b"].weight, small)


def test_a_limit_below_one_makes_rates_settle():
    """Weights a hundred times as large as those that settle from most draws."""
    from actrelax.models.engines import Settle, Steps, settle
    from actrelax.models.engines.residual import residual_of_pass

    network = build("hierarchy", input_shape=(20,), generator=0)
    with torch.no_grad():
        for p in network.projections.values():
            if p.source != "input" and p.target != "output":
                p.weight.mul_(100)
    x = torch.randn(5, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    how = Settle(Steps(200, eta=0.5))
    assert float(residual_of_pass(settle(network, x, how)).max()) > 0.1
    network.bound_recurrence(0.9)
    assert float(residual_of_pass(settle(network, x, how)).max()) < 1e-6


def test_the_bound_holds_for_cycles_that_share_weights():
    shared = nn.Linear(6, 6, bias=False)
    edges = [("input", "a", [nn.Linear(5, 6)]), ("a", "a", [shared]), ("a", "b", [nn.Linear(6, 6)])]
    edges += [("b", "b", [shared]), ("b", "c", [nn.Linear(6, 6)]), ("c", "b", [nn.Linear(6, 6)])]
    network = Network(
        (5,),
        {**dict.fromkeys("abc", "tanh"), "output": "identity"},
        [
            Projection(source, target, *stages)
            for source, target, stages in [*edges, ("c", "output", [nn.Linear(6, 2)])]
        ],
    )
    with torch.no_grad():
        for name in ("b->c", "c->b"):
            network.projections[name].weight.mul_(10)
    network.bound_recurrence(0.5, iterations=200)
    for norm in network.bound_recurrence(0.5, iterations=200).values():
        assert float(norm) < 0.5 + 1e-5


def test_without_cycles_there_is_nothing_to_bound():
    assert mlp_case().network.bound_recurrence(0.1) == {}


def test_what_is_refused():
    case = recurrent_case()
    for limit in (0, -1.0, "x"):
        with pytest.raises(ActrelaxError, match=r"^the limit of recurrent weights must be a positive number, got"):
            case.network.bound_recurrence(limit)
    edges = [
        ("input", "a", [nn.Linear(8, 7)]),
        ("a", "b", []),
        ("b", "a", [nn.Linear(7, 7)]),
        ("b", "output", [nn.Linear(7, 4)]),
    ]
    network = make_case((8,), {"a": "tanh", "b": "tanh", "output": "identity"}, edges).network
    with pytest.raises(ActrelaxError, match=r"^the recurrent weights of a, b can't be bounded, because 'a=>b' is"):
        network.bound_recurrence(0.5)
