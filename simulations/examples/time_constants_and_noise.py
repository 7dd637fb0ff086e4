"""Individual time constants and noise: the mean follows the noiseless relaxation.

Activation relaxation: Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain", arXiv 2009.05359. Neurons are Ornstein-Uhlenbeck processes with noise
sigma sqrt(2 tau) dW in tau dx, so sigma is the standard deviation of an isolated neuron in continuous time.

Left: a fast and a slow neuron, each with a single noisy relaxation and the mean over all, which coincides with the
noiseless relaxation (circles). Right: final variance of each neuron. Neurons of the upper population receive no noise
from others: Euler's method with eta = dt/tau gives a variance of sigma^2 / (1 - eta/2). The lower population also
receives noise from the upper one.

The last line on screen:  variance, upper population: at most 2.5 standard errors off sigma^2 / (1 - eta/2)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from actrelax import RelaxationProblem, build, digits, solve
from actrelax.analysis import figures
from actrelax.analysis.checks.moments import scheme_moments
from actrelax.simulations.data import random_stream

# time, in milliseconds
TAU = torch.logspace(0.5, 2, 24, dtype=torch.float64)  # one per neuron, 3 to 100
DT = 2.0
DURATION = 1000.0

# noise, in units of activity
SIGMA = 0.1
SAMPLES = 5000

# network
NETWORK = "mlp-3x24"
SEED = 0


def main(out: Path = Path("runs/examples"), samples: int = SAMPLES, duration: float = DURATION) -> dict[str, float]:
    """Relax one digit many times at once, compare the moments, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    samples : int
        Number of noisy relaxations.
    duration : float
        Duration of the relaxations, in milliseconds.

    Returns
    -------
    dict
        Largest deviations in standard errors: "mean", of the mean from the noiseless relaxation, over neurons and
        times; "variance", of the upper population's final variance from an isolated neuron's; "lower", of the lower
        population's final variance from the scheme's recursion.
    """
    images, labels = digits().test
    x, y = images[:1].flatten(1).double(), labels[:1]
    network = build(NETWORK, input_shape=(64,), generator=random_stream(SEED, "weights")).double()
    tau = {"hidden1": TAU, "hidden2": TAU}
    one = RelaxationProblem.from_batch(network, x, y, tau=tau, noise=SIGMA)
    many = RelaxationProblem.from_batch(network, x.expand(samples, -1), y.expand(samples), tau=tau, noise=SIGMA)
    quiet = RelaxationProblem.from_batch(network, x, y, tau=tau)

    def kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        upper = state["hidden2"]
        return {"mean": upper.mean(0), "sd": upper.std(0), "first": upper[0]}

    noisy = solve(many, "euler", dt=DT, duration=duration, record=kept, generator=random_stream(SEED, "noise"))
    noiseless = solve(quiet, "euler", dt=DT, duration=duration, record=["hidden2"])["hidden2"][:, 0]
    law = SIGMA**2 / (1 - DT / TAU / 2)
    scheme = torch.as_tensor(scheme_moments(one, DT, noisy.steps).covariance.diagonal().copy())[len(TAU) :]
    variance = {name: noisy.final[name].var(0) for name in network.hidden}

    off = ((noisy["mean"] - noiseless) / noisy["sd"])[1:] * samples**0.5
    relative = (2 / (samples - 1)) ** 0.5  # standard error of a normal variable's variance
    measured = {
        "mean": float(off.abs().max()),
        "variance": float((variance["hidden2"] / law - 1).abs().max() / relative),
        "lower": float((variance["hidden1"] / scheme - 1).abs().max() / relative),
    }
    print(
        f"mean, each neuron at each time: at most {measured['mean']:.1f} standard errors off the noiseless relaxation"
    )
    print(f"variance, lower population: at most {measured['lower']:.1f} standard errors off the scheme's recursion")
    print(f"variance, upper population: at most {measured['variance']:.1f} standard errors off sigma^2 / (1 - eta/2)")

    with figures.saved(out / "time_constants_and_noise.png", columns=2) as (_, (left, right)):
        for i, colour in ((4, "#D55E00"), (20, "#0072B2")):
            left.plot(noisy.times, noisy["first"][:, i], color=colour, linestyle="-", linewidth=0.6, alpha=0.5)
            left.plot(noisy.times, noisy["mean"][:, i], color=colour, linestyle="-", label=f"tau {TAU[i]:.0f} ms")
            left.plot(noisy.times[::10], noiseless[::10, i], "o", color=colour, fillstyle="none", markersize=4)
        left.set(xlabel="time (ms)", ylabel="activity", xlim=(0, min(duration, 400)))
        left.legend()
        right.semilogx(TAU, law / SIGMA**2, "-", color="0.3", label="1 / (1 - eta/2)")
        right.plot(TAU, variance["hidden2"] / SIGMA**2, "o", label="upper population")
        right.plot(TAU, scheme / SIGMA**2, "--", color="0.3", label="recursion")
        right.plot(TAU, variance["hidden1"] / SIGMA**2, "s", label="lower population")
        right.set(xlabel="time constant (ms)", ylabel="variance / sigma$^2$")
        right.legend()
    return measured


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
