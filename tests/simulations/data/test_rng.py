"""One seed with a separate stream for each purpose."""

import torch

from actrelax.simulations.data.rng import random_stream


def test_streams_are_apart():
    purposes = [(0, "weights"), (1, "weights"), (0, "feedback"), (0, "epoch", 1), (0, "epoch", 2), (1, "epoch", 1)]
    drawn = [torch.rand(4, generator=random_stream(*purpose)) for purpose in purposes]
    for i, first in enumerate(drawn):
        assert torch.equal(first, torch.rand(4, generator=random_stream(*purposes[i])))
        assert not any(torch.equal(first, other) for other in drawn[i + 1 :])
