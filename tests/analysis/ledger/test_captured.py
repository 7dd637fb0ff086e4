"""The ledger of captured networks. Oracle: interventions on drives, signals, weights and activities of a module."""

from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from modules import MODULES
from torch import Tensor, nn

from actrelax.analysis.ledger import Ledger, Read, ledger_of
from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.captured import learn_at
from actrelax.models.learning.captured_updates import ParameterUpdates
from actrelax.models.network import CapturedPass, Network, build, build_module
from actrelax.models.network.captured.operations import Convolution, Linear, Recorded
from actrelax.models.problem import RelaxationProblem


def _chain():
    widths = [6, 5, 4, 3]
    layers = [nn.Sequential(nn.Linear(m, n), nn.Tanh()) for m, n in pairwise(widths)]
    return nn.Sequential(*layers, nn.Linear(3, 2))


CASES = {
    "chain": (_chain, lambda: torch.randn(3, 6), None),
    **{name: (case.make, case.stimuli, case.output) for name, case in MODULES.items() if not case.refused},
    "digits-resnet-8": (lambda: build_module("digits-resnet-8", generator=0), lambda: torch.rand(3, 1, 8, 8), None),
    "digits-vit": (lambda: build_module("digits-vit", generator=0), lambda: torch.rand(3, 1, 8, 8), None),
}
LIFTED = ["chain", "batch-norm", "residual", "gated", "cell", "complex", "items", "pooled", "lstm", "digits-resnet-8"]
"""Modules of each kind on which lifted assumptions may act."""
FIXED = [name for name in CASES if name not in MODULES or MODULES[name].paths == "one"]
"""Modules whose operations don't depend on the data."""


def captured(name) -> tuple[Network, Tensor]:
    make, stimuli, output = CASES[name]
    paths = MODULES[name].paths if name in MODULES else "one"
    x = stimuli()
    return Network.from_module(make(), x, output, paths), x


def forward(network, x, bump=None) -> CapturedPass:
    """Return a forward pass, always with the same random numbers; `bump` changes the drives."""
    with network.fork_state(x), bumped(bump):
        torch.manual_seed(5)
        return network.feedforward(x)


@contextmanager
def bumped(bump):
    """Add `bump(number, drive)` to each drive of a forward pass."""
    kinds, number = (Linear, Convolution, Recorded), iter(range(1000))
    originals = {kind: kind.call for kind in kinds}
    for kind in kinds if bump else ():
        kind.call = lambda self, call=originals[kind]: (drive := call(self)) + bump(next(number), drive)
    try:
        yield
    finally:
        for kind, call in originals.items():
            kind.call = call


def sent(passed, signals) -> dict[str, Tensor]:
    """Return what each population sends along each projection into it, for given activities."""
    found = {}
    for number, name in enumerate(passed.path.names):
        wires, gains = passed.path.incoming[number], passed.gains_of(number)
        arrived = passed.adjoints(number, signals[name], gains.sending or ["feedforward"], keep=True)
        gained = enumerate(zip(wires, gains.sent, strict=True))
        found |= {wire.name: arrived[gain][position] for position, (wire, gain) in gained}
    return found


def activities(passed) -> dict[str, Tensor]:
    """Return random activities of all populations, relays included."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for number, (node, slot) in enumerate(passed.edges):
        shape = node.variable.shape if hasattr(node, "variable") else node._input_metadata[slot].shape
        x = torch.randn(tuple(shape), generator=generator)
        is_complex = not hasattr(node, "variable") and node._input_metadata[slot].dtype.is_complex
        found[passed.path.names[number]] = x.to(torch.complex128) if is_complex else x
    return found


def noise(drive) -> Tensor:
    return 3 * torch.randn(drive.shape, generator=torch.Generator().manual_seed(drive.numel()), dtype=drive.dtype)


def ledger(network, x, assumptions="ar") -> Ledger:
    torch.manual_seed(5)
    return ledger_of(network, assumptions, x)


@pytest.mark.parametrize(
    ("assumptions", "name"),
    [("ar", name) for name in FIXED]
    + [(lifted, name) for lifted in ("no-derivatives", "constant-statistics") for name in LIFTED],
)
def test_signals_depend_on_the_forward_pass_only_where_the_ledger_says_so(name, assumptions):
    network, x = captured(name)
    before, after = (forward(network, x, bump) for bump in (None, lambda number, drive: noise(drive)))
    signals, found = activities(before), ledger(network, x, assumptions)
    one, other = (sent(passed.under(PRESETS[assumptions]), signals) for passed in (before, after))
    for entry in found.entries:
        if entry.projection in one and one[entry.projection] is not None:
            reads = any(what.startswith("saved") for what, _ in entry.feedback_reads | entry.update_reads)
            is_equal = torch.equal(one[entry.projection], other[entry.projection])
            assert is_equal == (not reads) or (is_equal and name in CAUTIOUS), entry


@pytest.mark.parametrize("name", FIXED)
def test_where_the_ledger_says_unit_no_signal_needs_the_state_of_another_unit(name):
    network, x = captured(name)
    before = forward(network, x)
    signals, found = activities(before), ledger(network, x)
    one = sent(before, signals)
    for p in before.network.projections.values():
        if p.number is None:
            continue
        chosen = dict[int, Tensor]()

        def half(number, drive, p=p, chosen=chosen):
            if number != p.number:
                return torch.zeros_like(drive)
            chosen[number] = torch.rand(drive.shape, generator=torch.Generator().manual_seed(2)) < 0.5
            return noise(drive) * chosen[number]

        other = sent(forward(network, x, half), signals)
        entry = found[p.name]
        if one[p.name] is not None and entry.mixing == "unit" and "winners" not in entry.remembered:
            unchanged = ~chosen[p.number]
            assert torch.equal(one[p.name][unchanged], other[p.name][unchanged]), entry


@pytest.mark.parametrize(
    ("assumptions", "name"), [("ar", name) for name in CASES] + [("constant-statistics", name) for name in LIFTED]
)
def test_samples_mix_where_the_ledger_says_so(name, assumptions):
    network, x = captured(name)
    passed = forward(network, x).under(PRESETS[assumptions])
    signals, found = activities(passed), ledger(network, x, assumptions)
    one = sent(passed, signals)
    others = {population: signal.clone() for population, signal in signals.items()}
    for signal in others.values():
        signal[-1] = 0.5 - signal[-1]
    other = sent(passed, others)
    for entry in found.entries:
        before, after = (each.get(entry.projection) for each in (one, other))
        by_sample = signals[entry.target].shape[:1] == (len(x),) if entry.target in signals else False
        if before is not None and by_sample and before.shape[:1] == (len(x),):
            assert torch.equal(before[:-1], after[:-1]) == (entry.mixing != "batch"), entry


CAUTIOUS = {"complex", "own-function", "view", "items"}
"""Modules with functions that the ledger doesn't know, which may need less than it says."""
REFUSED = {
    *((name, preset) for name in ("digits-resnet-8", "digits-vit", "pre-activation") for preset in PRESETS),
} & {(name, preset) for name in CASES for preset in ("unfrozen", "unfrozen-relaxation", "unfrozen-weights")}
"""Current gains of pieces that are more than one pointwise function of a sum."""


@pytest.mark.parametrize("assumptions", [name for name in PRESETS if name != "continuous"])
@pytest.mark.parametrize("name", ["chain", "digits-resnet-8", "digits-vit", "pre-activation", "tied-transposed"])
def test_feedback_and_updates_read_what_the_ledger_says_and_nothing_else(name, assumptions):
    network, x = captured(name)
    network.add_feedback(assumptions, 3)
    if (name, assumptions) in REFUSED:
        with pytest.raises(ActrelaxError, match="has no current gain"):
            ledger(network, x, assumptions)
        return
    found, passed = ledger(network, x, assumptions), forward(network, x)
    clamped = torch.randn_like(passed.output)
    problem = RelaxationProblem.from_batch(
        network, passed, clamped, loss="sum-of-squares", assumptions=PRESETS[assumptions]
    )
    state = {name: torch.randn_like(activity) for name, activity in problem.initial_state().items()}
    before = measured(problem, state)
    weighted = [p for p in problem.network.projections.values() if p.number is not None]
    for p in weighted:
        operation, psi = passed.operations[p.number], network.feedback.find(p.psi)
        tied = [q for q in weighted if shares(passed.operations[q.number].weight, operation.weight)]
        with disturbed(operation.used):
            reads = {Read("weight", q.name) for q in tied}
            reading = readers(found, problem.network, reads, PRESETS[assumptions])
            assert changes(before, measured(problem, state)) == reading
        if psi is not None:
            with disturbed(psi):
                reads = {Read("feedback", p.psi)}
                assert changes(before, measured(problem, state)) == readers(found, problem.network, reads)
        kept, operation.x = operation.x, -operation.x
        what = "activity" if p.source == "input" else "forward activity"
        changed = changes(before, measured(problem, state))
        operation.x = kept
        (read,) = {read for read in found[p.name].update_reads if read.of == p.source and read.what == what} or {None}
        assert (f"update of {p.weight}" in changed) == (read is not None)
        assert changed <= {f"update of {p.weight}"}


@contextmanager
def disturbed(tensor):
    tensor.data.neg_()
    yield
    tensor.data.neg_()


def changes(before, after) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def readers(found, network, reads, assumptions=None) -> set[str]:
    """Return the signals and updates that read one of some tensors; decay is added to updates later."""
    names = set()
    for entry in found.entries:
        p = network.projections.get(entry.projection)
        if p is None or p.target in network.relays:
            continue
        updating = set(entry.update_reads)
        for other in found.entries:  # the activity of a relay follows from what it receives
            if other.source in network.relays and Read("activity", other.source) in updating:
                updating |= other.feedback_reads
        names |= {f"feedback of {p.name}"} if entry.feedback_reads & reads else set()
        decay = {Read("weight", p.name)} if assumptions and network.decays(p, assumptions) else set()
        names |= {f"update of {p.weight}"} if (updating - decay) & reads else set()
    return names


def measured(problem, state) -> dict[str, Tensor]:
    """Return the feedback of all projections to relaxing populations, and the updates of all weights, at a state."""
    problem.feedforward._relayed.clear()
    problem.feedforward._sent.clear()
    relays = problem.network.relays  # what they send follows from all that they receive
    carrying = [p for p in problem.feedback_projections.values() if p.target not in relays]
    signals = {f"feedback of {p.name}": problem.feedback_along(p, dict(state)).clone() for p in carrying}
    updates, names = ParameterUpdates(), {id(p): name for name, p in problem.network.named_parameters()}
    learn_at(problem, dict(state), updates)
    weights = {p.weight for p in problem.network.projections.values() if p.weight}
    learned = {names[id(p)]: update.clone() for p, update in updates.gradients().items() if id(p) in names}
    return signals | {f"update of {name}": update for name, update in learned.items() if name in weights}


def shares(one, other) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


@pytest.mark.parametrize("name", ["digits-resnet-8", "digits-vit", "depthwise", "lstm", "embedding"])
def test_pieces_that_autograd_transposes_say_so(name, monkeypatch):
    network, x = captured(name)
    passed, found = forward(network, x), ledger(network, x)
    signals = activities(passed)

    def refuse(*args, **kwargs):
        raise RuntimeError("autograd is asked")

    def pass_down(number, wires):
        arrived = passed.transposed(number, signals[passed.path.names[number]], keep=True, learn=False)
        for wire, signal in zip(wires, arrived, strict=True):
            if wire.operation is not None:
                passed.operations[wire.operation].both(signal, (True, True, False), keep=True)

    monkeypatch.setattr(torch.autograd.Variable, "_execution_engine", SimpleNamespace(run_backward=refuse))
    for number, wires in enumerate(passed.path.incoming):
        by_autograd = {found[wire.name].by_autograd for wire in wires}
        if by_autograd == {False}:
            pass_down(number, wires)
        elif wires:
            assert by_autograd == {True}
            with pytest.raises(RuntimeError, match="autograd is asked"):
                pass_down(number, wires)


class Gates(nn.Module):
    """A SiLU written out, which a unit computes alone, and a gate, which needs another unit's state."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(5, 5) for _ in range(4))

    def forward(self, x):
        x = self.a(x)
        x = x * torch.sigmoid(x)
        return self.d(self.b(x) * torch.tanh(self.c(x)))


def test_a_product_of_two_drives_needs_states_and_a_function_of_one_drive_does_not():
    network = Network.from_module(Gates(), torch.randn(3, 5))
    found = ledger_of(network, "ar", torch.randn(3, 5))
    assert found["a"].mixing == "unit"
    assert found["b"].mixing == found["c"].mixing == "population"
    assert found["b"].remembered == ("activity", "Mul")
    assert found["c"].remembered == ("activity", "slope", "Mul")


def test_normalisation_needs_other_samples_other_units_or_neither():
    x = torch.randn(3, 4, 6, 6)
    mixing = {}
    for norm in (nn.BatchNorm2d(4), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4).eval()):
        module = nn.Sequential(nn.Conv2d(4, 4, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))
        found = ledger_of(Network.from_module(module, x), "ar", x)
        mixing[f"{type(norm).__name__} {norm.training}"] = found["0"].mixing
    assert mixing == {
        "BatchNorm2d True": "batch",
        "InstanceNorm2d True": "population",
        "GroupNorm True": "population",
        "BatchNorm2d False": "unit",
    }


@pytest.mark.parametrize(
    ("function", "remembered"),
    [
        (nn.PReLU(4), ("slope",)),
        (nn.CELU(), ("slope",)),
        (nn.Softshrink(), ("slope",)),
        (nn.PixelShuffle(2), ()),
        (nn.ChannelShuffle(2), ()),
        (nn.Unfold(2, stride=2), ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_these_functions_need_the_unit_alone(function, remembered):
    x = torch.randn(3, 4, 6, 6)
    module = nn.Sequential(nn.Conv2d(4, 4, 3), function, nn.Flatten(), nn.Linear(64, 2)).to(x.dtype)
    entry = ledger_of(Network.from_module(module, x), "ar", x)["0"]
    assert (entry.mixing, entry.remembered) == ("unit", remembered)


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 4), nn.Linear(6, 5)
        self.product, self.head = nn.Bilinear(4, 5, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.product(self.one(x), self.two(x))))


def test_parameters_that_are_multiplied_by_other_units_need_these():
    x = torch.randn(3, 6)
    found = ledger_of(Network.from_module(Bilinear(), x), "ar", x)["phi of one"]
    assert found.mixing == "population"
    assert found.remembered == ("activity", "slope", "Trilinear")


def test_the_scale_of_a_norm_reads_what_the_norm_has_saved():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)), torch.randn(3, 4)
    network = Network.from_module(module, x)
    passed, updates = network.feedforward(x), []
    number = passed.path.names.index("0")
    for _ in range(2):
        updates.append(passed.transposed(number, torch.ones(3, 6), keep=True)[1:])
        passed.edges[number][0]._saved_input.data.mul_(torch.rand(6))
    same = [torch.equal(*pair) for pair in zip(*updates, strict=True)]
    assert same == [p is not module[1].weight for p in passed.own_parameters(number)]
    assert Read("saved by LayerNorm", "0") in ledger_of(network, "ar", x)["phi of 0"].update_reads


NORMS = {
    "layer": lambda: nn.LayerNorm([4, 4, 4]),
    "group": lambda: nn.GroupNorm(2, 4),
    "batch": lambda: nn.BatchNorm2d(4),
    "batch, in evaluation": lambda: nn.BatchNorm2d(4).eval(),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
}


@pytest.mark.parametrize("learning", ["bias", "weight"])
@pytest.mark.parametrize("name", NORMS)
def test_the_bias_of_a_norm_reads_the_signal_alone_and_its_scale_what_the_norm_has_saved(name, learning):
    torch.manual_seed(0)
    norm = NORMS[name]()
    for parameter in ("bias", "weight"):
        getattr(norm, parameter).requires_grad_(parameter == learning)
    module, x = nn.Sequential(nn.Conv2d(4, 4, 3), norm, nn.Conv2d(4, 2, 3)), torch.randn(3, 4, 6, 6)
    network = Network.from_module(module, x)
    passed = network.feedforward(x)
    number, updates = passed.path.names.index("0"), []
    node = passed.edges[number][0]
    node = node if hasattr(node, "_saved_input") else node.next_functions[0][0]  # instances are a view of the batch
    for _ in range(2):
        updates.append(passed.transposed(number, torch.ones(3, 4, 4, 4), keep=True)[1])
        node._saved_input.data.mul_(torch.rand(4, 4))
    reads = {read for read in ledger_of(network, "ar", x)["phi of 0"].update_reads if read.what.startswith("saved")}
    assert torch.equal(*updates) == (not reads) == (learning == "bias")


def test_attention_needs_other_units_and_the_residual_stream_needs_nothing():
    found = ledger(*captured("digits-vit"))
    assert found["blocks.0.qkv"].remembered == ("activity", "Attention")
    assert found["patches->patches'"].not_local == ["other units"]
    assert found["blocks.0.out->blocks.0.down"].not_local == []
    assert found["blocks.0.up"].synapses == 17  # tokens
    assert found["phi of patches"].remembered == ()  # class token and positions are added
    assert found["phi of patches'"].remembered == ("activity",)
    assert found.hops == 17


def test_a_tied_weight_counts_the_synapses_of_all_its_projections():
    found = ledger(*captured("tied-transposed"))
    assert [entry.synapses for entry in found.entries if entry.synapses] == [2, 2]
    found = ledger(*captured("tied"))
    assert {entry.synapses for entry in found.entries if entry.synapses} == {1, 6}  # five tokens, and the readout


def test_a_captured_chain_has_the_ledger_of_the_network_that_was_built():
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3))
    built, x = ledger_of(Network.from_sequential(module, (6,))), torch.randn(3, 6)
    found = ledger_of(Network.from_module(module, x), "ar", x)
    same = ("feedback", "feedback_slope", "update_slope", "remembered", "synapses", "mixing")
    for ours, theirs in zip(found.entries, built.entries, strict=True):
        assert [getattr(ours, part) for part in same] == [getattr(theirs, part) for part in same]
    assert (found.hops, found.time, found.global_signals) == (built.hops, built.time, built.global_signals)


def test_the_module_is_left_as_it_was():
    module = build_module("digits-resnet-8", generator=0)
    network = Network.from_module(module, torch.rand(3, 1, 8, 8))
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    state = torch.get_rng_state()
    ledger_of(network, "ar", torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_a_captured_network_needs_a_batch():
    network = Network.from_module(nn.Linear(4, 3), torch.zeros(2, 4))
    with pytest.raises(ActrelaxError, match=r"derived from the graph of a batch: pass ledger_of\(network, "):
        ledger_of(network)
    assert ledger_of(build("digits-mlp"), "ar").network == "64-32-10"
