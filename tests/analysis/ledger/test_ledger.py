"""The ledger. Oracle: interventions; a tensor that is disturbed changes what reads it, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from networks import conv_recurrent_case, graph_case, hierarchy_case, make_case, mlp_case
from torch import Tensor, nn

from actrelax.analysis.ledger import Read, ledger_of
from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.engines import Settle, Steps, settle, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, local_updates, relax_backward, relax_continuously
from actrelax.models.network import Network, Projection, build
from actrelax.models.problem import RelaxationProblem

CASES = {
    "relu": lambda: mlp_case("relu", seed=3),
    "graph": graph_case,
    "hierarchy": hierarchy_case,
    "conv-recurrent": conv_recurrent_case,
}
MIXED = Assumptions(
    dense=Knobs(feedback="sign", weight_gain="current"),
    conv=Knobs(feedback="random", activity_gain="none", presynaptic="current"),
    projections={"hidden1->hidden2": Knobs(feedback="learned", activity_gain="current", weight_gain="none")},
)
ASSUMPTIONS = PRESETS | {"mixed": MIXED}


@dataclass
class Experiment:
    """A problem whose tensors can be disturbed, its state, and the ledger."""

    problem: RelaxationProblem
    state: Mapping[str, Tensor]
    options: BackwardOptions

    @classmethod
    def of(cls, case, assumptions) -> "Experiment":
        """Return a relaxation from zero, with random activities as its state, all in tensors of their own."""
        network, generator = case.network, torch.Generator().manual_seed(3)
        known = [name for name in assumptions.projections if name in network.projections]
        assumptions = replace(assumptions, projections={name: assumptions.projections[name] for name in known})
        network.add_feedback(assumptions, 7)
        with torch.no_grad():
            passed = own_tensors(network, case.x)
        clamped = torch.randn(passed.activities[network.output].shape, generator=generator)
        problem = RelaxationProblem(network, passed, clamped, assumptions, start="zero")
        state = {name: torch.randn(passed.activities[name].shape, generator=generator) for name in network.hidden}
        return cls(problem, state, BackwardOptions(Updates(decay=0.1 if assumptions.needs_decay else None)))

    @property
    def tensors(self) -> dict[Read, Tensor]:
        """Return all tensors that feedback or an update might read."""
        network, passed = self.problem.network, self.problem.feedforward
        found = {Read("forward activity", name): x for name, x in passed.activities.items() if name != network.input}
        found |= {Read("forward response", name): x for name, x in passed.responses.items()}
        found |= {Read("forward drive", name): x for name, x in passed.drives.items()}
        found |= {Read("activity", name): x for name, x in self.state.items()}
        found[Read("activity", network.input)] = passed.activities[network.input]
        found[Read("activity", network.output)] = self.problem.clamped
        for p in network.projections.values():
            found |= {Read(slot, p.name): getattr(p, slot).data for slot in p.slots}
            routes = passed.routes[p.name]
            pooled = [r.winners for r in (*routes.before, *routes.after) if r.winners is not None]
            found |= {Read("winners", p.name): winners for winners in pooled}
        return found

    def feedback(self) -> dict[str, Tensor]:
        """Return the feedback of each projection at the state."""
        carrying = self.problem.feedback_projections.values()
        return {p.name: self.problem.feedback_along(p, self.state).clone() for p in carrying}

    def updates(self, state=None) -> dict[str, Tensor]:
        """Return the update of each weight at a state."""
        found = {}
        for p in self.problem.network.projections.values():
            changes = dict(local_updates(self.problem, p, self.state if state is None else state, self.options))
            if p.weight is not None:
                found[p.name] = changes[p.weight]
        return found

    def learned(self) -> dict[str, Tensor]:
        """Return the update of each weight after a relaxation that is longer than any path."""
        return self.updates(solve(self.problem, "euler", 7, eta=0.3).state)


def own_tensors(network, x):
    """Return a forward pass with all drives, in which no two tensors share memory."""
    if network.is_recurrent:
        passed = settle(network, x, Settle(Steps(40, eta=0.5)))
        driven = [*network.hidden, network.output]
        drives = {name: network.drive(name, passed.activities, passed.routes) for name in driven}
        passed = replace(passed, drives=drives, responses={name: passed.activities[name] for name in driven})
    else:
        passed = network.feedforward(x)
    return passed.with_tensors([tensor.clone() for tensor in passed.tensors()])


def disturb(tensor: Tensor) -> None:
    """Change a tensor so that every function of interest changes: its sign, its relu, its tanh's slope."""
    if tensor.dtype.is_floating_point:
        tensor.neg_().add_(0.1)
    else:  # the winners of pools move to another unit of the plane
        tensor.copy_(torch.where(tensor == 0, 1, tensor - 1))


def changed_by(measure, before, tensor) -> set[str]:
    """Return the names under which a measure differs from `before` when a tensor is disturbed; restore the tensor."""
    kept = tensor.clone()
    disturb(tensor)
    after = measure()
    tensor.copy_(kept)
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("assumptions", ASSUMPTIONS)
@pytest.mark.parametrize("case", CASES)
def test_a_disturbed_tensor_changes_what_the_ledger_says_reads_it_and_nothing_else(case, assumptions):
    experiment = Experiment.of(CASES[case](), ASSUMPTIONS[assumptions])
    ledger = ledger_of(experiment.problem.network, experiment.problem.assumptions)
    tensors = experiment.tensors
    claimed = {read for entry in ledger.entries for read in entry.feedback_reads | entry.update_reads}
    assert claimed <= tensors.keys()
    with torch.no_grad():
        feedback, updates = experiment.feedback(), experiment.updates()
        for read, tensor in tensors.items():
            reading = {entry.projection for entry in ledger.entries if read in entry.feedback_reads}
            assert changed_by(experiment.feedback, feedback, tensor) == reading, read
            reading = {entry.projection for entry in ledger.entries if read in entry.update_reads}
            assert changed_by(experiment.updates, updates, tensor) == reading, read


@pytest.mark.parametrize("assumptions", ASSUMPTIONS)
@pytest.mark.parametrize("case", ["graph", "hierarchy"])
def test_after_a_relaxation_an_update_has_read_what_its_activities_have_read(case, assumptions):
    experiment = Experiment.of(CASES[case](), ASSUMPTIONS[assumptions])
    ledger = ledger_of(experiment.problem.network, experiment.problem.assumptions)
    everything = {entry.projection: ledger.reads(entry.projection) for entry in ledger.entries if entry.synapses}
    with torch.no_grad():
        learned = experiment.learned()
        for read, tensor in experiment.tensors.items():
            if read.what != "activity":  # which the relaxation replaces
                reading = {name for name, found in everything.items() if read in found}
                assert changed_by(experiment.learned, learned, tensor) == reading, read


@pytest.mark.parametrize("assumptions", PRESETS)
def test_no_sample_reads_another(assumptions):
    experiment = Experiment.of(graph_case(), PRESETS[assumptions])
    before = experiment.feedback()
    for tensor in experiment.tensors.values():
        if len(tensor.shape) > 1 and len(tensor) == 3 and tensor.dtype.is_floating_point:
            tensor[2].neg_()
    after = experiment.feedback()
    assert all(torch.equal(before[name][:2], after[name][:2]) for name in before)
    assert any(not torch.equal(before[name][2], after[name][2]) for name in before)
    ledger = ledger_of(experiment.problem.network, PRESETS[assumptions])
    assert {entry.mixing for entry in ledger.entries} == {"unit"}


@pytest.mark.parametrize("assumptions", [name for name in PRESETS if name != "continuous"])
def test_a_training_step_runs_without_autograd(assumptions):
    networks = []
    for mode in (False, True):
        case = graph_case()
        case.network.add_feedback(assumptions, 7)
        optimiser = torch.optim.SGD(case.network.parameters(), lr=0.1, momentum=0.9)
        decay = 0.1 if PRESETS[assumptions].needs_decay else None
        with torch.inference_mode(mode):
            for _ in range(2):
                optimiser.zero_grad()
                relax_backward(
                    case.network,
                    case.x,
                    case.y,
                    12,
                    eta=0.2,
                    loss=case.loss,
                    assumptions=assumptions,
                    options=BackwardOptions(Updates(decay=decay)),
                )
                optimiser.step()
        networks.append(case.network)
    assert all(torch.equal(a, b) for a, b in zip(*(n.parameters() for n in networks), strict=True))
    assert not torch.equal(next(networks[1].parameters()), next(graph_case().network.parameters()))


def test_continuous_learning_runs_without_autograd():
    case = graph_case()
    before = [p.clone() for p in case.network.parameters()]
    with torch.inference_mode():
        relax_continuously(case.network, case.x, case.y, 12, eta=0.2, rate=0.1, loss=case.loss)
    assert all(not torch.equal(a, b) for a, b in zip(before, case.network.parameters(), strict=True))


@pytest.mark.parametrize("position", [0, 6, 35])
def test_a_weight_of_a_convolution_serves_as_many_synapses_as_it_has_positions(position):
    """Only where the input is not 0 can a weight contribute: count the output pixels that one tap reaches."""
    convolution = nn.Conv2d(1, 1, 3, padding=1, bias=False).requires_grad_(False)
    network = Network(
        (1, 6, 6), {"a": "tanh", "output": "identity"}, [Projection("input", "a", convolution), *_readout()]
    )
    convolution.weight.zero_()
    convolution.weight[0, 0, 1, 1] = 1.0
    reached = torch.count_nonzero(convolution(torch.ones(1, 1, 6, 6)))
    assert ledger_of(network)["input->a"].synapses == reached == 36
    one = torch.zeros(1, 1, 36)
    one[0, 0, position] = 1
    assert torch.count_nonzero(convolution(one.view(1, 1, 6, 6))) == 1


def _readout():
    return [Projection("a", "output", nn.Flatten(), nn.Linear(36, 2))]


def test_projections_that_share_a_parameter_are_counted_together():
    shared = nn.Linear(5, 5)
    edges = [("input", "a", [nn.Linear(4, 5)]), ("a", "b", [shared]), ("b", "output", [shared])]
    case = make_case((4,), {"a": "tanh", "b": "tanh", "output": "identity"}, edges)
    ledger = ledger_of(case.network)
    assert [entry.synapses for entry in ledger.entries] == [1, 2, 2]
    assert "weight sharing" in ledger["a->b"].not_local
    assert ledger["input->a"].not_local == []


def test_a_projection_named_in_the_assumptions_has_its_own_entry():
    lifted = Assumptions(projections={"hidden1->output": Knobs(feedback="random")})
    ledger = ledger_of(build("digits-mlp"), lifted)
    assert ledger.assumptions == "custom"
    assert ledger["hidden1->output"].feedback == "fixed psi"
    assert ledger.not_local == []
    assert ledger_of(build("digits-mlp")).not_local == ["weight transport"]
    with pytest.raises(ActrelaxError, match=r"assumptions name an unknown projection 'hidden9->output'; known"):
        ledger_of(build("digits-mlp"), Assumptions(projections={"hidden9->output": Knobs()}))


def test_the_knobs_count_and_not_the_name_of_the_preset():
    network = build("digits-cnn")
    rebuilt = Assumptions(dense=Knobs(feedback="learned"), conv=Knobs(feedback="learned"))
    assert ledger_of(network, rebuilt) == ledger_of(network, "learned-feedback")
    assert len({ledger_of(network, name).entries for name in PRESETS}) >= 15  # "continuous" differs in its phases


def test_time_is_when_99_percent_of_the_signal_has_arrived():
    """From zero, the lowest population of a chain is its gradient times the share that has arrived."""
    case = mlp_case()
    ledger = ledger_of(case.network)
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, start="zero")
    assert ledger.hops == 3
    exact = solve(problem, "equilibrium").final[ledger.lowest]
    arrived = solve(problem, "exact", 1, dt=ledger.time).final[ledger.lowest] / exact
    assert torch.allclose(arrived, torch.full_like(arrived, 0.99), rtol=1e-6)


def test_the_ledger_of_a_network_with_cycles_has_a_phase_in_which_rates_settle():
    ledger = ledger_of(hierarchy_case().network)
    assert ledger.phases[0] == "rates settle"
    assert ledger.hops is None
    assert ledger.time is None
    assert "without end, in a cycle" in str(ledger)


def test_continuous_plasticity_needs_no_signal_at_the_end():
    network = build("digits-mlp")
    always, partly = (
        Knobs(plasticity="continuous"),
        Assumptions(projections={"input->hidden1": {"plasticity": "continuous"}}),
    )
    end = "synapses learn when the relaxation has ended"
    assert end in ledger_of(network).global_signals
    assert end not in ledger_of(network, Assumptions(dense=always)).global_signals
    assert end in ledger_of(network, partly).global_signals
    assert "weights of input->hidden1 change" in str(ledger_of(network, partly))


def test_unknown_names_are_refused():
    with pytest.raises(ActrelaxError, match=r"unknown projection 'a->b'; known: input->hidden1, hidden1->output"):
        ledger_of(build("digits-mlp"))["a->b"]
    with pytest.raises(ActrelaxError, match=r"unknown assumptions 'arr'"):
        ledger_of(build("digits-mlp"), "arr")
