"""Names, sources and hops of a captured network's projections."""

import torch
from torch import nn

from actrelax import Network
from actrelax.models.network.captured.structure import structure_of


class Block(nn.Module):
    """A pre-activation block: a relay between the stream and two weights, one of them used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.body = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        y = torch.tanh(self.body(self.norm(x)))
        return self.head(x + self.body(y))


def test_the_structure_of_a_block():
    module = Block()
    network = Network.from_module(module, torch.randn(2, 4))
    names = {}
    found = structure_of(network.path, [name for name, _ in module.named_parameters()], names)
    assert found["_wired"].keys() == network.projections.keys()
    body, again = found["_wired"]["body"], found["_wired"]["body#2"]
    assert (body.source, body.parameter, body.psi) == ("stem'", "body.weight", "body")
    assert (again.weight, again.parameter, again.psi) == ("body.weight", "body.weight", "body")
    assert list(found["relays"]) == ["stem'"]
    assert "stem'" not in found["populations"]
    assert found["_of_stimulus"] == {"input"}
    graph = found["graph"]
    assert graph.order == ("output", "body#2", "body", "stem")
    assert graph.sources["body"] == ("stem",)  # past the relay
    assert set(graph.sources["body#2"]) == {"body", "stem"}
    assert names["body.weight"] == "body"
    kept = structure_of(network.path, [name for name, _ in module.named_parameters()], {"body.weight": "earlier"})
    assert {p.psi for p in kept["_wired"].values() if p.parameter == "body.weight"} == {"earlier"}


def test_what_is_made_of_the_stimulus_alone_carries_no_feedback():
    network = Network.from_module(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), torch.randn(2, 2, 4))
    passed = network.run(torch.randn(2, 2, 4), values=False, wants_input=True)
    first = passed.network.projections["1"]
    assert first.source == "input'"
    assert passed.network._of_stimulus == {"input", "input'"}
    assert not passed.network.carries_feedback(first)
