"""Results of a feedforward pass, split and merged again."""

from itertools import repeat

import torch
from networks import graph_case


def test_with_its_own_tensors_it_is_the_same():
    passed = graph_case().network.feedforward(graph_case().x)
    empty = passed.with_tensors(repeat(torch.empty(0)))
    again = empty.with_tensors(passed.tensors())
    assert all(not x.numel() for x in empty.tensors())
    assert [id(x) for x in again.tensors()] == [id(x) for x in passed.tensors()]
    assert again.activities.keys() == passed.activities.keys()
    assert again.drives.keys() == passed.drives.keys()
    winners = [r.winners for route in passed.routes.values() for r in (*route.before, *route.after)]
    assert sum(x is not None for x in winners) == 2
    assert all(x is None or any(x is y for y in passed.tensors()) for x in winners)
