"""One relaxation: a network sees a digit, and its neurons settle at backpropagation's gradient.

Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local Dynamical Approximation to Backpropagation in
the Brain", arXiv 2009.05359.

Left: activities of the three hidden populations. Feedforward activities decay while feedback from the clamped output
travels down, population by population. Right: error of each population against the gradient. Lines are simulated;
circles are the closed form, evaluated without stepping.

The last line on screen:  error after 200 ms: hidden1 5.1e-07, hidden2 3.7e-08, hidden3 8.9e-10
"""

from __future__ import annotations

from pathlib import Path

from actrelax import RelaxationProblem, activity_gradients, build, digits, solve
from actrelax.analysis import figures
from actrelax.analysis.convergence import predicted_errors, spread_out
from actrelax.simulations.data import random_stream

# time, in milliseconds
TAU = 10.0
DT = 1.0
DURATION = 200.0

# network
NETWORK = "mlp-4x32"  # four weight layers, hence three hidden populations of 32 units each
SEED = 0


def main(out: Path = Path("runs/examples"), duration: float = DURATION) -> dict[str, float]:
    """Relax, compare with backprop and with the closed form, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    duration : float
        Duration of the relaxation, in milliseconds.

    Returns
    -------
    dict
        Population -> final error against backprop; "law" -> largest difference between measured and predicted errors.
    """
    images, labels = digits().test
    x, y = images[:1].flatten(1).double(), labels[:1]
    network = build(NETWORK, input_shape=(64,), generator=random_stream(SEED, "weights")).double()

    problem = RelaxationProblem.from_batch(network, x, y, tau=TAU)
    trajectory = solve(problem, "euler", dt=DT, duration=duration, record=True)
    gradients = activity_gradients(network, x, y)
    errors = {name: error.tolist() for name, error in trajectory.error(gradients).items() if name in network.hidden}
    steps = spread_out(trajectory.steps)
    law = predicted_errors(problem, gradients, "euler", dt=DT, at=steps)

    measured = {name: error[-1] for name, error in errors.items()}
    measured["law"] = max(abs(errors[name][n] - e) for name in law for n, e in zip(steps, law[name], strict=True))
    print(f"a {int(y)}, {problem}")
    print(f"largest difference from the law: {measured['law']:.0e} of the gradient")
    print(f"error after {duration:g} ms:", ", ".join(f"{name} {measured[name]:.1e}" for name in errors))

    with figures.saved(out / "one_relaxation.png", columns=2) as (_, (left, right)):
        hidden = {name: trajectory[name][:, 0].numpy() for name in network.hidden}
        figures.heat_map(left, trajectory.times, hidden).set_xlabel("time (ms)")
        predicted = [n * DT for n in steps], law
        figures.approach(right, trajectory.times, errors, predicted).set_xlabel("time (ms)")
    return measured


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
