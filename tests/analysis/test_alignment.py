"""Angles between AR's and backprop's updates, against autograd; feedback weights against forward weights."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import graph_case, make_case, mlp_case
from scipy.stats import entropy
from torch import nn

from actrelax.analysis.alignment import effective_rank, feedback_alignment, update_angles
from actrelax.models.assumptions import PRESETS
from actrelax.models.learning import BackwardOptions, Updates, relax_backward


def angles_of(case, options=None, *, assumptions="ar", **fields):
    case.network.zero_grad()
    relax_backward(case.network, case.x, case.y, assumptions=assumptions, options=options, **fields)
    return update_angles(case.network, case.x, case.y, assumptions=assumptions, options=options)


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_against_autograd(make, reduction):
    case = make()
    found = angles_of(case, BackwardOptions(reduction=reduction), steps=12, eta=0.2, integrator="euler")
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

    def angles(updates):
        return angles_of(case, BackwardOptions(updates), assumptions="kolen-pollack", steps=50)

    plain = angles(Updates(decay=0.0))
    assert angles(Updates(decay=3.0)) == pytest.approx(plain, rel=1e-9)
    clipped = angles(Updates(decay=0.0, clip=0.01))
    assert any(abs(clipped[name] - plain[name]) > 0.1 for name in plain)


def test_the_clip_is_part_of_both():
    """At equilibrium AR's update is backprop's, clipped or not."""
    case = mlp_case()
    options = [BackwardOptions(Updates(clip=0.01), reduction) for reduction in ("mean", "sum")]
    for clipped in (angles_of(case, each, integrator="equilibrium") for each in options):
        assert max(clipped.values()) < 1e-5
    case.network.zero_grad()
    relax_backward(case.network, case.x, case.y, integrator="equilibrium")
    assert max(p.weight.grad.abs().max() for p in case.network.projections.values()) > 0.01


def test_shared_weights_stand_under_the_first_projection():
    shared = nn.Linear(6, 6)
    edges = [
        ("input", "hidden1", [nn.Linear(8, 6)]),
        ("hidden1", "hidden2", [shared]),
        ("hidden2", "hidden3", [shared]),
        ("hidden3", "output", [nn.Linear(6, 4)]),
    ]
    populations = {"hidden1": "tanh", "hidden2": "tanh", "hidden3": "sigmoid", "output": "identity"}
    found = angles_of(make_case((8,), populations, edges), integrator="equilibrium")
    assert list(found) == ["input->hidden1", "hidden1->hidden2", "hidden3->output"]
    assert max(found.values()) < 1e-5


def test_weights_that_do_not_learn_have_no_angle():
    case = mlp_case()
    case.network.projections["hidden1->hidden2"].weight.requires_grad_(False)
    assert list(angles_of(case)) == ["input->hidden1", "hidden2->hidden3", "hidden3->output"]


def test_gradients_are_left_alone():
    case = mlp_case()
    relax_backward(case.network, case.x, case.y)
    before = [p.grad.clone() for p in case.network.parameters()]
    update_angles(case.network, case.x, case.y)
    assert all(torch.equal(p.grad, g) for p, g in zip(case.network.parameters(), before, strict=True))


def test_feedback_of_signs_has_the_angle_of_its_weights():
    network = mlp_case().network
    network.add_feedback("sign-feedback", torch.Generator().manual_seed(1))
    for name, found in feedback_alignment(network).items():
        w = network.projections[name].weight.detach()
        psi = network.feedback_weight(network.projections[name], PRESETS["sign-feedback"]).detach()
        cosine = F.cosine_similarity(psi.flatten(), w.flatten(), dim=0)
        assert found.angle == pytest.approx(float(torch.rad2deg(torch.acos(cosine))))
        assert 20 < found.angle < 60
        assert found.rank > 1


def test_feedback_alignment_against_numpy():
    case = graph_case()
    case.network.add_feedback("learned-feedback", torch.Generator().manual_seed(1))
    found = feedback_alignment(case.network)
    own = {name: p for name, p in case.network.projections.items() if p.feedback is not None}
    assert list(found) == list(own)
    assert "conv1=>conv3" not in found  # a copy has no weights
    for name, p in own.items():
        w, psi = (weight.detach().numpy() for weight in (p.weight, p.feedback))
        cosine = (w * psi).sum() / np.sqrt((w**2).sum() * (psi**2).sum())
        assert found[name].angle == pytest.approx(np.degrees(np.arccos(cosine)))
        assert found[name].distance == pytest.approx(np.sqrt(((w - psi) ** 2).sum()))
        assert found[name].rank == pytest.approx(np.exp(entropy(np.linalg.svd(psi.reshape(len(psi), -1))[1])))
    assert len({round(alignment.angle) for alignment in found.values()}) > 2


def test_effective_rank():
    """The rank of a product of thin matrices is at most their width; a zero matrix has rank 0."""
    thin = torch.randn(9, 3) @ torch.randn(3, 8)
    assert 1.5 < effective_rank(thin) <= 3
    assert effective_rank(torch.zeros(4, 5)) == 0
    assert effective_rank(thin) == pytest.approx(effective_rank(7 * thin.T))
