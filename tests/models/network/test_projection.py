"""Projections. Oracles: the adjoint identity <op(x), y> = <x, op^T(y)>, and PyTorch's modules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import pipelines, runs
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Projection
from actrelax.models.results import relative_error


@given(pipelines(), st.integers(0, 1000))
def test_drive_and_its_adjoint(stages, seed):
    torch.manual_seed(seed)
    x, other = torch.randn(2, 3, 2, 9, 10)
    if not runs(stages, x):
        return
    projection = Projection("a", "b", *stages)
    with torch.no_grad():
        expected = nn.Sequential(*stages)(x)
        drive, route = projection.find(x)
        assert torch.equal(drive, expected)
        assert relative_error(projection.drive(x, route), expected) < 1e-14
        # along the fixed route the drive is affine in the activities, and feedback is its adjoint
        silent = projection.drive(torch.zeros_like(x), route)
        y = torch.randn_like(drive)
        forward = ((projection.drive(other, route) - silent) * y).sum()
        backward = (other * projection.feedback_signal(y, route, projection.weight)).sum()
    scale = (projection.drive(other, route) - silent).norm() * y.norm()
    assert relative_error(backward, forward, magnitude=scale) < 1e-14


@given(pipelines(), st.integers(0, 1000))
def test_feedback_and_plasticity_are_autograds(stages, seed):
    torch.manual_seed(seed)
    x = torch.randn(3, 2, 9, 10)
    if not runs(stages, x):
        return
    projection = Projection("a", "b", *stages)
    leaf = x.clone().requires_grad_()
    out = nn.Sequential(*stages)(leaf)
    y = torch.randn_like(out)
    parameters = [p for p in (projection.weight, projection.bias) if p is not None]
    expected = torch.autograd.grad(out, [leaf, *parameters], y)
    with torch.no_grad():
        _, route = projection.find(x)
        feedback = projection.feedback_signal(y, route, projection.weight)
        updates = projection.plasticity(projection.presynaptic(x, route), projection.postsynaptic(y, route))
    for ours, theirs in zip([feedback, *updates.values()], expected, strict=True):
        assert relative_error(ours, theirs) < 1e-13


@given(pipelines(), st.integers(0, 1000))
def test_feedback_comes_back_in_the_layout_of_the_drive(stages, seed):
    """With channels last, values are the same and only the memory layout differs."""
    torch.manual_seed(seed)
    x = torch.randn(3, 2, 9, 10)
    if not runs(stages, x):
        return
    projection, found = Projection("a", "b", *stages), []
    y = torch.randn_like(projection.find(x)[0])
    last = {"memory_format": torch.channels_last}
    with torch.no_grad():
        for layout in ({"memory_format": torch.contiguous_format}, last):
            if y.dim() == 4:
                y = y.contiguous(**layout)
            projection.to(**layout)
            stimuli = x.contiguous(**layout)
            drive, route = projection.find(stimuli)
            feedback = projection.feedback_signal(y, route, projection.weight)
            post = projection.postsynaptic(y, route)
            updates = projection.plasticity(projection.presynaptic(stimuli, route), post)
            found.append([drive, projection.drive(stimuli, route), feedback, *updates.values()])
    for ours, theirs in zip(*found, strict=True):
        assert relative_error(ours, theirs) < 1e-13
    for result in found[1][:3]:
        assert result.dim() != 4 or result.is_contiguous(**last)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([nn.Linear(2, 2), nn.Linear(2, 2)], "projection 'a->b' must have at most one weighted map, got 2: "),
        ([nn.BatchNorm2d(2)], "BatchNorm2d can't be part of a projection; known: Linear, Conv2d, MaxPool2d"),
    ],
)
def test_what_is_refused(stages, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        Projection("a", "b", *stages)


def test_winners_are_those_of_max_pooling():
    before = Projection("a", "b", nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    after = Projection("a", "b", nn.Conv2d(1, 1, 3), nn.MaxPool2d(2))
    assert before.has_winners
    assert after.has_winners
    assert not Projection("a", "b", nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3)).has_winners
