"""What 100 steps leave of the feedforward pass, and what that does to learning.

A relaxation that is stopped holds some of the activity it began with, the more the farther a layer is from the output.
A small CNN learns the digits by 100 steps of eta = 0.1, from the feedforward state as the papers do.

Left: what is left, relative to what has come from the clamped output, as the network learns: gradients shrink, what is
left doesn't. Right: the angle between each projection's update and backprop's at the same weights. Dotted: from a
silent state nothing is left, and every update points along the gradient. Bands are 95 % intervals over seeds.

The last line on screen:  conv1's update is 3 degrees off backprop's at first, 63 after 12 epochs; from zero 0 and 0
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from actrelax import Network, RelaxationProblem, build, relax_backward
from actrelax.analysis import figures
from actrelax.analysis.alignment import update_angles
from actrelax.analysis.initial_state_share import contamination
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.learning import accuracy, epochs_of

# network and learning
NETWORK = "digits-cnn"
EPOCHS = 12
RATE = 0.1
MOMENTUM = 0.9
SEEDS = 5

# relaxation: the papers' sequential steps
STEPS = 100
ETA = 0.1
MEASURED = 256
"""Images on which updates are compared."""

OverEpochs = dict[str, dict[float, list[float]]]
"""Population or projection -> epoch -> a value for each seed."""


def main(out: Path = Path("runs/studies"), epochs: int = EPOCHS, seeds: int = SEEDS) -> dict[str, OverEpochs]:
    """Learn, look after each epoch what is left, draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    epochs, seeds : int

    Returns
    -------
    dict
        "left" -> population, "angle" and "angle from zero" -> projection -> epoch -> a value for each seed;
        "accuracy" -> "test" -> epoch -> likewise.
    """
    found: dict[str, OverEpochs] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for seed in range(seeds):
        learn(found, seed, epochs)
    with figures.saved(out / "contamination.png", columns=2) as (_, (left, right)):
        figures.over_epochs(
            left, found["left"], "initial activity left / activity from the clamp\nafter 100 steps", log=True
        )
        figures.over_epochs(right, found["angle"], "angle to backprop's update (degrees)")
        for zero in found["angle from zero"].values():
            right.plot(list(zero), [fmean(v) for v in zero.values()], color="0.3", linestyle=":", linewidth=1)
        right.set(ylim=(-2, 90))
        for ax in (left, right):
            ax.legend()
    shares, angles, zeros = (found[what] for what in ("left", "angle", "angle from zero"))
    print(f"{fmean(found['accuracy']['test'][epochs]):.1%} of test images")
    first, last = (fmean(shares["conv1"][epoch]) for epoch in (0, epochs))
    print(f"left in conv1, relative to what has come: {first:.1%} at first, {last:.1%} after {epochs} epochs")
    first, last = (fmean(angles["input->conv1"][epoch]) for epoch in (0, epochs))
    quiet = " and ".join(f"{fmean(zeros['input->conv1'][epoch]):.0f}" for epoch in (0, epochs))
    print(
        f"conv1's update is {first:.0f} degrees off backprop's at first, {last:.0f} after {epochs} epochs; "
        f"from zero {quiet}"
    )
    return found


def learn(found: dict[str, OverEpochs], seed: int, epochs: int) -> None:
    """Train one network, and look at it before and after each epoch."""
    images, labels = digits().train
    network = build(NETWORK, generator=random_stream(seed, "weights"))
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)
    backward = partial(relax_backward, steps=STEPS, eta=ETA)
    for epoch in epochs_of(network, optimiser, backward, epochs=epochs, seed=seed):
        look(found, network, images[:MEASURED], labels[:MEASURED], epoch)


def look(found: dict[str, OverEpochs], network: Network, x: Tensor, y: Tensor, epoch: int) -> None:
    """Measure what is left in each population, where updates point, and the accuracy."""
    problem = RelaxationProblem.from_batch(network, x, y)
    for name, (share,) in contamination(problem, "sequential", dt=ETA, at=[STEPS]).items():
        found["left"][name][epoch].append(share)
    for what, start in (("angle", "feedforward"), ("angle from zero", "zero")):
        network.zero_grad()
        relax_backward(network, x, y, steps=STEPS, eta=ETA, start=start)
        for name, angle in update_angles(network, x, y).items():
            found[what][name][epoch].append(angle)
    found["accuracy"]["test"][epoch].append(accuracy(network))


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
