"""A custom network with custom unit dynamics, and an electrode beside it in Brian2.

Activation relaxation: Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain", arXiv 2009.05359. Brian2: Stimberg, Brette & Goodman (2019), "Brian 2,
an intuitive and efficient neural simulator", eLife 8:e47314.

A network of PyTorch modules, with a skip connection past the upper population, relaxes in Brian2. Units of the upper
population oscillate before they settle (second order); units of the lower one overshoot, and an adaptation current w
brings them back. Both settle at backprop's gradient (dotted). The simulation also has a monitor of w, and an electrode,
a leaky neuron that follows the mean activity of the lower population.

Left and middle: three units of each population. Right: adaptation current w of one unit, and the electrode.

The last line on screen:  error against backprop after 400 ms: hidden1 1.5e-05, hidden2 1.9e-05
"""

from __future__ import annotations

from pathlib import Path

import brian2 as b2
import numpy as np
import torch
from torch import Tensor, nn

from actrelax import Network, Projection, RelaxationProblem, UnitDynamics, activity_gradients, digits, solve
from actrelax.analysis import figures
from actrelax.brian2 import UNIT, build, generating
from actrelax.models.results import relative_error

# time, in milliseconds
DT = 0.5
DURATION = 400.0

# units
ADAPTING = UnitDynamics.adapting(tau=10.0, tau_adaptation=40.0, strength=1.0)
RINGING = UnitDynamics.second_order(tau=10.0, damping=0.3)

# electrode, with a time constant of 20 ms
ELECTRODE = """
dv/dt = (signal - v) / (20*ms) : 1
signal : 1
"""


def main(out: Path = Path("runs/examples"), duration: float = DURATION) -> dict[str, float]:
    """Build the network, relax it in Brian2 and in PyTorch, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    duration : float
        Duration of the relaxation, in milliseconds.

    Returns
    -------
    dict
        "engines" -> largest relative difference between Brian2 and PyTorch; "electrode" -> largest difference between
        the electrode and its recursion; population -> final error against backprop.
    """
    torch.manual_seed(0)
    network = Network(
        input_shape=(64,),
        populations={"hidden1": "tanh", "hidden2": "tanh", "output": "identity"},
        projections=[
            Projection("input", "hidden1", nn.Linear(64, 24)),
            Projection("hidden1", "hidden2", nn.Linear(24, 16)),
            Projection("hidden2", "output", nn.Linear(16, 10)),
            Projection("hidden1", "output", nn.Linear(24, 10)),  # the skip
        ],
    ).double()
    images, labels = digits().test
    x, y = images[:1].flatten(1).double(), labels[:1]
    problem = RelaxationProblem.from_batch(network, x, y, dynamics={"hidden1": ADAPTING, "hidden2": RINGING})

    brian2, voltage, current = record(problem, duration)
    trajectory = solve(problem, "euler", dt=DT, duration=duration, record=True)
    gradients = activity_gradients(network, x, y)
    torch_ = {name: trajectory[name][:-1, 0] for name in network.hidden}  # Brian2's monitors lack the last step
    v = [0.0]
    for mean in torch_["hidden1"].mean(1)[:-1].tolist():
        v.append(v[-1] + DT / 20 * (mean - v[-1]))
    measured = {
        "engines": max(relative_error(brian2[name], torch_[name]) for name in network.hidden),
        "electrode": float(np.abs(voltage.v[0] - v).max()),
    }
    for name in network.hidden:
        measured[name] = relative_error(trajectory.final[name], gradients[name])
    print(f"largest difference of Brian2 from PyTorch: {measured['engines']:.0e}")
    listed = ", ".join(f"{name} {measured[name]:.1e}" for name in network.hidden)
    print(f"error against backprop after {duration:g} ms: {listed}")

    times = voltage.t / b2.ms
    with figures.saved(out / "own_network_and_dynamics.png", columns=3) as (_, (left, middle, right)):
        for ax, name in ((left, "hidden1"), (middle, "hidden2")):
            for unit, colour in enumerate(["#0072B2", "#D55E00", "#009E73"]):
                ax.plot(times, brian2[name][:, unit], "-", color=colour, label="Brian2")
                some = slice(0, None, 16)
                ax.plot(times[some], torch_[name][some, unit], "o", color=colour, mfc="none", ms=4, label="PyTorch")
                ax.axhline(float(gradients[name][0, unit]), color=colour, linestyle=":", linewidth=1, label="backprop")
            ax.set(xlabel="time (ms)", ylabel=f"activity of {name}", xlim=(0, 200))
        left.legend(handles=left.lines[:3], loc="lower right")
        right.plot(times, current.s1[0], label="w of the blue unit (left)")
        right.plot(times, voltage.v[0], label="electrode")
        right.set(xlabel="time (ms)", ylabel="activity", xlim=(0, 200))
        right.legend()
    return measured


def record(problem: RelaxationProblem, duration: float) -> tuple[dict[str, Tensor], b2.StateMonitor, b2.StateMonitor]:
    """Relax in Brian2 with an electrode; return activities, electrode voltage, and adaptation current."""
    simulation = build(problem, "euler", dt=DT, monitor=["hidden1", "hidden2"])
    lower, clock = simulation.populations["hidden1"], simulation.clock
    with generating("numpy"):  # for such a small network, compiling takes longer than running
        electrode = b2.NeuronGroup(1, ELECTRODE, method="euler", clock=clock, name="electrode")
        wires = b2.Synapses(lower, electrode, "signal_post = x_pre / N_pre : 1 (summed)", clock=clock, name="wires")
        wires.connect()
        voltage = b2.StateMonitor(electrode, "v", record=True, clock=clock)
        current = b2.StateMonitor(lower, "s1", record=True, clock=clock)  # variables of UnitDynamics: s0, s1, ...
        simulation.network.add(electrode, wires, voltage, current)
        simulation.network.run(duration * UNIT)
    activities = {name: torch.as_tensor(monitor.x.T) for name, monitor in simulation.monitors.items()}
    return activities, voltage, current


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
