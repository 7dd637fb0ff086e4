"""Simulations for users: objects, units, refused problems, and a standalone program. Oracle: the PyTorch engine."""

import re
import subprocess
import sys
from pathlib import Path

import brian2 as b2
import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import solve
from actrelax.models.engines.brian2 import UNIT, build, generating
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import relative_error

DT, STEPS = 0.2, 12
ROOT = Path(__file__).resolve().parents[4]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_users_build_the_simulation_and_add_their_own():
    problem = problem_of(mlp_case(), delays={"hidden1->hidden2": 0.4}, assumptions="unfrozen")
    monitor = {"hidden1": [0, 5], "hidden3": True}
    simulation = build(problem, "euler", dt=DT, monitor=monitor, every=3)
    assert list(simulation.populations) == ["hidden1", "hidden2", "hidden3", "output"]
    assert list(simulation.feedback) == ["hidden1->hidden2", "hidden2->hidden3", "hidden3->output"]
    assert simulation.network["hidden1_to_hidden2_feedback"] is simulation.feedback["hidden1->hidden2"]
    assert len(simulation.feedback["hidden1->hidden2"]) == 3 * 7 * 6
    own = b2.StateMonitor(simulation.populations["hidden2"], "current_gain", record=[0], clock=simulation.clock)
    simulation.network.add(own)
    with generating("numpy"):  # by default Brian2 compiles, for a minute
        simulation.network.run(STEPS * DT * UNIT, namespace={})
    expected = solve(problem, "euler", dt=DT, steps=STEPS, record=True)
    units = expected["hidden1"].flatten(1)[:STEPS:3, [0, 5]]
    assert relative_error(torch.as_tensor(simulation.monitors["hidden1"].x.T), units) < 1e-14
    assert simulation.monitors["hidden3"].x.shape == (15, 4)
    assert own.current_gain.shape == (1, STEPS)


def test_units_are_those_of_brian2():
    simulation = build(problem_of(mlp_case(), tau=20.0), dt=0.5)
    assert simulation.populations["hidden1"].tau[0] == 20 * b2.ms
    assert simulation.clock.dt == 0.5 * b2.ms


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"method": "sequential"},
            r"^integrator 'brian2:sequential' names an unknown Brian2 state updater 'seq",
        ),
        ({"dt": 0}, r"^dt must be a positive number, got 0\.$"),
        (
            {"dt": 2.5},
            r'^eta must lie between 0 and 2 for "brian2:euler", got 2\.5: take more steps of a smaller dt\.$',
        ),
        ({"dt": 1 * b2.ms}, r"^dt is a Brian2 quantity, but the problem's tau is a number: make the problem with"),
        ({"monitor": "hidden9"}, r"^monitor names an unknown population 'hidden9'"),
        (
            {"monitor": {"hidden1": torch.arange(21) > 15}},
            r"^units of 'hidden1' must be a list of whole numbers, 0 to 20,",
        ),
        (
            {"monitor": {"hidden1": [0.5]}},
            r"^units of 'hidden1' must be a list of whole numbers, 0 to 20, got \[0\.5\]\.$",
        ),
        ({"monitor": {"hidden1": [21]}}, r"^population 'hidden1' has units 0 to 20, got 21\.$"),
        ({"every": 0}, r"^every must be a whole number, 1 or more, got 0\.$"),
        ({"monitor": ["input"]}, r"^monitor names an unknown population 'input'; known: hidden1, hidden2"),
    ],
)
def test_what_build_refuses(options, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        build(problem_of(mlp_case()), **options)


def test_build_refuses_what_solve_refuses():
    with pytest.raises(ActrelaxError, match=r'^"brian2:exact" can\'t be used here: it does not support noise'):
        build(problem_of(mlp_case(), noise=0.1), "exact")
    with pytest.raises(ActrelaxError, match=r'^"brian2:euler" can\'t be used here: continuous plasticity changes'):
        build(problem_of(mlp_case(), assumptions="continuous"))
    with pytest.raises(ActrelaxError, match=r"can't be used here: Brian2's exponential Euler treats variables one by"):
        build(problem_of(mlp_case(), dynamics={"hidden1": UnitDynamics.second_order(1.0, 0.8)}), "exponential")


OWN_MODEL = """
from actrelax.brian2 import adjoint

text = "dr/dt = (-r + tanh(s + 0.2 * i)) / (10 * ms) : 1\\ns : 1"
rates = b2.NeuronGroup(6, text, method="euler", dt=1 * b2.ms)
summing = "w : 1\\ndw : 1\\ns_post = w * r_pre : 1 (summed)"
recurrent = b2.Synapses(rates[1:], rates, summing, dt=1 * b2.ms)
recurrent.connect("i != j")
recurrent.w = "0.1 * (i - j) - 0.25"
recurrent.run_regularly("dw = gain_post * gradient_post * r_pre", when="end")
back, feedback = adjoint(rates, recurrent, error="r - 1")
b2.Network(rates, recurrent, back, feedback).run(600 * b2.ms, namespace={})
"""
SOLVED = """
import numpy as np

W, dW = np.zeros((6, 6)), np.zeros((6, 6))
places = recurrent.j[:], recurrent.i[:] + 1
W[places], dW[places] = recurrent.w[:], recurrent.dw[:]
r = rates.r[:]
g = 1 - r**2
expected = np.linalg.solve(np.eye(6) - W.T @ np.diag(g), r - 1)
print("gradient", np.abs(back.gradient[:] - expected).max())
print("update", np.abs(dW - (W != 0) * np.outer(g * expected, r)).max())
"""


def test_programs_run_standalone(tmp_path):
    """The one on the page, and the adjoint of a model with synapses from a subgroup; compiled together.

    They run in a separate process, because Brian2's device applies to the whole process.
    """
    (program,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "simulation.md").read_text(), re.DOTALL)
    program = program.replace("b2.device.build", f"{OWN_MODEL}b2.device.build") + SOLVED
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    assert [said for said, _ in lines] == ["PyTorch and the program differ by", "gradient", "update"]
    assert all(float(difference) < 1e-11 for _, difference in lines)
    assert (tmp_path / "relaxation" / "main.cpp").exists()
