"""A recorded path finds the populations of later passes."""

import pytest
import torch
from modules import MODULES

from actrelax.models.network import Network
from actrelax.models.network.captured.paths import KnownPaths

CAPTURED = [name for name, case in MODULES.items() if case.refused is None and case.paths == "one"]


@pytest.mark.parametrize("name", CAPTURED)
def test_the_recorded_path_is_the_walked_one(name):
    """Captured with paths="many", the module is partitioned anew in each pass."""
    case = MODULES[name]
    module = case.make().eval()
    one, many = (Network.from_module(module, case.stimuli(), output=case.output, paths=p) for p in ("one", "many"))
    x = case.stimuli(3, seed=5)
    recorded, walked = one.feedforward(x), many.feedforward(x)
    assert recorded.path is one.path
    assert walked.path is not many.path
    assert recorded.path.names == walked.path.names
    assert recorded.path.wires == walked.path.wires
    for number, name in enumerate(recorded.path.names):
        assert recorded.edges[number][0].name() == walked.edges[number][0].name()
        assert torch.equal(recorded.activities[name], walked.activities[name])


def test_passes_are_checked_ever_more_seldom():
    known = KnownPaths()
    assert known.get("key") is None
    known.add("key", path := object())
    assert known.get("key") is path
    assert [n for n in range(1, 20) if known.is_checked("key")] == [1, 2, 4, 8, 16]
