"""Delayed feedback. Oracle: a recursion with history in NumPy, one sample at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import dense_graphs, graph_case, mlp_case
from reference import Reference

from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import INTEGRATORS, Steps, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import fill_delay_lines
from actrelax.models.learning import BackwardOptions, activity_gradients, relax_backward
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Status, relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def relaxed(case, steps=12, dt=0.2, **fields):
    return solve(problem_of(case, **fields), "euler", steps=steps, dt=dt).final


PER_PROJECTION = {"conv1=>conv3": 0.6, "conv2->conv3": 0.2, "hidden3->output": 1.0, "conv1->hidden1": 0.0}


@pytest.mark.catches("delays of one step too many")
@pytest.mark.parametrize("preset", ["ar", "unfrozen", "no-derivatives-conv"])
@pytest.mark.parametrize("delays", [0.0, 0.2, 0.6, 2.0, PER_PROJECTION], ids=["0", "1", "3", "10", "each"])
def test_equals_the_recursion_written_out(preset, delays):
    """x(n+1) = (1 - eta) x(n) + eta sum op^T(g x(n - d)); before t = 0 populations have their initial values."""
    case = graph_case()
    final = relaxed(case, delays=delays, assumptions=preset)
    if delays:
        assert relative_error(final["conv1"], relaxed(case, assumptions=preset)["conv1"]) > 1e-3
    times = delays if isinstance(delays, dict) else dict.fromkeys(case.network.projections, delays)
    steps = {(p.source, p.target): round(times.get(n, 0) / 0.2) for n, p in case.network.projections.items()}
    for sample in range(len(case.x)):
        reference = Reference(case, sample, PRESETS[preset])
        state = reference.relax_delayed(12, 0.2, final["output"][sample].numpy(), steps)
        for population, x in final.items():
            assert relative_error(x[sample].flatten(), torch.tensor(state[population])) < 1e-12


def test_equals_the_recursion_written_out_with_a_tau_per_neuron():
    """Holds for one tau per neuron, delays and a given initial state together."""
    case = mlp_case()
    tau = {"hidden1": torch.linspace(0.5, 1.5, 7), "hidden3": 0.7}
    final = relaxed(case, delays={"hidden1->hidden2": 0.4, "hidden3->output": 0.6}, tau=tau)
    assert relative_error(final["hidden1"], relaxed(case, tau=tau)["hidden1"]) > 1e-3
    eta = {"hidden1": 0.2 / tau["hidden1"].numpy(), "hidden2": 0.2, "hidden3": 0.2 / 0.7}
    steps = {("hidden1", "hidden2"): 2, ("hidden2", "hidden3"): 0, ("hidden3", "output"): 3}
    for sample in range(len(case.x)):
        reference = Reference(case, sample, PRESETS["ar"])
        state = reference.relax_delayed(12, eta, final["output"][sample].numpy(), steps)
        for population, x in final.items():
            assert relative_error(x[sample], torch.tensor(state[population])) < 1e-12


@settings(max_examples=15)
@given(dense_graphs(), st.data())
def test_random_graphs(case, data):
    """Individual delays per projection, and skips of every length."""
    carrying = [p for p in case.network.projections.values() if p.source != "input"]
    steps = {(p.source, p.target): data.draw(st.integers(0, 4)) for p in carrying}
    delays = {p.name: 0.2 * steps[p.source, p.target] for p in carrying}
    final = relaxed(case, steps=8, delays=delays)
    reference = Reference(case, 0, PRESETS["ar"])
    state = reference.relax_delayed(8, 0.2, final["output"][0].numpy(), steps)
    for population, x in final.items():
        scale = torch.tensor(max(np.abs(state[population]).max(), np.abs(reference.xbar[population]).max() * 0.8**8))
        assert relative_error(x[0], torch.tensor(state[population]), magnitude=scale) < 1e-12


def test_what_travels_is_gain_times_activity_of_the_time_of_sending():
    """By hand, step by step: gain and activity are delayed equally."""
    case = mlp_case()
    problem = problem_of(case, delays={"hidden1->hidden2": 0.4}, assumptions="unfrozen")
    names, tanh = case.network.hidden, torch.tanh
    W = [p.weight.detach() for p in case.network.projections.values()]
    b = [p.bias.detach() for p in case.network.projections.values()]

    def sent(x):
        """Return the sent signal f'(W2 x1 + b2) x2."""
        return (1 - tanh(x["hidden1"] @ W[1].T + b[1]) ** 2) * x["hidden2"]

    state, history = fill_delay_lines(problem, problem.initial_state(), 0.2), []
    for _ in range(5):
        history.append({name: state[name] for name in names})
        arriving = sent(history[max(0, len(history) - 3)])
        expected = 0.8 * state["hidden1"] + 0.2 * arriving @ W[1]
        state = INTEGRATORS["euler"].step(problem, state, 0.2)
        assert relative_error(state["hidden1"], expected) < 1e-13
    assert relative_error(sent(history[2]), sent(history[4])) > 1e-3


def test_before_the_start_everything_had_its_initial_value():
    """Until signals sent after t = 0 arrive, each population decays towards a constant."""
    case = mlp_case()
    for start in ("feedforward", "zero"):
        problem = problem_of(case, delays=10.0, start=start)
        begin = fill_delay_lines(problem, problem.initial_state(), 0.2)
        final = solve(problem, "euler", dt=0.2, steps=12).final
        undelayed = problem_of(case, start=start)
        for name in case.network.hidden:
            held = undelayed.feedback(name, undelayed.initial_state())
            expected = held + 0.8**12 * (begin[name] - held)
            assert relative_error(final[name], expected) < 1e-13
        assert final["hidden3"].any()  # the clamp already acted before t = 0


def test_delays_leave_the_equilibrium_where_it_is():
    case = graph_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    trajectory = solve(problem_of(case, delays=0.6), "euler", Steps.until(1e-13, of="change", dt=0.2, most=2000))
    assert trajectory.status is Status.SETTLED
    assert all(relative_error(trajectory.final[name], gradients[name]) < 1e-9 for name in case.network.hidden)


def test_stepping_by_hand_needs_delay_lines():
    problem = problem_of(mlp_case(), delays=0.6)
    with pytest.raises(
        ActrelaxError,
        match=r"^feedback along 'hidden1->hidden2' is delayed, but the state has no delay line for it: "
        r"begin with fill_delay_lines\(problem, problem\.initial_state\(\), dt\)\.$",
    ):
        INTEGRATORS["euler"].step(problem, problem.initial_state(), 0.2)
    lines = {
        name: x.shape for name, x in fill_delay_lines(problem, problem.initial_state(), 0.2).items() if "->" in name
    }
    assert lines == {
        "hidden1->hidden2.sent": (3, 3, 6),
        "hidden2->hidden3.sent": (3, 3, 5),
        "hidden3->output.sent": (3, 3, 4),
    }


def test_recordings_and_updates_do_not_see_the_lines():
    case = graph_case()
    trajectory = solve(problem_of(case, delays=0.4), "euler", dt=0.2, steps=12, record=True)
    assert list(trajectory.recorded) == list(trajectory.final) == [*case.network.hidden, "output"]
    options = {"integrator": "euler", "dt": 0.2, "steps": 12, "assumptions": "current-presynaptic"}
    result = relax_backward(case.network, case.x, case.y, delays=0.4, options=BackwardOptions(keep=True), **options)
    assert torch.equal(result.trajectory.final["conv1"], trajectory.final["conv1"])
    pre, post = trajectory.final["hidden1"], 1 - torch.tanh(case.network.feedforward(case.x).drives["hidden2"]) ** 2
    expected = (post * trajectory.final["hidden2"]).T @ pre / len(case.x)
    assert relative_error(case.network.projections["hidden1->hidden2"].weight.grad, expected) < 1e-12
