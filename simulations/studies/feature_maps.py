"""Relaxation of a CNN's feature maps, from a digit's activity to the gradient.

Maps become the gradient from the top down. The second paper's CNN (Millidge, Tschantz, Seth & Buckley 2020, arXiv
2010.06219) is trained for a few epochs by activation relaxation on the bundled digits, enlarged to 32x32, and then
relaxes with the first test digit that it misclassifies. Colours show activities relative to the largest gradient of
their population, so at the end they equal the gradient, which autograd computes.

At first every map shows the digit, on a scale far larger than the gradient's. That image fades at the same rate in all
populations, but each also sends it down to the population below. The signal of the clamped output therefore emerges
first in the highest population and last in the lowest. The curves show the errors over time; circles are predictions of
the closed form. It takes a minute.

The last line on screen:  seen after: conv1 6.9, conv2 5.8, hidden1 4.6, hidden2 3.6 tau
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from actrelax import RelaxationProblem, activity_gradients, solve
from actrelax.analysis.convergence import predicted_errors, spread_out, stays_below
from actrelax.simulations.data import Split, digits
from actrelax.simulations.studies.animation import Film, movie, strip
from actrelax.simulations.studies.common import DIGITS, OUT, report, trained
from actrelax.simulations.suites.suite import varied

ETA = 0.1  # of the relaxation, also in training
SIZE = 32
EPOCHS = 3
BASE = varied(DIGITS, {"network": "cnn", "steps": 100, "eta": ETA, "lr": 0.1, "momentum": 0.9})

# unit of tau
DURATION = 12.0
SEEN = 0.99  # cosine between activity and gradient above which a population counts as converged


def main(out: Path = OUT, epochs: int = EPOCHS, frames: int = 61) -> dict[str, float]:
    """Train, relax, compare the errors with their prediction, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for feature_maps.png, .gif and .json.
    epochs : int
        Passes through the training images.
    frames : int
        Number of frames of the animation.

    Returns
    -------
    dict
        "accuracy" on the test images; population -> time in tau after which its cosine with the gradient stays above
        0.99; "first", the initial error of the lowest population, and "rise", its largest error relative to "first";
        "error", the largest final error; "law", the largest difference between measured and predicted errors; "digit",
        the label, and "taken for", the network's answer.
    """
    data = digits()
    data = replace(data, train=enlarged(data.train), test=enlarged(data.test))
    network = trained(varied(BASE, {"epochs": epochs}), data=data).double()
    images, labels = data.test.images.double(), data.test.labels
    answers = network(images).argmax(1)
    wrong = int((answers != labels).nonzero()[0])
    x, y = images[wrong : wrong + 1], labels[wrong : wrong + 1]

    problem = RelaxationProblem.from_batch(network, x, y)
    trajectory = solve(problem, "euler", dt=ETA, duration=DURATION, record=True)
    gradients = activity_gradients(network, x, y)
    errors = {name: e.tolist() for name, e in trajectory.error(gradients).items() if name in network.hidden}
    steps = spread_out(trajectory.steps)
    law = predicted_errors(problem, gradients, "euler", dt=ETA, at=steps)

    measured = {"accuracy": float((answers == labels).double().mean())}
    measured |= {name: seen_after(trajectory[name], gradients[name]) for name in network.hidden}
    lowest = network.hidden[0]
    measured["rise"] = max(errors[lowest]) / errors[lowest][0]
    measured["error"] = max(error[-1] for error in errors.values())
    measured["law"] = max(abs(errors[name][n] - e) for name in law for n, e in zip(steps, law[name], strict=True))

    scale = {name: gradients[name].abs().max() for name in network.hidden}
    hidden = {name: (trajectory[name][:, 0] / scale[name]).numpy() for name in network.hidden}
    goals = {name: (gradients[name][0] / scale[name]).numpy() for name in network.hidden}
    film = Film(x[0].numpy(), trajectory.times, hidden, goals, errors, ([n * ETA for n in steps], law))
    strip(out / "feature_maps.png", film, [round(t / ETA) for t in (0, 2, 3, 4, 5, 7)])
    movie(out / "feature_maps.gif", film, spread_out(trajectory.steps, frames))
    measured |= {"digit": int(y), "taken for": int(answers[wrong]), "first": errors[lowest][0]}
    report(
        out / "feature_maps.json",
        measured,
        f"{measured['accuracy']:.1%} of test digits; this {int(y)} is taken for a {int(answers[wrong])}: {problem}",
        f"error of {lowest}: {errors[lowest][0]:.1f} at first, {measured['rise']:.2f} times that at most",
        f"error after {DURATION:g} tau: {measured['error']:.1e}, {measured['law']:.0e} from the law's",
        f"seen after: {', '.join(f'{name} {measured[name]:.1f}' for name in network.hidden)} tau",
    )
    return measured


def enlarged(part: Split) -> Split:
    """Enlarge images from (1, 8, 8) to (1, SIZE, SIZE)."""
    return Split(interpolate(part.images, size=(SIZE, SIZE), mode="bilinear", align_corners=False), part.labels)


def seen_after(activities: Tensor, gradient: Tensor) -> float:
    """Return the time in tau after which the cosine between activity and gradient stays above SEEN."""
    cosines = cosine_similarity(activities.flatten(1), gradient.flatten()[None], dim=1)
    first = stays_below((1 - cosines).tolist(), 1 - SEEN)
    return float("nan") if first is None else first * ETA


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
