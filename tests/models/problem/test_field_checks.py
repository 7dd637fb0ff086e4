"""Values of a problem's fields that are refused or warned of."""

import pytest
import torch
from networks import mlp_case

from actrelax.models.assumptions import PRESETS
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.problem.field_checks import check_captured


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"start": "random"}, r"^unknown start 'random'; known: feedforward, zero\.$"),
        (
            {"start": {"hidden1": torch.zeros(3, 7)}},
            r"^start must give population 'hidden3' a state of shape \(3, 5\)",
        ),
        ({"start": {"output": torch.zeros(3, 4)}}, r"^start names an unknown population 'output'"),
        (
            {"start": dict.fromkeys(["hidden1", "hidden2", "hidden3"], 1.0)},
            r"^start must give population 'hidden3' a state",
        ),
        (
            {"start": {f"hidden{i}": torch.zeros(3, 8 - i, dtype=torch.float32) for i in (1, 2, 3)}},
            r"^start must give population 'hidden3' a state of shape \(3, 5\), torch\.float64\.$",
        ),
    ],
)
def test_starts_that_are_refused(fields, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(mlp_case(), **fields)


@pytest.mark.filterwarnings("error")
def test_time_constants_that_are_left_out_are_named():
    for options, sentence in (
        ({"tau": {"hidden2": 2.0}}, r"^tau names hidden2; the default, 1, holds for hidden3, hidden1: name all pop"),
        ({"tau": {}}, r"^tau names no population; the default, 1, holds for hidden3, hidden2, hidden1: name all"),
    ):
        with pytest.warns(UserWarning, match=sentence):
            problem_of(mlp_case(), **options)
    ringing = UnitDynamics.second_order(tau=1.0, damping=0.5)
    problem_of(mlp_case(), tau={"hidden1": 2.0, "hidden3": 1.5}, dynamics={"hidden2": ringing})
    problem_of(mlp_case(), tau={"hidden1": 2.0, "hidden2": 1, "hidden3": 1.5})


def test_what_captured_networks_lack():
    standard = PRESETS["ar"]
    with pytest.raises(ActrelaxError, match=r".stem'. is a relay, it has no noise"):
        check_captured({"tau": 1.0, "noise": {"stem'": 0.1}}, {"stem'": (3,)}, standard, 0.0)
    with pytest.raises(ActrelaxError, match="read the stimulus itself: leave input_noise out"):
        check_captured({}, {}, PRESETS["unfrozen-weights"], 0.1)
    check_captured({"tau": {"stem": 2.0}}, {"stem'": (3,)}, standard, 0.1)
