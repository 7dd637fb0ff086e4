"""Delayed feedback: relaxations converge to the same gradient, but later.

Activation relaxation: Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain", arXiv 2009.05359.

Left: error of the lowest population, for several delays of all feedback; circles are the same relaxation in Brian2.
Right: time until the error stays below 1 %. Feedback in a feedforward network has no loops, so delays cause no
oscillations: each projection adds its delay once. A delay of the output's feedback has no effect, because the output is
constant.

The last line on screen:  within 1 % of the gradient after 94.5 ms; after 175.0 ms with 40 ms for each projection
"""

from __future__ import annotations

import math
from pathlib import Path

from actrelax import RelaxationProblem, activity_gradients, build, digits, solve
from actrelax.analysis import figures
from actrelax.analysis.convergence import stays_below
from actrelax.models.results import relative_error
from actrelax.simulations.data import random_stream

# time, in milliseconds
TAU = 10.0
DT = 0.5
DURATION = 400.0
DELAYS = (0.0, 10.0, 20.0, 30.0, 40.0)

# which feedback is late, in a network of three hidden populations
LATE = {
    "all feedback": ("hidden1->hidden2", "hidden2->hidden3", "hidden3->output"),
    "hidden1->hidden2 only": ("hidden1->hidden2",),
    "hidden3->output only": ("hidden3->output",),
}
TOLERANCE = 0.01
SEED = 0


def main(out: Path = Path("runs/examples"), duration: float = DURATION) -> dict[str, float]:
    """Relax with several delays in PyTorch, and with one in Brian2, and draw errors and convergence times.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    duration : float
        Duration of each relaxation, in milliseconds.

    Returns
    -------
    dict
        "engines" -> largest relative difference between Brian2 and PyTorch; "end" -> largest final error; delayed
        feedback (keys of LATE) -> increase of the convergence time, in units of the longest delay.
    """
    images, labels = digits().test
    x, y = images[:1].flatten(1).double(), labels[:1]
    network = build("mlp-4x32", input_shape=(64,), generator=random_stream(SEED, "weights")).double()
    gradients = activity_gradients(network, x, y)

    errors, reached = {}, {}
    for which, projections in LATE.items():
        for delay in DELAYS:
            problem = RelaxationProblem.from_batch(network, x, y, tau=TAU, delays=dict.fromkeys(projections, delay))
            trajectory = solve(problem, "euler", dt=DT, duration=duration, record=["hidden1"])
            error = errors[which, delay] = trajectory.error(gradients)["hidden1"]
            step = stays_below(error, TOLERANCE)
            reached[which, delay] = math.nan if step is None else DT * step
    problem = RelaxationProblem.from_batch(network, x, y, tau=TAU, delays=DELAYS[-1])
    here, there = (
        solve(problem, "euler", dt=DT, duration=duration, record=True, engine=engine) for engine in ("torch", "brian2")
    )

    first, longest = reached["all feedback", 0], DELAYS[-1]
    measured = {which: (reached[which, longest] - first) / longest for which in LATE}
    measured["end"] = max(float(error[-1]) for error in errors.values())
    measured["engines"] = max(relative_error(there[name], here[name]) for name in network.hidden)
    print(f"largest difference between Brian2 and PyTorch: {measured['engines']:.0e}")
    print(f"error after {duration:g} ms, whatever the delay: at most {measured['end']:.0e}")
    print(
        f"within 1 % of the gradient after {first:.1f} ms; "
        f"after {reached['all feedback', longest]:.1f} ms with {longest:g} ms for each projection"
    )

    with figures.saved(out / "delays.png", columns=2) as (_, (left, right)):
        for delay in DELAYS[::2]:
            left.semilogy(here.times, errors["all feedback", delay], label=f"{delay:g} ms")
        circles = there.error(gradients)["hidden1"][::20]
        left.plot(there.times[::20], circles, "o", color="0.3", fillstyle="none", markersize=4, label="in Brian2")
        left.axhline(TOLERANCE, color="0.6", linewidth=1, linestyle="-")
        left.set(
            xlabel="time (ms)", ylabel="error of hidden1 against backprop\n(largest, relative)", xlim=(0, duration)
        )
        left.legend(title="delay of all feedback")
        for which in LATE:
            right.plot(DELAYS, [reached[which, delay] for delay in DELAYS], marker="o", label=which)
        right.set(xlabel="delay (ms)", ylabel="time until the error stays below 1 % (ms)", ylim=(0, None))
        right.legend(title="delayed")
    return measured


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
