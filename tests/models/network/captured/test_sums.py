"""Sums change a tensor in place only if nothing else holds it."""

import torch

from actrelax.models.network.captured import Sums


def test_signals_add_up_without_touching_what_others_hold(generator):
    a, b, c = (torch.randn(3, generator=generator) for _ in range(3))
    total, kept = a + b + c, [x.clone() for x in (a, b, c)]
    sums = Sums()
    sums.add(1, a, is_new=False)
    sums.add(1, b, is_new=False)
    assert sums.own == {1}
    sums.add(1, c, is_new=False)
    assert 0 not in sums.signals
    assert torch.allclose(sums.signals[1], total)
    assert all(torch.equal(x, before) for x, before in zip((a, b, c), kept, strict=True))
    sums = Sums()
    sums.add(0, a, is_new=False)
    sums.add(0, b, is_new=True)
    assert sums.signals[0] is b
    assert torch.equal(a, kept[0])
