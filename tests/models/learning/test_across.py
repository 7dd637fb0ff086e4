"""A batch that processes share: their sums make what one process would make of the whole batch.

The processes here are copies of one network, one after the other; what they would send is kept, and added by hand.
"""

import copy
from dataclasses import replace

import pytest
import torch
from networks import graph_case, make_case
from torch import nn

from actrelax.analysis.alignment import update_angles
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Updates, backprop_backward, relax_backward, relax_continuously
from actrelax.models.results import relative_error

SHARES = (slice(0, 2), slice(2, 3), slice(3, 3))
"""Of a batch of three: as unequal as can be, and one without samples."""

PRESETS = ["backprop", "ar", "learned-feedback", "kolen-pollack", "current-presynaptic"]


def shared(call, updates):
    """Call each process with its share, each adding what all have sent; returns what each call returned."""
    sent = []

    def record(tensors):
        sent.append([x.clone() for x in tensors])
        return tensors

    for share in SHARES:
        call(share, replace(updates, across=record))
    total = [sum(parts) for parts in zip(*sent, strict=True)]
    return [call(share, replace(updates, across=lambda tensors: [x.clone() for x in total])) for share in SHARES]


def rule_of(preset):
    if preset == "backprop":
        return backprop_backward
    return lambda *batch, **options: relax_backward(*batch, assumptions=preset, steps=12, eta=0.2, **options)


def learned(preset, case, updates, share=slice(None)):
    """Gradients by name, and what the call returned."""
    network = copy.deepcopy(case.network)
    result = rule_of(preset)(network, case.x[share], case.y[share], updates=updates)
    return {name: p.grad for name, p in network.named_parameters()}, result


def with_feedback(case, preset, generator):
    if preset != "backprop":
        case.network.add_feedback(preset, generator)
    return case


def check(preset, case, updates):
    whole, expected = learned(preset, case, updates)
    for share, (gradients, result) in zip(
        SHARES, shared(lambda share, updates: learned(preset, case, updates, share), updates), strict=True
    ):
        assert gradients.keys() == whole.keys()
        for name, gradient in whole.items():
            assert (gradients[name] is None) == (gradient is None)
            assert gradient is None or relative_error(gradients[name], gradient) < 1e-13
        assert float(result.loss) == pytest.approx(float(expected.loss), rel=1e-13)
        assert result.samples == expected.samples == 3
        assert result.finite
        assert torch.allclose(result.output, expected.output[share], rtol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("preset", PRESETS)
def test_shares_add_up_to_the_batch(preset, reduction, generator):
    """Clip and decay come after the sum: elements are clipped here that no share would have clipped."""
    case = with_feedback(graph_case(), preset, generator)
    decay = 0.3 if preset == "kolen-pollack" else None
    updates = Updates(reduction, {"conv": 2.0}, clip=0.03, decay=decay)
    check(preset, case, updates)
    free, _ = learned(preset, case, replace(updates, clip=None, decay=decay and 0.0))
    assert any((gradient.abs() > 0.03).any() and (gradient.abs() < 0.03).any() for gradient in free.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_that_are_shared_or_fixed(preset, generator):
    edges = [("input", "a", [nn.Linear(6, 6)]), ("a", "b", [nn.Linear(6, 6)]), ("b", "output", [nn.Linear(6, 4)])]
    case = with_feedback(make_case((6,), {"a": "tanh", "b": "tanh", "output": "identity"}, edges), preset, generator)
    lower, middle, upper = case.network.projections.values()
    middle.weight = lower.weight
    upper.weight.requires_grad_(False)
    upper.bias.requires_grad_(False)
    lower.bias.requires_grad_(False)
    check(preset, case, Updates(decay=0.3 if preset == "kolen-pollack" else None))


@pytest.mark.parametrize("preset", PRESETS[:2])
def test_all_processes_know_what_one_has_met(preset):
    case = graph_case()
    case.x[2] = torch.inf

    def call(share, updates):
        network, batch = copy.deepcopy(case.network), (case.x[share], case.y[share])
        options = {} if preset == "backprop" else {"check_finite": False}
        return rule_of(preset)(network, *batch, updates=updates, **options)

    for result in shared(call, Updates()):
        assert not result.finite
        assert not torch.isfinite(result.loss)


def test_a_large_batch_is_counted_in_half_precision():
    """bfloat16 has no 257."""
    case = graph_case()
    network = case.network.to(torch.bfloat16)
    x, y = case.x[:1].expand(257, *case.x.shape[1:]).to(torch.bfloat16), case.y[:1].expand(257)
    result = backprop_backward(network, x, y, updates=Updates(across=lambda tensors: tensors))
    assert result.samples == 257


def test_angles_are_of_the_whole_batch(generator):
    case = with_feedback(graph_case(), "kolen-pollack", generator)

    def angles(share, updates):
        network, batch = copy.deepcopy(case.network), (case.x[share], case.y[share])
        for name, p in network.named_parameters():
            p.grad = gradients[name].clone()
        return update_angles(network, *batch, updates=updates, assumptions="kolen-pollack")

    updates = Updates(decay=0.3, clip=0.1)
    gradients, _ = learned("kolen-pollack", case, updates)
    whole = angles(slice(None), updates)
    assert max(whole.values()) > 10
    for found in shared(angles, updates):
        assert found == pytest.approx(whole, rel=1e-9, abs=1e-5)


def test_an_empty_batch_is_refused_where_nobody_shares_it():
    case = graph_case()
    for preset in ("backprop", "ar"):
        with pytest.raises(ActrelaxError, match=r"the network takes \(batch, "):
            rule_of(preset)(case.network, case.x[:0], case.y[:0])


def test_continuous_plasticity_is_not_shared():
    case = graph_case()
    with pytest.raises(ActrelaxError, match=r"^continuous plasticity works in one process only: leave"):
        relax_continuously(case.network, case.x, case.y, rate=0.1, updates=Updates(across=list))
