"""Unfrozen gains: equilibria of a nonlinear relaxation, and relu units that never settle.

Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local Dynamical Approximation to Backpropagation in
the Brain", arXiv 2009.05359, keep every f' at its value in the feedforward pass while activities relax. Here f' depends
on the current activity instead, which makes the equation nonlinear.

Left: speed of the fastest neuron of any digit. Tanh units come to rest, by SciPy's adaptive steps. The gain of relu
jumps between 0 and 1: an adaptive method would stall at the jumps, and fixed steps never settle. Right: cosine with
backprop's gradient, mean over the digits. The highest hidden population receives feedback only from the linear output,
whose gain is always 1; below it tanh settles near the gradient, and relu far from it.

The last line on screen:  relu, current: 0 of 32 settle, cosine hidden1 0.489, hidden2 0.617, hidden3 1.000
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from actrelax import RelaxationProblem, activity_gradients, build, digits, solve
from actrelax.analysis import figures
from actrelax.simulations.data import random_stream

# time, in units of tau
DT = 0.1
DURATION = 300.0
SHOWN = 30.0  # in the figure
AT_REST = 1e-6  # change per tau, relative to the population's largest activity

# network and stimuli
NETWORK = "mlp-4x32"
SAMPLES = 32
SEED = 0
CASES = {  # label -> activation, assumptions, integrator
    "tanh, frozen": ("tanh", "ar", "DOP853"),
    "tanh, current": ("tanh", "unfrozen-relaxation", "DOP853"),
    "relu, current": ("relu", "unfrozen-relaxation", "euler"),
}


def main(
    out: Path = Path("runs/examples"), samples: int = SAMPLES, duration: float = DURATION
) -> dict[str, dict[str, float]]:
    """Relax digits with frozen and with current gains, compare with backprop, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    samples : int
        Number of digits.
    duration : float
        Duration of the relaxation, in units of tau.

    Returns
    -------
    dict
        Case -> "settled", the share of digits at rest, and population -> mean cosine with the gradient.
    """
    images, labels = digits().test
    x, y = images[:samples].flatten(1).double(), labels[:samples]
    measured: dict[str, dict[str, float]] = {}
    with figures.saved(out / "unfrozen.png", columns=2) as (_, (left, right)):
        for position, (case, (activation, assumptions, integrator)) in enumerate(CASES.items()):
            generator = random_stream(SEED, "weights")
            network = build(NETWORK, input_shape=(64,), activation=activation, generator=generator).double()
            problem = RelaxationProblem.from_batch(network, x, y, assumptions=assumptions)
            hidden = network.hidden

            def speed(state: Mapping[str, Tensor], problem: RelaxationProblem = problem) -> dict[str, Tensor]:
                """Return each digit's largest change per tau, relative to the population's largest activity."""
                field = problem.vector_field({name: state[name] for name in problem.relaxing})
                relative = [v.abs().amax(1) / state[name].abs().amax(1) for name, v in field.items()]
                return {"speed": torch.stack(relative).amax(0)}

            trajectory = solve(problem, integrator, dt=DT, duration=duration, record=speed)
            gradients = activity_gradients(network, x, y)
            cosines = {
                name: float(cosine_similarity(trajectory.final[name], gradients[name]).mean()) for name in hidden
            }
            at_rest = trajectory["speed"][-1] < AT_REST
            measured[case] = {"settled": float(at_rest.double().mean()), **cosines}
            listed = ", ".join(f"{name} {cosine:.3f}" for name, cosine in cosines.items())
            print(f"{case}: {int(at_rest.sum())} of {samples} settle, cosine {listed}")

            left.semilogy(trajectory.times, trajectory["speed"].amax(1), label=case)
            places = [i + 0.27 * (position - 1) for i in range(len(hidden))]
            right.bar(places, list(cosines.values()), 0.25, label=case)
        left.axhline(AT_REST, color="0.6", linewidth=1, linestyle="-")
        left.set(
            xlabel="time (tau)",
            ylabel="largest change per tau\n(relative to the largest activity)",
            xlim=(0, SHOWN),
            ylim=(1e-9, None),
        )
        left.legend(loc="center right")
        right.set_xticks(range(len(hidden)), hidden)
        right.set(ylabel="cosine with backprop's gradient")
    return measured


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
