"""Sentences about what gets no gradient, and silence about what does."""

import warnings

import pytest
import torch
from networks import RECURRENT, mlp_case, recurrent_case
from torch import nn

from actrelax.models.engines import Settle
from actrelax.models.learning import ActivationRelaxation, BackwardOptions


def sentences(module, **arguments):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = ActivationRelaxation(module, **arguments)
    return model, [str(w.message) for w in said]


@pytest.mark.parametrize("case", [make() for make in RECURRENT.values()] + [mlp_case()], ids=[*RECURRENT, "mlp"])
def test_nothing_is_said_where_all_get_one(case):
    model, said = sentences(case.network)
    assert said == []
    nn.functional.cross_entropy(model(case.x), case.y).backward()
    assert all(bool(p.grad.any()) for p in model.parameters())


@pytest.mark.parametrize("assumptions", ["ar", "learned-feedback"])
def test_of_parameters(assumptions):
    case = recurrent_case()
    case.network.add_feedback("learned-feedback", torch.Generator().manual_seed(0))
    case.network.spare = nn.Parameter(torch.zeros(2))
    model, said = sentences(case.network, assumptions=assumptions)
    spare = "parameter 'spare' requires a gradient, but gets none: no projection of the network has it."
    fixed = [
        f"parameter '{name}.feedback' requires a gradient, but gets none: these assumptions don't learn feedback "
        "weights."
        for name in ("a->a", "a->output")
    ]
    assert sorted(said) == sorted([spare, *(fixed if assumptions == "ar" else [])])
    nn.functional.cross_entropy(model(case.x), case.y).backward()
    without = {name for name, p in case.network.named_parameters() if p.grad is None}
    assert without == {sentence.split("'")[1] for sentence in said}


def test_of_arguments():
    case = recurrent_case()
    ones = torch.ones(7, requires_grad=True)
    rates = torch.zeros(3, 7, requires_grad=True)
    model, said = sentences(
        case.network,
        tau={"a": ones},
        dt=0.3,
        start={"a": rates},
        options=BackwardOptions(settle=Settle(start={"a": rates})),
    )
    assert said == [
        "tau of 'a' requires a gradient, but gets none: the equilibrium does not depend on time constants.",
        "start of 'a' requires a gradient, but gets none: the equilibrium does not depend on the initial state.",
        "start of 'a' of settle requires a gradient, but gets none: settled rates do not depend on their initial "
        "values.",
    ]
    nn.functional.cross_entropy(model(case.x), case.y).backward()
    assert ones.grad is None
    assert rates.grad is None
