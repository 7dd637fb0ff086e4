"""Values for the whole network, per population or per neuron, such as a problem's tau."""

import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, per_neuron
from actrelax.models.problem.per_neuron import PerNeuron
from actrelax.models.results import relative_error

SHAPES = {"hidden2": (3,), "hidden1": (2, 2)}


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_values_by_population():
    each = torch.tensor([[1.0, 4.0], [2.0, 3.0]])
    one, named = PerNeuron("tau", 0.5, 1.0, SHAPES), PerNeuron("tau", {"hidden1": each}, 1.0, SHAPES)
    assert [one.of(name) for name in SHAPES] == [0.5, 0.5]
    assert named.of("hidden1") is each
    assert named.of("hidden2") == 1.0
    assert (named.extremes("hidden1"), named.extremes("hidden2")) == ((1.0, 4.0), (1.0, 1.0))


def test_values_take_the_type_of_the_states():
    values = PerNeuron("tau", {"hidden2": torch.ones(3, dtype=torch.float64)}, 1.0, SHAPES)
    assert values.on("hidden2", torch.zeros(1, dtype=torch.float32)).dtype == torch.float32
    assert values.on("hidden1", torch.zeros(1)) == 1.0


def test_zero_is_a_value_where_it_is_allowed():
    PerNeuron("noise", 0.0, 0.0, SHAPES).check(zero=True)
    with pytest.raises(ActrelaxError, match=r"^noise of 'hidden2' must be positive, got 0\.$"):
        PerNeuron("noise", 0.0, 0.0, SHAPES).check(zero=False)
    with pytest.raises(ActrelaxError, match=r"^noise of 'hidden2' must be 0 or positive, got -1\.$"):
        PerNeuron("noise", torch.tensor(-1.0), 0.0, SHAPES).check(zero=True)
    with pytest.raises(ActrelaxError, match=r"^noise of 'hidden2' must be 0 or positive, got inf\.$|got 0\.$"):
        PerNeuron("noise", float("inf"), 0.0, SHAPES).check(zero=True)


@pytest.mark.parametrize(
    ("tau", "sentence"),
    [
        (0.0, r"^tau of 'hidden3' must be positive, got 0\.$"),
        ("2", r"^tau of 'hidden3' must be a number or a tensor, got '2'\.$"),
        ({"hidden1": -1.0}, r"^tau of 'hidden1' must be positive, got -1\.$"),
        ({"hidden9": 1.0}, r"^tau names an unknown population 'hidden9'; known: hidden3, hidden2"),
        ({"hidden1": torch.ones(3)}, r"^tau of 'hidden1' must be a number or of shape \(7,\), got \(3,\)\.$"),
    ],
)
def test_what_is_refused(tau, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        problem_of(mlp_case(), tau=tau)


def test_tau_may_be_of_another_precision():
    case = mlp_case()
    tau = torch.linspace(0.5, 2.0, 7)
    same = solve(problem_of(case, tau={"hidden1": tau.float().double()}), "euler", steps=5, dt=0.2).final
    single = solve(problem_of(case, tau={"hidden1": tau.float()}), "euler", steps=5, dt=0.2).final
    assert torch.equal(single["hidden1"], same["hidden1"])


def test_tau_only_scales_time():
    case = mlp_case()
    fast = solve(problem_of(case), "euler", steps=12, dt=0.2).final
    slow = solve(problem_of(case, tau=10.0), "euler", steps=12, dt=2.0).final
    by_eta = solve(problem_of(case, tau=10.0), "euler", steps=12, eta=0.2).final
    for name, x in fast.items():
        assert relative_error(slow[name], x) < 1e-14
        assert relative_error(by_eta[name], x) < 1e-14


def test_populations_without_a_tau_have_one():
    case = mlp_case()
    named = solve(problem_of(case, tau={"hidden2": 0.5}), "euler", steps=5, dt=0.2).final
    spelled = solve(problem_of(case, tau={"hidden1": 1, "hidden2": 0.5, "hidden3": 1}), "euler", steps=5, dt=0.2).final
    assert all(torch.equal(named[name], x) for name, x in spelled.items())


def test_a_number_is_checked_once_for_all_populations(monkeypatch):
    """A problem is made for every batch."""
    seen = []
    one = PerNeuron._check_one
    monkeypatch.setattr(PerNeuron, "_check_one", lambda self, name, *rest: (seen.append(name), one(self, name, *rest)))
    PerNeuron("tau", 2.0, 1.0, SHAPES).check(zero=False)
    assert seen == ["hidden2"]
    PerNeuron("tau", {"hidden1": 2.0, "hidden2": 3.0}, 1.0, SHAPES).check(zero=False)
    assert seen == ["hidden2", "hidden1", "hidden2"]


def test_extremes_are_found_anew_only_where_a_tensor_has_changed(monkeypatch):
    """On an accelerator finding them waits for all of its work."""
    looks = []
    monkeypatch.setattr(
        per_neuron, "_extremes", lambda value, find=per_neuron._extremes: looks.append(0) or find(value)
    )
    value, other = torch.tensor([1.0, 4.0]), torch.tensor([1.0, 4.0])
    assert [per_neuron._known_extremes(value) for _ in range(3)] == [(1.0, 4.0)] * 3
    assert len(looks) == 1
    value[0] = -1.0
    assert per_neuron._known_extremes(value) == (-1.0, 4.0)
    assert per_neuron._known_extremes(other) == (1.0, 4.0)
    assert len(looks) == 3


def test_tensors_and_numbers_are_taken_as_they_are():
    case = mlp_case(widths=(8, 6, 5, 4))
    tau = {"hidden1": torch.ones(6), "hidden2": 2.0}
    taken = problem_of(case, tau=tau).tau
    assert all(taken[name] is value for name, value in tau.items())
