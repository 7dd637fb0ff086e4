"""Weighted operations have autograd's adjoints and products, bit for bit."""

import pytest
import torch
import torch.nn.functional as F

from actrelax.models.network.captured.operations import Convolution, Linear, Recorded


def same(tensor):
    return tensor


def linear(x, w, b):
    return Linear(x, w, b, same), F.linear(x, w, b)


def columns(x, w, b):
    return Linear(x, w, b, same, by_columns=True), x @ w if b is None else torch.addmm(b, x, w)


CASES = {
    "linear": (linear, (3, 5), (4, 5), (4,)),
    "linear of sequences": (linear, (3, 6, 5), (4, 5), (4,)),
    "linear without bias": (linear, (3, 5), (4, 5), None),
    "columns": (columns, (3, 5), (5, 4), (4,)),
    "columns of sequences": (columns, (3, 6, 5), (5, 4), None),
    "conv": (
        lambda x, w, b: (
            Convolution(x, w, b, same, ([2, 1], [1, 0], [1, 2], False, [0, 0], 2)),
            F.conv2d(x, w, b, (2, 1), (1, 0), (1, 2), 2),
        ),
        *((3, 4, 7, 6), (6, 2, 3, 2), (6,)),
    ),
    "transposed": (
        lambda x, w, b: (
            Convolution(x, w, b, same, ([2], [1], [1], True, [1], 1)),
            F.conv_transpose1d(x, w, b, 2, 1, 1),
        ),
        *((3, 4, 7), (4, 5, 3), (5,)),
    ),
    "einsum": (
        lambda x, w, b: (
            Recorded(lambda x, w: torch.einsum("bij,jk->bik", x, w), x, w, None, same, "dense"),
            torch.einsum("bij,jk->bik", x, w),
        ),
        *((3, 6, 5), (5, 4), None),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_both_is_autograds(case, generator):
    make, *shapes = CASES[case]
    x, w, b = (None if s is None else torch.randn(s, generator=generator, requires_grad=True) for s in shapes)
    operation, expected = make(x, w, b)
    leaves = [x, w] if b is None else [x, w, b]
    y = torch.randn(expected.shape, generator=generator)
    exact = torch.autograd.grad(expected, leaves, y)
    drive = operation.call()
    assert torch.equal(drive, expected)
    assert not drive.requires_grad
    found = operation.both(y, (True, True, b is not None), keep=True)
    assert all(torch.equal(f, e) for f, e in zip(found, exact, strict=False))
    assert operation.both(y, (True, False, False), keep=True)[1:] == (None, None)
    alone = operation.both(y, (False, True, False))
    assert alone[0] is None
    assert torch.allclose(alone[1], exact[1], atol=1e-14)


def test_the_layout_that_attention_uses(generator):
    """PyTorch folds the leading dimensions where the weight learns, whatever the layout."""
    x = torch.randn(7, 5, 6, generator=generator).transpose(0, 1)
    w, b = (torch.randn(s, generator=generator, requires_grad=True) for s in ((4, 6), (4,)))
    assert torch.equal(Linear(x, w, b, same).call(), F.linear(x, w, b))


def test_a_weight_that_changes_in_place_is_noticed():
    w = torch.ones(4, 5)
    operation = Linear(torch.ones(2, 5), w, None, same)
    assert not operation.is_stale
    w.add_(1)
    assert operation.is_stale


def test_forgetting_frees_what_was_read():
    operation = Linear(torch.ones(2, 5), torch.ones(4, 5), None, same)
    operation.forget()
    assert operation.x is None


@pytest.mark.parametrize("case", [case for case in CASES if case != "einsum"])
def test_several_signals_at_once(case, generator):
    make, *shapes = CASES[case]
    x, w, b = (None if s is None else torch.randn(s, generator=generator) for s in shapes)
    operation, like = make(x, w, b)
    assert operation.takes_several
    operation.call()
    several = torch.randn(3, *like.shape, generator=generator)
    found, *updates = operation.both(several, (True, False, False))
    assert updates == [None, None]
    for y, signal in zip(several, found, strict=True):
        assert torch.allclose(signal, operation.both(y, (True, False, False))[0], rtol=1e-13, atol=1e-13)


def test_several_images_keep_the_channels_last(generator):
    x = torch.randn(2, 4, 5, 6, generator=generator).to(memory_format=torch.channels_last)
    operation = Convolution(x, torch.randn(3, 4, 3, 3), None, same, ([1, 1], [1, 1], [1, 1], False, [0, 0], 1))
    several = torch.randn(4, 2, 3, 5, 6, generator=generator)
    found, _, _ = operation.both(several, (True, False, False))
    assert torch.allclose(found[2], operation.both(several[2], (True, False, False))[0], rtol=1e-13, atol=1e-13)
    assert not Recorded(F.linear, x, x, None, same, "dense").takes_several
