"""Gains that are not frozen: where does the relaxation settle, and does it?

Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local Dynamical Approximation to Backpropagation in
the Brain", arXiv 2009.05359, keep every f' at its value in the feedforward pass while activities relax. Here f' is that
of the activity of the moment instead, which makes the equation nonlinear.

Left: how fast the fastest neuron of any digit still moves. Tanh comes to rest, by SciPy's adaptive steps; relu's gain
jumps between 0 and 1, an adaptive method would stall at the jumps, and fixed steps never settle. Right: the angle's
cosine with backprop's gradient, mean over the digits. The highest hidden population hears the linear output only,
whose gain is 1 anyway; below it tanh settles near the gradient, not at it, and relu strays.

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
    """Relax digits with frozen and with current gains, compare with backprop, draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    samples : int
        How many digits.
    duration : float
        How long they relax, in units of tau.

    Returns
    -------
    dict
        Case -> "settled", the share of digits that came to rest, and population -> mean cosine with the gradient.
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
                """Each digit's largest change per tau, relative to the population's largest activity."""
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
            ylabel="largest change per tau\n(of the largest activity)",
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
