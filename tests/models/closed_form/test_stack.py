"""Stacks: vectors of one population in one tensor, combined and added to slots as NumPy would."""

import numpy as np
import pytest
import torch

from actrelax.models.closed_form.plan import Generators
from actrelax.models.closed_form.stack import Stack, add, combine, each


def generators(matrix, own=True, **slots):
    return Generators(own, np.array(matrix, dtype=float), slots)


def test_combine_is_a_matrix_product(generator):
    own, arrived = torch.randn(4, 3, generator=generator), torch.randn(2, 4, 3, generator=generator)
    g = generators([[1, 2, 3], [0, 5, 7]])
    found = combine(g, own, Stack(arrived, 2))
    assert torch.allclose(found.activity, own + 2 * arrived[0] + 3 * arrived[1])
    (sent,) = found.vectors
    assert torch.allclose(sent, 5 * arrived[0] + 7 * arrived[1])
    assert found.shape == own.shape


def test_a_single_vector_is_the_activity_and_what_is_sent(generator):
    own = torch.randn(4, 3, generator=generator)
    found = combine(generators([[1], [1]]), own, None)
    assert found.activity is own
    assert found.vectors == [own]
    assert found.sent((0,)) is found


@pytest.mark.parametrize("taken", [(0,), (0, 1), (1, 2), (0, 2)])
def test_sent_takes_the_vectors_after_the_activity(taken, generator):
    data = torch.randn(4, 5, generator=generator)
    sent = Stack(data, 4).sent(taken)
    assert sent.count == len(taken)
    assert torch.equal(sent.rows, data[[1 + number for number in taken]])


@pytest.mark.parametrize(
    "slots", [((0, 0), (1, 1), (2, 2)), ((0, 2), (2, 0)), ((1, 0), (1, 1), (2, 1)), ((1, 2),), ((0, 1), (0, 2))]
)
def test_vectors_are_added_to_their_slots(slots, generator):
    sent, before = (torch.randn(3, 2, 5, generator=generator) for _ in range(2))
    g = generators(np.ones((4, 3)), a=slots)
    taken = Stack(torch.cat([sent[:1], sent]), 4).sent(g.taken["a"])
    for arrived in (None, Stack(before.clone(), 3)):
        expected = torch.zeros_like(before) if arrived is None else before.clone()
        for vector, slot in slots:
            expected[slot] += sent[vector]
        assert torch.allclose(add(arrived, taken, g, "a", 3).data, expected)
        if arrived is not None:
            assert torch.equal(arrived.data, before)


def test_each_carries_all_vectors_in_one_call(generator):
    data, calls = torch.randn(3, 2, 5, generator=generator), []
    found = each(Stack(data, 3), lambda x: calls.append(x.shape) or 2 * x)
    assert calls == [(6, 5)]
    assert torch.equal(found.data, 2 * data)
