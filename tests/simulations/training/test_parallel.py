"""The rule of one of several processes, tested with a single process; test_processes.py has two."""

import copy
from functools import partial

import pytest
import torch
from networks import graph_case, make_case
from torch import nn

from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, backprop_backward, relax_backward
from actrelax.models.network import Network
from actrelax.models.results import relative_error
from actrelax.simulations.training.parallel import Shared
from actrelax.simulations.training.processes import Processes


class Captured:
    """A captured network with a norm and one matrix twice, and a batch for it."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)

        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.norm, self.last = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 4)
                self.tied = nn.Linear(6, 6)

            def forward(self, x):
                x = torch.tanh(self.norm(self.first(x)))
                return self.last(torch.tanh(self.tied(torch.tanh(self.tied(x)))))

        self.x = torch.randn(3, 5, generator=generator)
        self.y = torch.tensor([0, 3, 1])
        self.network = Network.from_module(Tied(), self.x)


RULES = ["backprop", "ar", "learned-feedback", "kolen-pollack", "current-presynaptic"]


@pytest.fixture(autouse=True)
def exact(as_users_run):
    """Use double precision, as in the tests of models/."""
    torch.set_default_dtype(torch.float64)


def shared(rule, case, options=None, size=3):
    """Return the rule of a group with one process."""
    options = options or BackwardOptions()
    if rule == "backprop":
        assumptions, own = None, partial(backprop_backward, reduction="sum")
    else:
        updates = Updates(decay=0.0 if options.updates.decay else None)
        summed = BackwardOptions(updates, "sum", check_finite=False)
        own = partial(relax_backward, assumptions=rule, steps=12, eta=0.2, options=summed)
        assumptions = PRESETS[rule]
    return Shared(own, case.network, options, assumptions, Processes(0, 1), lambda: size)


def by_one_process(rule, case, options):
    """Return gradients and result of the rule in one process."""
    network = copy.deepcopy(case.network)
    if rule == "backprop":
        updates = {"updates": options.updates, "reduction": options.reduction}
        result = backprop_backward(network, case.x, case.y, **updates)
    else:
        result = relax_backward(network, case.x, case.y, 12, eta=0.2, assumptions=rule, options=options)
    return [p.grad for p in network.parameters()], result


def assert_same(rule, case, options):
    expected, theirs = by_one_process(rule, case, options)
    learn = shared(rule, case, options)
    for _ in range(2):
        case.network.zero_grad()
        ours = learn(case.network, case.x, case.y)
        for p, gradient in zip(case.network.parameters(), expected, strict=True):
            assert (p.grad is None) == (gradient is None)
            assert gradient is None or relative_error(p.grad, gradient) < 1e-13
    assert float(ours.loss) == pytest.approx(float(theirs.loss), rel=1e-13)
    assert (ours.samples, bool(ours.finite)) == (3, True)
    assert torch.allclose(ours.output, theirs.output, rtol=1e-13)
    assert int(ours.correct) == int((theirs.output.argmax(1) == case.y).sum())


def with_feedback(case, rule, generator):
    case.network.add_feedback("ar" if rule == "backprop" else rule, generator)
    return case


@pytest.mark.filterwarnings("ignore:after 12 steps")
@pytest.mark.parametrize("rule", [*RULES, "constant-statistics"])
def test_it_is_the_rule_of_one_process_on_a_captured_network(rule, generator):
    case = with_feedback(Captured(), rule, generator)
    assert_same(rule, case, BackwardOptions(Updates(clip=0.03, decay=decay_of(rule))))


def decay_of(rule):
    return 0.3 if rule == "kolen-pollack" else None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rule", RULES)
def test_it_is_the_rule_of_one_process(rule, reduction, generator):
    case = with_feedback(graph_case(), rule, generator)
    options = BackwardOptions(Updates({"conv": 2.0}, clip=0.03, decay=decay_of(rule)), reduction)
    assert_same(rule, case, options)


def tied_case():
    edges = [("input", "a", [nn.Linear(6, 6)]), ("a", "b", [nn.Linear(6, 6)]), ("b", "output", [nn.Linear(6, 4)])]
    case = make_case((6,), {"a": "tanh", "b": "tanh", "output": "identity"}, edges)
    lower, middle, _ = case.network.projections.values()
    middle.weight = lower.weight
    case.edges.clear()  # the layers have other weights below
    return case


@pytest.mark.parametrize("rule", RULES)
def test_weights_that_are_shared_or_fixed(rule, generator):
    case = with_feedback(tied_case(), rule, generator)
    lower, _, upper = case.network.projections.values()
    for w in (upper.weight, upper.bias, lower.bias):
        w.requires_grad_(False)
    assert_same(rule, case, BackwardOptions(Updates(decay=decay_of(rule))))


def test_a_clip_can_not_take_sums_apart():
    clipped = BackwardOptions(Updates(clip=0.03))
    assert_same("backprop", tied_case(), clipped)
    with pytest.raises(ActrelaxError, match=r"^--update-clip needs a single process if projections share weights"):
        shared("ar", tied_case(), clipped)


def test_hooks_on_parameters_are_refused():
    case = graph_case()
    next(case.network.parameters()).register_hook(lambda gradient: gradient)
    with pytest.raises(ActrelaxError, match=r"has a hook, but several processes share a batch, .*: remove it\.$"):
        shared("ar", case)


@pytest.mark.parametrize("rule", ["backprop", "ar"])
def test_feedback_weights_that_the_rule_does_not_use(rule, generator):
    assert_same(rule, with_feedback(graph_case(), "learned-feedback", generator), BackwardOptions())


@pytest.mark.parametrize("rule", ["backprop", "ar"])
def test_no_samples(rule):
    case = graph_case()
    result = shared(rule, case)(case.network, case.x[:0], case.y[:0])
    assert all((p.grad == 0).all() for p in case.network.parameters())
    assert (float(result.loss), result.samples, bool(result.finite)) == (0, 3, True)
    assert result.output.shape == (0, 5)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("rule", ["backprop", "ar"])
def test_what_is_not_finite_is_found(rule, clip):
    case = graph_case()
    case.x[2] = torch.inf
    assert not shared(rule, case, BackwardOptions(Updates(clip=clip)))(case.network, case.x, case.y).finite
