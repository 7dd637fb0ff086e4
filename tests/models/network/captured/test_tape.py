"""The tape sees every weighted operation, and knows weights from data."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.edges import edge_of
from actrelax.models.network.captured.held import Held
from actrelax.models.network.captured.tape import AnotherPath, Tape


def taped(function, x, module, **options):
    constants = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    tape = Tape(constants, x, **options)
    with tape:
        result = function(x)
    return tape, result


def test_operations_are_cut_out_of_the_graph():
    module, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(5, 4)
    tape, output = taped(module, x, module)
    assert tape.operations[0].weight is module[0].weight
    assert tape.operations[1].weight is module[2].weight
    assert tape.calls == ["linear", "tanh", "linear"]
    assert tape.sources[0] is None
    assert tape.sources[1][0].name() == "TanhBackward0"
    assert edge_of(output)[0] in tape.drives
    assert torch.equal(output, module(x))
    with pytest.raises(ActrelaxError, match="has no backward pass"):
        output.sum().backward()


def test_what_runs_without_gradients_is_left_alone():
    module, x = nn.Linear(4, 3), torch.randn(5, 4)

    def forward(x):
        with torch.no_grad():
            module(x)
        return module(x)

    tape, _ = taped(forward, x, module)
    assert len(tape.operations) == 1


def test_attention_shows_its_weights():
    module, x = nn.MultiheadAttention(4, 2), torch.randn(5, 3, 4, requires_grad=True)
    tape, _ = taped(lambda x: module(x, x, x)[0], x, module)
    assert tape.calls.count("linear") == 2


def test_weights_are_made_of_parameters_alone():
    module, x = nn.Linear(4, 4), torch.randn(5, 4)

    def forward(x):
        q = F.elu(module(x)) + 1
        halves = q.chunk(2, -1)
        low_rank = module.weight[:, :2] @ module.weight[:2]  # a weight
        y = q @ low_rank  # a projection
        return y @ (halves[0].t() @ halves[1]).repeat(2, 2)  # of data alone

    tape, _ = taped(forward, x, module)
    assert [operation.weight.shape for operation in tape.operations] == [(4, 4), (4, 4)]


def test_an_identity_stays_that_of_the_buffer_it_was():
    module, x = nn.BatchNorm1d(4), torch.randn(5, 4)
    held = Held(module)
    tape = Tape(held.constants(), x)
    kept = id(module.running_mean)
    module.running_mean = module.running_mean + 1
    assert all(id(tensor) == key for key, tensor in tape.constants.items())
    assert float(tape.constants[kept].sum()) == 0


def test_autocast_is_that_of_the_call():
    module, x = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]).float(), torch.randn(5, 4, dtype=torch.float32)

    def forward(x):
        with torch.autocast("cpu", torch.bfloat16):
            y = module[0](x)
            with torch.autocast("cpu", enabled=False):
                return module[1](y.float())

    tape, result = taped(forward, x, module)
    assert torch.equal(result, forward(x))
    assert [operation.used.dtype for operation in tape.operations] == [torch.bfloat16, torch.float32]


def test_a_stimulus_that_requires_a_gradient_is_data():
    module, x = nn.Linear(4, 4), torch.randn(5, 4, requires_grad=True)
    tape, _ = taped(lambda x: (2 * x) @ module.weight + x.sum(0) @ x.t() @ (2 * x), x, module)
    assert len(tape.operations) == 1


@pytest.mark.parametrize("calls", [["linear", "relu"], ["linear"]])
def test_a_call_that_is_not_expected(calls):
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with pytest.raises(AnotherPath) as error:
        taped(module, torch.randn(2, 4), module, expected=calls)
    assert error.value.args == (1,)


def test_values_are_kept_from_before_they_are_overwritten():
    module, x = nn.Linear(4, 3), torch.randn(2, 4)

    def forward(x):
        y = torch.tanh(module(x))
        y.mul_(2)
        return y

    place = (1, False, 0)
    for copies in (True, False):
        tape, result = taped(forward, x, module, expected=["linear", "tanh", "mul_"], wanted={1: [(place, 7, copies)]})
        assert torch.equal(2 * tape.values[7], result) == copies
