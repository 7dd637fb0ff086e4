"""The partition: every operation belongs to one population's piece, and its transpose stops at other populations."""

import pytest
import torch
from modules import MODULES
from torch import nn

from actrelax.models.network import Network
from actrelax.models.network.captured.edges import edge_of
from actrelax.models.network.captured.pieces import follow, partition, transpose
from actrelax.models.network.captured.tape import Tape


def split(function, x, module):
    tape = Tape({*map(id, module.parameters())}, x)
    with tape:
        output = function(x)
    return tape, partition(edge_of(output), tape)


def test_a_chain_has_a_population_per_weight():
    module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 2))
    _, found = split(module, torch.randn(5, 4), module)
    output, hidden = found.pieces
    assert (output.drives, output.copies, output.parameters) == ([1], [], [])
    assert hidden.drives == [0]
    assert {*map(id, hidden.parameters)} == {id(module[1].weight), id(module[1].bias)}
    assert hidden.read == 1
    assert found.targets == {0: 1, 1: 0}


def test_what_several_need_is_a_population():
    module, x = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), torch.randn(5, 4)

    def forward(x):
        y = torch.sigmoid(module[0](x))  # read by a weight through exp, and copied
        return y + module[1](y.exp())

    _, found = split(forward, x, module)
    assert [piece.copies for piece in found.pieces] == [[2], [2], []] or [p.copies for p in found.pieces] == [
        [1],
        [],
        [1],
    ]
    assert sum(piece.read is None for piece in found.pieces) == 2  # the output and the copied one


def test_an_operation_that_leads_nowhere_is_left_out():
    module, x = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), torch.randn(5, 4)

    def forward(x):
        y = module[0](x)
        module[1](y.tanh())
        return y.exp()

    _, found = split(forward, x, module)
    assert found.targets == {0: 0}
    assert len(found.pieces) == 1


@pytest.mark.catches("gate left open")
def test_signals_stop_at_populations_before_others():
    """RWKV's shifted copy of a copied population, and a parameter of several pieces."""
    for name in ("shifted", "one-parameter-everywhere"):
        case = MODULES[name]
        network = Network.from_module(case.make(), case.stimuli())
        assert any(piece.gated for piece in network.path.pieces), name
        passed = network.run(case.stimuli(3), values=False)
        for number, piece in enumerate(passed.path.pieces):
            signal = torch.ones(3, *passed.path.shapes[number])
            along = passed.transposed(number, signal, keep=True, learn=False)
            alone = [transpose(passed.edges[number], [edge], signal, True)[0] for edge in passed.inputs(number)]
            for copied, edge in zip(piece.copies, along[len(piece.drives) :], strict=True):
                assert edge is not None, copied
            assert all(torch.equal(a, b) for a, b in zip(along, alone, strict=True))


def test_chains_and_skips_need_no_gates():
    for name in ("batch-norm", "residual", "transformer"):
        case = MODULES[name]
        path = Network.from_module(case.make(), case.stimuli()).path
        assert not any(piece.gated or piece.keep for piece in path.pieces), name


def test_routes_lead_to_edges():
    x = torch.ones(3, requires_grad=True)
    end = (x.exp() + x.sin()).tanh()
    assert follow(end.grad_fn, (0, 1))[0].name() == "SinBackward0"
    assert follow(end.grad_fn, (0, 1, 0, 4)) is None
