"""Angles between AR's and backprop's updates, against autograd."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import graph_case, mlp_case

from actrelax.analysis.alignment import update_angles
from actrelax.models.learning import relax_backward
from actrelax.models.updates import Updates


def angles_of(case, updates=None, **options):
    updates = updates or Updates()
    result = relax_backward(case.network, case.x, case.y, updates=updates, **options)
    return update_angles(result.trajectory, case.x, case.y, loss="cross-entropy", updates=updates)


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_against_autograd(make, reduction):
    case = make()
    options = {"steps": 12, "eta": 0.2, "integrator": "euler"}
    found = angles_of(case, Updates(reduction), **options)
    ours = {name: p.weight.grad for name, p in case.network.projections.items() if p.weight is not None}
    weights = {name: p.weight for name, p in case.network.projections.items() if p.weight is not None}
    exact = torch.autograd.grad(F.cross_entropy(case.network(case.x), case.y), list(weights.values()))
    assert list(found) == list(weights)
    for (name, angle), theirs in zip(found.items(), exact, strict=True):
        cosine = F.cosine_similarity(ours[name].flatten(), theirs.flatten(), 0)
        assert angle == pytest.approx(math.degrees(math.acos(min(1.0, float(cosine)))), abs=1e-5)
    assert max(found.values()) > 5


def test_at_equilibrium_they_point_the_same_way():
    for angle in angles_of(graph_case(), integrator="equilibrium").values():
        assert angle < 1e-5


def test_decay_is_no_part_of_it_but_the_clip_is():
    case = mlp_case()
    case.network.add_feedback("kolen-pollack", torch.Generator().manual_seed(1))
    options = {"assumptions": "kolen-pollack", "steps": 50}
    plain = angles_of(case, Updates(decay=0.0), **options)
    assert angles_of(case, Updates(decay=3.0), **options) == plain
    clipped = angles_of(case, Updates(decay=0.0, clip=0.01), **options)
    assert any(abs(clipped[name] - plain[name]) > 0.1 for name in plain)


def test_gradients_are_left_alone():
    case = mlp_case()
    result = relax_backward(case.network, case.x, case.y)
    before = [p.grad.clone() for p in case.network.parameters()]
    update_angles(result.trajectory, case.x, case.y, loss="cross-entropy", updates=Updates())
    assert all(torch.equal(p.grad, g) for p, g in zip(case.network.parameters(), before, strict=True))
