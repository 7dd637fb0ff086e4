"""Both phases of a network with loops in one Brian2 run, then learning; and the gradient of a rate model of your own.

Brian2: Stimberg, Brette & Goodman (2019), "Brian 2, an intuitive and efficient neural simulator", eLife 8:e47314.
Activation relaxation on networks with cycles: docs/theory.md.

The first part builds everything: a recurrent population sees a digit, its rates settle, rates and gains are held, and
the same units relax to the gradient, here with a time constant for each unit. `Learner` then learns one digit after
another inside Brian2. The second part starts from a rate model already written in Brian2, six units that inhibit and
excite each other. `adjoint` adds units that follow its gradient while it runs, and a network operation changes the
weights every 150 ms so that the rates approach targets.

Left: seven units of the population in both phases, settled rates and gradients dotted. Middle: error rate per
block of digits, each tested before it is learned. Right: rates of the second part's model, targets dotted.

The last line on screen:  own model: loss from 1.33 to 0.03 in 30 updates
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import brian2 as b2
import numpy as np
import torch
from torch import Tensor

from actrelax import BackwardOptions, Network, Settle, Steps, build, digits, relax_backward, settle
from actrelax.analysis import figures
from actrelax.analysis.implicit_gradients import implicit_gradients
from actrelax.brian2 import Learner, Phases, adjoint, generating
from actrelax.models.results import relative_error

# time, in ms; each unit has its own time constant
STEPS, DT = 80, 0.3
TAU = {"hidden1": torch.linspace(0.5, 1.5, 32, dtype=torch.float64)}
PHASES = Phases(steps=STEPS, eta=DT, feedforward_steps=STEPS, feedforward_eta=DT, tau=TAU)

# learning
DIGITS = 160
BLOCK = 40
RATE = 0.1

# a rate model in Brian2, whose weights change every 150 ms
MODEL = """
dr/dt = (-r + tanh(s + I)) / (10*ms) : 1
s : 1
I : 1
target : 1
"""
SYNAPSES = """
w : 1
s_post = w * r_pre : 1 (summed)
"""
EVERY = 150 * b2.ms
UPDATES = 30


def main(
    out: Path = Path("runs/examples"), stimuli: int = DIGITS, block: int = BLOCK, updates: int = UPDATES
) -> dict[str, float]:
    """Run both parts, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    stimuli : int
        Number of digits to learn from, a multiple of `block`.
    block : int
        Number of digits per error rate.
    updates : int
        Number of changes of the weights in the second part.

    Returns
    -------
    dict
        "rates" and "gradients" -> relative error at the end of each phase; "weights" -> relative difference of the
        learned weights from PyTorch's; "first" and "last" -> error rate of the first and the last block; "before"
        and "after" -> loss of the model in Brian2.
    """
    network, train = build("digits-rec", generator=0).double(), digits().train
    x, y = train.images[:stimuli].flatten(1).double(), train.labels[:stimuli]
    learner = Learner(network, rate=RATE, phases=PHASES)
    seen = learner.watch(x[:1], y[:1])["hidden1"]
    settled = settle(network, x[:1], Settle(Steps.until(1e-13, eta=0.5)))
    rest = settled.activities["hidden1"][0], implicit_gradients(network, settled, y[:1])["hidden1"][0]
    measured = {
        "rates": relative_error(seen[STEPS - 1], rest[0]),
        "gradients": relative_error(seen[2 * STEPS - 1], rest[1]),
    }
    print(f"errors at the end of a phase: rates {measured['rates']:.0e}, gradients {measured['gradients']:.0e}")

    in_torch = learned_in_torch(network, x, y)
    wrong = (learner.learn(x, y).argmax(1) != y).double().reshape(-1, block).mean(1).tolist()
    pairs = zip(network.state_dict().values(), in_torch.state_dict().values(), strict=True)
    measured |= {"weights": max(relative_error(a, b) for a, b in pairs), "first": wrong[0], "last": wrong[-1]}
    print(f"weights after {stimuli} digits: {measured['weights']:.0e} from PyTorch's", end=", ")
    print(f"errors {100 * wrong[0]:.0f} % in the first {block}, {100 * wrong[-1]:.0f} % in the last")

    monitor, targets, losses = own_model(updates)
    measured |= {"before": losses[0], "after": losses[-1]}
    print(f"own model: loss from {losses[0]:.2f} to {losses[-1]:.2f} in {updates} updates")

    with figures.saved(out / "two_phases_in_brian2.png", columns=3) as (_, (left, middle, right)):
        times = [DT * (n + 1) for n in range(2 * STEPS)]
        for unit in range(0, 28, 4):
            left.plot(times, seen[: 2 * STEPS, unit], "-", color=f"C{unit // 4}", linewidth=1.2)
            for start, values in zip((times[STEPS // 2], times[-STEPS // 2]), rest, strict=True):
                ends = start, start + 0.5 * STEPS * DT
                left.plot(ends, [values[unit]] * 2, ":", color="black", linewidth=1)
        left.axvline(DT * STEPS, color="0.3", linewidth=0.8)
        left.set(xlabel="time (ms)", ylabel="activity: rates, then gradients")
        left.set_yscale("symlog", linthresh=0.01)
        middle.plot([block * (i + 1) for i in range(len(wrong))], [100 * each for each in wrong], marker="o")
        middle.set(xlabel="digits", ylabel=f"errors in the last {block} (%)", ylim=(0, 100))
        for unit, rates in enumerate(monitor.r):
            right.plot(monitor.t / b2.second, rates, "-", color=f"C{unit}", linewidth=1.2)
            right.axhline(targets[unit], color=f"C{unit}", linestyle=":", linewidth=1)
        right.set(xlabel="time (s)", ylabel="rates of a model in Brian2")
    return measured


def learned_in_torch(network: Network, x: Tensor, y: Tensor) -> Network:
    """Return a copy that has learned the digits in PyTorch, from settled phases."""
    own, until = copy.deepcopy(network), Steps.until(1e-8, eta=DT)
    optimiser, options = torch.optim.SGD(own.parameters(), lr=RATE), BackwardOptions(settle=Settle(until))
    for k in range(len(x)):
        optimiser.zero_grad()
        relax_backward(own, x[k : k + 1], y[k : k + 1], until, options=options)  # whatever tau
        optimiser.step()
    return own


def own_model(updates: int) -> tuple[Any, Any, list[float]]:
    """Teach six units of a rate model their targets; return a monitor of the rates, targets, and losses."""
    draw, losses = np.random.default_rng(0), list[float]()
    with generating("numpy"):  # for such a small network, compiling takes longer than running
        group = b2.NeuronGroup(6, MODEL, method="euler", dt=1 * b2.ms, name="rates")
        recurrent = b2.Synapses(group, group, SYNAPSES, dt=1 * b2.ms, name="recurrent")
        recurrent.connect()
        recurrent.w = draw.normal(0, 0.8 / np.sqrt(6), len(recurrent))
        group.I, group.target = draw.normal(size=6), draw.uniform(-0.5, 0.5, size=6)
        back, feedback = adjoint(group, recurrent, error="r - target")  # of the loss sum (r - target)^2 / 2

        @b2.network_operation(dt=EVERY)  # type: ignore[untyped-decorator]
        def learn() -> None:
            losses.append(float(((group.r[:] - group.target[:]) ** 2).sum() / 2))
            i, j = recurrent.i[:], recurrent.j[:]
            recurrent.w[:] -= 1.0 * back.gain[:][j] * back.gradient[:][j] * group.r[:][i]

        monitor = b2.StateMonitor(group, "r", record=True, dt=5 * b2.ms)
        b2.Network(group, recurrent, back, feedback, monitor, learn).run((updates + 1) * EVERY + 1 * b2.ms)
    return monitor, group.target[:], losses[1:]  # the first is the loss at silence


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
