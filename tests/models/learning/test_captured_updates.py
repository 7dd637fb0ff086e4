"""Updates add up over operations and pieces, and signals over the projections of a population."""

import torch
from torch import nn

from actrelax.models.learning.captured_updates import Arrivals, ParameterUpdates


def test_updates_of_leaves_and_of_what_is_made_of_them():
    p = nn.Parameter(torch.randn(3, 2))
    half = p[:, :1] * 2.0
    updates = ParameterUpdates({"conv": 10.0})
    updates.add(p, torch.ones(3, 2), "dense")
    updates.add(p, torch.ones(3, 2), "conv")
    updates.add(half, torch.full((3, 1), 5.0), "phi")
    updates.add(p, None, "phi")
    assert torch.equal(updates.of([half]), torch.full((3, 1), 5.0))
    assert updates.of([torch.ones(1)]) is None
    (found,) = updates.gradients().values()
    assert torch.equal(found, torch.tensor([[21.0, 11.0]] * 3))


def test_signals_are_added_up_and_leave_others_tensors_alone():
    """In place where nothing else holds the tensor."""
    clamp, foreign, new = torch.ones(2), torch.full((2,), 3.0), torch.full((2,), 5.0)
    arrived = Arrivals(clamp, {})
    arrived.add(1, foreign, is_new=False)
    arrived.add(1, new, is_new=True)
    assert arrived.signals[1] is new
    arrived.add(1, foreign, is_new=False)
    assert arrived.signals[1] is new
    assert torch.equal(new, torch.full((2,), 11.0))
    assert torch.equal(foreign, torch.full((2,), 3.0))
    assert arrived.signals[0] is clamp
    arrived.add(2, foreign, is_new=False)
    arrived.add(2, foreign, is_new=False)
    assert torch.equal(arrived.signals[2], torch.full((2,), 6.0))
    assert torch.equal(foreign, torch.full((2,), 3.0))
