"""A captured network runs the module's own code, and is a network: populations, projections, hops, names."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from modules import MODULES
from torch import nn

from actrelax import Record, RelaxationProblem, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.results.problem_file import load_problem

CAPTURED = [name for name, case in MODULES.items() if case.refused is None]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [4, 3])
@pytest.mark.parametrize("name", CAPTURED)
def test_outputs_and_buffers_are_the_modules(name, batch, training):
    case = MODULES[name]
    module = case.make()
    plain = case.make().train(training)
    network = Network.from_module(module, case.stimuli(), output=case.output, paths=case.paths).train(training)
    x = case.stimuli(batch, seed=5)
    for repeat in range(2):
        torch.manual_seed(repeat)
        expected = case.output_of(plain(x))
        torch.manual_seed(repeat)
        passed = network.feedforward(x)
        assert torch.equal(passed.output, expected)
        for key, buffer in module.named_buffers():
            assert torch.equal(buffer, plain.get_buffer(key)), key


@pytest.mark.parametrize("name", CAPTURED)
def test_the_graph_is_one_of_a_network(name):
    case = MODULES[name]
    network = Network.from_module(case.make(), case.stimuli(), output=case.output, paths=case.paths)
    assert next(iter(network.populations)) == "input"
    assert network.output == "output"
    assert not network.outgoing["output"]
    for hidden in network.hidden:
        assert network.outgoing[hidden], hidden
        assert network.graph.above[hidden] >= 1
    for relay in network.relays:
        assert relay not in network.populations
        assert all(p.number is None for p in network.incoming[relay])
    for projection in network.projections.values():
        assert projection.target in {*network.populations, *network.relays}
    assert len(set(network.projections)) == len(network.projections)


def test_names_follow_modules():
    case = MODULES["residual"]
    network = Network.from_module(case.make(), case.stimuli())
    assert list(network.populations) == ["input", "stem", "conv1", "conv2", "output"] or network.hidden[0] == "stem"
    attention = Network.from_module(MODULES["multihead"].make(), MODULES["multihead"].stimuli())
    assert "attend.out_proj" in attention.projections
    cell = Network.from_module(MODULES["cell"].make(), MODULES["cell"].stimuli())
    assert {"reads", "reads#2", "recurs#5"} <= {*cell.projections}


def test_a_relay_adds_no_hop():
    norm = nn.Sequential(nn.Linear(6, 5), Residual(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 5))), nn.Linear(5, 2))
    network = Network.from_module(norm, torch.randn(3, 6))
    assert network.hidden == ["0", "1.inner.1"]
    assert list(network.relays) == ["0'"]
    assert network.graph.above == {"output": 0, "1.inner.1": 1, "0": 2}
    assert network.graph.sources["1.inner.1"] == ("0",)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Switching(nn.Module):
    """Takes another function once told to."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(6, 5), nn.Linear(5, 3), torch.tanh

    def forward(self, x):
        return self.second(self.function(self.first(x)))


def test_another_path_is_refused_or_taken():
    module, x = Switching(), torch.randn(3, 6)
    one, many = Network.from_module(module, x), Network.from_module(module, x, paths="many")
    module.function = F.relu
    with pytest.raises(ActrelaxError, match=r"took another path than for its example \(call 2, relu, was tanh\)"):
        one.feedforward(x)
    assert torch.equal(many.feedforward(x).output, module(x))
    module.function = lambda x: x.tanh() + 1
    with pytest.raises(ActrelaxError, match=r'\(call 3, add, was linear in second\): capture it with paths="many"'):
        one.feedforward(x)


def test_training_and_evaluation_are_two_paths():
    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))
    network, x = Network.from_module(module, torch.randn(4, 6)), torch.randn(1, 6)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network.feedforward(x)
    assert torch.equal(network.eval().feedforward(x).output, module(x))
    assert not module.training


def test_it_can_be_copied_and_moved():
    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, 3))
    network, x = Network.from_module(module, torch.randn(4, 6)), torch.randn(4, 6)
    other = copy.deepcopy(network)
    assert other.module is not module
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert torch.equal(other.feedforward(x).output, other.module(x))
    assert not torch.equal(other.module[1].running_mean, module[1].running_mean)
    network.to(torch.float32)
    assert network.feedforward(x.float()).output.dtype == torch.float32
    network.load_state_dict(other.state_dict())
    assert float(module[0].weight.detach().abs().max()) == 0


def test_parameters_are_the_modules_own():
    case = MODULES["class-token"]
    module = case.make()
    network = Network.from_module(module, case.stimuli())
    assert dict(network.named_parameters()).keys() == dict(module.named_parameters()).keys()
    assert [*map(id, network.parameters())] == [*map(id, module.parameters())]


def test_a_frozen_stem_leaves_populations_as_they_are():
    case = MODULES["residual"]
    module = case.make()
    before = Network.from_module(module, case.stimuli()).hidden
    module.stem.requires_grad_(False)
    assert Network.from_module(module, case.stimuli()).hidden == before


@pytest.mark.catches("value lost in place")
def test_lost_initial_activities_are_kept_from_the_start():
    """Populations that are overwritten later keep the values that weights and copies read."""
    case = MODULES["overwritten"]
    module = case.make()
    network = Network.from_module(module, case.stimuli())
    x = case.stimuli(3, seed=5)
    for training in (True, True, False, False):  # a path is recorded with the values of its first pass, or without
        passed = network.train(training).feedforward(x)
        stem = F.softplus(F.linear(x, module.stem.weight, module.stem.bias)) - 1
        hidden = stem + torch.tanh(module.hidden(stem))
        assert torch.allclose(passed.activities["stem"], stem, atol=1e-14)
        assert torch.allclose(passed.activities["hidden"], hidden, atol=1e-14)


def test_stimuli_of_another_dtype_are_refused():
    network = Network.from_module(nn.Linear(4, 3), torch.randn(2, 4))
    with pytest.raises(ActrelaxError, match=r"weights are torch\.float64 on cpu, got stimuli of torch\.float32 on cpu"):
        network.feedforward(torch.randn(2, 4).float())
    casts = nn.Sequential(Casting(), nn.Linear(4, 3))
    network = Network.from_module(casts, torch.randn(2, 4).float())
    assert network.feedforward(torch.randn(2, 4).float()).output.dtype == torch.float64


class Casting(nn.Module):
    def forward(self, x):
        return x.double()


def test_a_pass_that_is_not_used_is_freed():
    """Nothing holds it in a circle: memory must not wait for Python's collector."""
    case = MODULES["shifted"]
    network = Network.from_module(case.make(), case.stimuli())
    gc.disable()
    try:
        passed = network.feedforward(case.stimuli(3))
        seen = [weakref.ref(passed), weakref.ref(passed.operations[0]), weakref.ref(passed.operations[-1].x)]
        del passed
        assert all(each() is None for each in seen)
    finally:
        gc.enable()


def test_its_trajectory_can_be_saved(tmp_path):
    case = MODULES["residual"]
    network = Network.from_module(case.make(), case.stimuli())
    problem = RelaxationProblem.from_batch(network, case.stimuli(4), torch.arange(4) % 3)
    solve(problem, "euler", 3, eta=0.1, record=Record(path=tmp_path / "run.nc"))
    with pytest.raises(ActrelaxError, match=r"a file can.t hold the module Residual"):
        load_problem(tmp_path / "run.nc")
