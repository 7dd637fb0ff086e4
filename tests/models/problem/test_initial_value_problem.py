"""What problems share, on a problem of its own: units that each receive a constant. Oracle: the solution by hand."""

from dataclasses import dataclass, field

import pytest
import torch
from networks import mlp_case

from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators.schemes import euler, rk4
from actrelax.models.problem.initial_value_problem import InitialValueProblem

TAU = {"hidden1": 2.0, "hidden2": 0.5}


@dataclass(frozen=True, eq=False)
class Charging(InitialValueProblem):
    """tau dx/dt = -x + 3 from x = 1, in the two lowest hidden populations."""

    network: object
    tau: object = field(default_factory=lambda: TAU)
    start: str = "one"
    noise: float = 0.0
    input_noise: float = 0.0
    delays: float = 0.0
    dynamics: dict = field(default_factory=dict)
    time_unit: str | None = None
    relaxing = ("hidden1", "hidden2")
    like = torch.zeros(3, 4, dtype=torch.float64)

    def __post_init__(self):
        self._take_plain_values()
        self._check_shared_fields()

    def initial_activity(self, population):
        return torch.ones(3, *self.network.populations[population].shape)

    def unit_input(self, population, state):
        return 3 * self.initial_activity(population)

    def sent(self, projection, state):
        raise NotImplementedError

    def activities(self, state):
        return state


def test_units_follow_their_own_time_constants():
    problem = Charging(mlp_case().network)
    steps, dt = 40, 0.05
    by_euler = accurately = problem.initial_state()
    for _ in range(steps):
        by_euler, accurately = euler(problem, by_euler, dt), rk4(problem, accurately, dt)
    for name, tau in TAU.items():
        decay = torch.tensor((1 - dt / tau) ** steps)
        assert torch.allclose(by_euler[name], 3 - 2 * decay, rtol=0, atol=1e-14)
        assert torch.allclose(accurately[name], 3 - 2 * torch.exp(torch.tensor(-steps * dt / tau)), rtol=0, atol=1e-6)
    assert by_euler.keys() == TAU.keys()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tau": 0.0}, r"^tau of 'hidden1' must be positive, got 0\.$"),
        ({"noise": {"hidden3": 1.0}}, r"population 'hidden3'"),
        ({"input_noise": -1.0}, r"^input_noise must be a number, 0 or positive, got -1\.0\.$"),
        ({"delays": -1.0}, r"^a delay must be a time, 0 or more, got -1\.0\.$"),
        ({"time_unit": "s"}, r"time_unit"),
    ],
)
def test_fields_are_checked(fields, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        Charging(mlp_case().network, **fields)
