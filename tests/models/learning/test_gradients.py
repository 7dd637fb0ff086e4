"""From summed updates to `.grad`: reduction, clip, decay, learned feedback. Oracles: arithmetic by hand, autograd."""

import copy
from dataclasses import replace

import pytest
import torch
from networks import graph_case, make_case
from torch import nn

from actrelax.analysis.alignment import update_angles
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, backprop_backward, relax_backward
from actrelax.models.results import relative_error

RULES = [relax_backward, backprop_backward]


def options_of(rule, updates=None, reduction="mean"):
    if rule is backprop_backward:
        return {"updates": updates, "reduction": reduction}
    return {"options": BackwardOptions(updates or Updates(), reduction)}


def gradients(rule, case, **options):
    network = copy.deepcopy(case.network)
    rule(network, case.x, case.y, **options)
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.catches("sum for mean")
@pytest.mark.parametrize("rule", RULES)
def test_reduction(rule):
    case = graph_case()
    mean, total = (gradients(rule, case, **options_of(rule, reduction=name)) for name in ("mean", "sum"))
    for name, gradient in total.items():
        assert relative_error(3 * mean[name], gradient) < 1e-14
    default = gradients(rule, case)
    assert all(torch.equal(default[name], gradient) for name, gradient in mean.items())
    losses = [rule(case.network, case.x, case.y, **options_of(rule, reduction=name)).loss for name in ("mean", "sum")]
    assert float(losses[1] / losses[0]) == pytest.approx(3)


@pytest.mark.catches("clamp divided by the batch")
def test_the_clamp_is_not_divided_by_the_batch():
    """At any finite n that would give another update: the initial activities don't shrink with the batch."""
    case = graph_case()
    together = gradients(relax_backward, case, options=BackwardOptions(reduction="sum"), steps=12, eta=0.2)
    alone = []
    for i in range(3):
        one = copy.copy(case)
        one.x, one.y = case.x[i : i + 1], case.y[i : i + 1]
        alone.append(gradients(relax_backward, one, options=BackwardOptions(reduction="sum"), steps=12, eta=0.2))
    for name, gradient in together.items():
        assert relative_error(sum(one[name] for one in alone), gradient) < 1e-13


@pytest.mark.parametrize("rule", RULES)
def test_factors_then_clip(rule):
    case = graph_case()
    plain = gradients(rule, case, **options_of(rule, reduction="sum"))
    changed = gradients(rule, case, **options_of(rule, Updates({"conv": 2.0}, clip=0.1), "sum"))
    clipped = 0
    for name, gradient in plain.items():
        factor = 2.0 if case.network.kind(case.network.projections[name.rsplit(".", 1)[0]]) == "conv" else 1.0
        expected = (factor * gradient).clamp(-0.1, 0.1)
        clipped += int((expected.abs() == 0.1).sum())
        assert relative_error(changed[name], expected) < 1e-14
    assert clipped > 10


@pytest.mark.parametrize("rule", RULES)
def test_adds_to_what_is_there(rule):
    case = graph_case()
    once = gradients(rule, case)
    for p in case.network.parameters():
        p.grad = torch.ones_like(p)
    rule(case.network, case.x, case.y)
    for name, p in case.network.named_parameters():
        assert relative_error(p.grad - 1, once[name]) < 1e-12


def carrying(network):
    return [p for p in network.projections.values() if p.weight is not None and p.source != "input"]


def trained(case, preset, steps, optimiser=torch.optim.SGD, lr=0.05, decay=None, **options):
    optimiser = optimiser(case.network.parameters(), lr=lr, **options)
    for _ in range(steps):
        optimiser.zero_grad()
        relax_backward(case.network, case.x, case.y, assumptions=preset, options=BackwardOptions(Updates(decay=decay)))
        optimiser.step()


@pytest.mark.catches("psi not updated")
@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
def test_feedback_that_starts_at_the_weights_follows_ar(optimiser, generator):
    ar, learned = graph_case(), graph_case()
    learned.network.add_feedback("learned-feedback", generator)
    with torch.no_grad():
        for p in carrying(learned.network):
            p.feedback.copy_(p.weight)
    trained(ar, "ar", 20, optimiser)
    trained(learned, "learned-feedback", 20, optimiser)
    for name, value in ar.network.state_dict().items():
        assert relative_error(learned.network.state_dict()[name], value) < 1e-12, name
    start = graph_case().network.state_dict()
    moved = relative_error(ar.network.state_dict()["conv1->conv2.weight"], start["conv1->conv2.weight"])
    assert moved > 1e-3


def offsets(network):
    return {p.name: (p.weight - p.feedback).detach().clone() for p in carrying(network)}


def test_learned_feedback_keeps_its_offset_under_plain_sgd(generator):
    case = graph_case()
    case.network.add_feedback("learned-feedback", generator)
    before = offsets(case.network)
    trained(case, "learned-feedback", 20)
    for name, offset in offsets(case.network).items():
        assert relative_error(offset, before[name]) < 1e-13


@pytest.mark.catches("decay of W only")
def test_kolen_pollack_shrinks_its_offset_at_the_rate_of_the_decay(generator):
    case = graph_case()
    case.network.add_feedback("kolen-pollack", generator)
    before = offsets(case.network)
    trained(case, "kolen-pollack", 20, lr=0.05, decay=0.4)
    for name, offset in offsets(case.network).items():
        assert relative_error(offset, (1 - 0.05 * 0.4) ** 20 * before[name]) < 1e-12


def test_random_feedback_is_never_touched(generator):
    case = graph_case()
    case.network.add_feedback("random-feedback", generator)
    before = {p.name: p.feedback.clone() for p in carrying(case.network)}
    trained(case, "random-feedback", 5, weight_decay=0.1)
    assert all(torch.equal(p.feedback, before[p.name]) for p in carrying(case.network))


SHARES = (slice(0, 2), slice(2, 3), slice(3, 3))
"""Of a batch of three, for three processes: as unequal as can be, and one without samples."""


PRESETS = ["backprop", "ar", "learned-feedback", "kolen-pollack", "current-presynaptic"]


def shared(call, options):
    """Call each process with its share, each adding what all have sent; returns what each call returned.

    The processes are copies of one network, one after the other; what they would send is kept, and added by hand.
    """
    sent = []

    def record(tensors):
        sent.append([x.clone() for x in tensors])
        return tensors

    for share in SHARES:
        call(share, through(options, record))
    total = [sum(parts) for parts in zip(*sent, strict=True)]
    return [call(share, through(options, lambda tensors: [x.clone() for x in total])) for share in SHARES]


def through(options, across):
    return replace(options, updates=replace(options.updates, across=across))


def rule_of(preset):
    """(network, x, y, options) -> Backward"""
    if preset == "backprop":
        return lambda *batch, options=None: backprop_backward(
            *batch, **({"reduction": options.reduction, "updates": options.updates} if options else {})
        )
    return lambda *batch, options=None: relax_backward(*batch, 12, eta=0.2, assumptions=preset, options=options)


def learned(preset, case, options, share=slice(None)):
    """Gradients by name, and what the call returned."""
    network = copy.deepcopy(case.network)
    result = rule_of(preset)(network, case.x[share], case.y[share], options=options)
    return {name: p.grad for name, p in network.named_parameters()}, result


def with_feedback(case, preset, generator):
    if preset != "backprop":
        case.network.add_feedback(preset, generator)
    return case


def assert_shares_add_up(preset, case, options):
    whole, expected = learned(preset, case, options)
    for share, (gradients, result) in zip(
        SHARES, shared(lambda share, options: learned(preset, case, options, share), options), strict=True
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
    options = BackwardOptions(Updates({"conv": 2.0}, clip=0.03, decay=decay), reduction)
    assert_shares_add_up(preset, case, options)
    free, _ = learned(preset, case, BackwardOptions(Updates({"conv": 2.0}, decay=decay and 0.0), reduction))
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
    assert_shares_add_up(preset, case, BackwardOptions(Updates(decay=0.3 if preset == "kolen-pollack" else None)))


@pytest.mark.parametrize("preset", PRESETS[:2])
def test_all_processes_know_what_one_has_met(preset):
    case = graph_case()
    case.x[2] = torch.inf

    def call(share, options):
        return rule_of(preset)(copy.deepcopy(case.network), case.x[share], case.y[share], options=options)

    for result in shared(call, BackwardOptions(check_finite=False)):
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

    def angles(share, options):
        network, batch = copy.deepcopy(case.network), (case.x[share], case.y[share])
        for name, p in network.named_parameters():
            p.grad = gradients[name].clone()
        return update_angles(network, *batch, options=options, assumptions="kolen-pollack")

    options = BackwardOptions(Updates(decay=0.3, clip=0.1))
    gradients, _ = learned("kolen-pollack", case, options)
    whole = angles(slice(None), options)
    assert max(whole.values()) > 10
    for found in shared(angles, options):
        assert found == pytest.approx(whole, rel=1e-9, abs=1e-5)


def test_an_empty_batch_is_refused_where_nobody_shares_it():
    case = graph_case()
    for preset in ("backprop", "ar"):
        with pytest.raises(ActrelaxError, match=r"the network takes \(batch, "):
            rule_of(preset)(case.network, case.x[:0], case.y[:0])
