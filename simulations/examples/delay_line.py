"""A delay line in plain Brian2: two rate units with delayed mutual and self inhibition oscillate at long delays.

Brian2: Stimberg, Brette & Goodman (2019), "Brian 2, an intuitive and efficient neural simulator", eLife 8:e47314. Its
synapses can delay spikes, but not summed variables; `delay_line` and `shift` can, without the rest of this package.

    tau dx_i/dt = -x_i - w/2 (tanh x_1(t - d) + tanh x_2(t - d))

Left: both units at one delay; circles are the same recursion in NumPy. The units synchronise from any initial state.
Right: peak-to-peak amplitude at the end, against the delay. Oscillations begin at a Hopf bifurcation, with angular
frequency omega: sqrt(1 + omega^2 tau^2) = w and omega d + arctan(omega tau) = pi (vertical line).

The last line on screen:  oscillations begin between delays of 11 ms and 13 ms, predicted 12.1 ms
"""

from __future__ import annotations

import math
from pathlib import Path

import brian2 as b2
import numpy as np
from numpy.typing import NDArray

from actrelax.analysis import figures
from actrelax.brian2 import delay_line, generating, shift

# time
TAU = 10 * b2.ms
DT = 0.5 * b2.ms
DELAYS = (4, 8, 11, 13, 16, 20) * b2.ms
DURATION = 1500 * b2.ms

# units
W = 2.0
START = (1.0, -0.4)
AT_REST = 0.1  # amplitude below which there is no oscillation


def main(out: Path = Path("runs/examples"), duration: float = float(DURATION / b2.ms)) -> dict[str, float]:
    """Run the two units at several delays, compare with NumPy, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    duration : float
        Duration of each run, in milliseconds.

    Returns
    -------
    dict
        "recursion" -> largest difference between Brian2 and NumPy; "predicted" -> delay at which oscillations begin, in
        milliseconds; delay in milliseconds -> peak-to-peak amplitude at the end.
    """
    steps = round(duration * b2.ms / DT)
    runs = {delay: run(delay, steps) for delay in DELAYS / b2.ms}
    expected = {delay: recursion(delay, steps) for delay in runs}
    omega = math.sqrt(W**2 - 1) / float(TAU / b2.ms)
    begins = (math.pi - math.atan(omega * float(TAU / b2.ms))) / omega
    swings = {delay: float(np.ptp(x[:, -steps // 8 :])) for delay, x in runs.items()}
    measured = {
        "recursion": max(float(np.abs(runs[delay] - expected[delay]).max()) for delay in runs),
        "predicted": begins,
        **{f"{delay:g}": swing for delay, swing in swings.items()},
    }
    still = max((delay for delay, swing in swings.items() if swing < AT_REST), default=0.0)
    moving = min((delay for delay, swing in swings.items() if swing >= AT_REST), default=math.inf)
    print(f"largest difference of Brian2 from NumPy: {measured['recursion']:.0e}")
    print(f"oscillations begin between delays of {still:g} ms and {moving:g} ms, predicted {begins:.1f} ms")

    with figures.saved(out / "delay_line.png", columns=2) as (_, (left, right)):
        times = np.arange(steps) * float(DT / b2.ms)
        shown = max(runs)
        for i in range(2):
            left.plot(times, runs[shown][i], label=f"unit {i + 1}")
        left.plot(times[::8], expected[shown][0, ::8], "o", color="0.3", fillstyle="none", markersize=4, label="NumPy")
        left.set(xlabel="time (ms)", ylabel=f"rate (delay {shown:g} ms)", xlim=(0, 250), ylim=(-1.5, 2.0))
        left.legend(loc="upper center", ncols=3)
        right.plot(list(swings), list(swings.values()), "o-")
        right.axvline(begins, color="0.6", linestyle="-", linewidth=1)
        right.set(xlabel="delay (ms)", ylabel="peak-to-peak amplitude of the rate")
    return measured


def run(delay: float, steps: int) -> NDArray[np.float64]:
    """Return both rates over time, (2, steps), from Brian2."""
    late, delayed = delay_line("late", steps=round(delay * b2.ms / DT))
    model = f"""
    dx/dt = (received - x) / TAU : 1
    received : 1
    {late}
    """
    with generating("numpy"):  # two units are not worth compiling
        clock = b2.Clock(DT)
        units = b2.NeuronGroup(2, model, method="euler", clock=clock, namespace={"TAU": TAU})
        inhibition = b2.Synapses(
            units, units, f"received_post = -W/2 * tanh({delayed}_pre) : 1 (summed)", clock=clock, namespace={"W": W}
        )
        inhibition.connect()
        units.x = START
        shift(units, "late", "x", steps=round(delay * b2.ms / DT))
        for k in range(round(delay * b2.ms / DT) + 1):  # history before the first step
            setattr(units, f"late_{k}", START)
        rates = b2.StateMonitor(units, "x", record=True, clock=clock)
        b2.Network(units, inhibition, rates).run(steps * DT)
    return np.asarray(rates.x)


def recursion(delay: float, steps: int) -> NDArray[np.float64]:
    """Return both rates over time, (2, steps), by Euler's method in NumPy."""
    back, eta = round(delay * b2.ms / DT), float(DT / TAU)
    x = [np.array(START)] * (back + 1)
    for _ in range(steps - 1):
        x.append(x[-1] + eta * (-W / 2 * np.tanh(x[-1 - back]).sum() - x[-1]))
    return np.array(x[back:]).T


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
