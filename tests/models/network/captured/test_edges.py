"""Tensors as edges of autograd's graph."""

import torch
from torch.autograd.graph import GradientEdge

from actrelax.models.network.captured.edges import Seen, edge_of


def test_the_gradient_at_an_edge_is_that_of_its_tensor():
    leaf = torch.rand(3, requires_grad=True)
    parts = leaf.exp().split(1)
    (2 * parts[1]).backward(retain_graph=True)
    ends = [GradientEdge(*edge_of(tensor), None) for tensor in (leaf, parts[0], parts[1])]
    found = torch.autograd.grad(2 * parts[1], ends, allow_unused=True)
    assert torch.equal(found[0], leaf.grad)
    assert found[1] is None
    assert found[2] == 2


def test_a_tensor_that_has_been_seen_knows_of_later_changes():
    tensor = torch.zeros(2)
    seen = Seen(tensor.clone(), (0, False, 0), tensor, tensor._version)
    assert not seen.has_changed
    tensor.add_(1)
    assert seen.has_changed
