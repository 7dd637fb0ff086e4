"""Delay lines. Oracle: the recursion with a delay, in NumPy."""

import brian2 as b2
import numpy as np
import pytest

from actrelax.models.engines.brian2 import delay_line, generating, shift
from actrelax.models.errors import ActrelaxError


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_delayed_feedback_of_a_group_on_itself(steps):
    """tau dx/dt = -x - 2 x(t - d): a delayed value read by a summed variable."""
    equations, delayed = delay_line("late", steps)
    model = f"dx/dt = (received - x) / tau : 1\nreceived : 1\n{equations}"
    with generating("numpy"):
        group = b2.NeuronGroup(3, model, method="euler", namespace={"tau": 1 * b2.ms})
        synapses = b2.Synapses(group, group, f"received_post = -2 * {delayed}_pre : 1 (summed)")
        synapses.connect(j="(i + 1) % 3")
        start = np.array([1.0, -0.5, 0.25])
        group.x = start
        for k in range(steps + 1):
            setattr(group, f"late_{k}", start)
        shift(group, "late", "x", steps)
        monitor = b2.StateMonitor(group, "x", record=True)
        network = b2.Network(group, synapses, monitor)
        network.run(40 * b2.defaultclock.dt, namespace={"tau": 1 * b2.ms})
    past = [start] * (steps + 1)
    for n in range(40):
        np.testing.assert_allclose(monitor.x[:, n], past[-1], rtol=1e-12, atol=1e-15)
        past.append(past[-1] + 0.1 * (-2 * np.roll(past[-1 - steps], 1) - past[-1]))


def test_a_line_has_a_variable_more_than_steps():
    equations, delayed = delay_line("late", 2, unit="volt")
    assert equations.splitlines() == ["late_0 : volt", "late_1 : volt", "late_2 : volt"]
    assert delayed == "late_2"
    for steps in (0, -1, 1.5):
        with pytest.raises(ActrelaxError, match=rf"^steps must be a whole number, 1 or more, got {steps}\.$"):
            delay_line("late", steps)
