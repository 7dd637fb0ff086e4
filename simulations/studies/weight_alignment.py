"""Does learned feedback align with the forward weights, and why?

Feedback weights psi begin as an independent draw, at 90 degrees from W. Under the papers' rule both change by the same
Hebbian product, so that W - psi stays what it was: psi aligns only as far as W outgrows that difference. Weight decay,
the optimiser's or Kolen and Pollack's (1994), takes the difference away. Random psi never changes; W turns a
little towards it (Lillicrap et al. 2016, "Random synaptic feedback weights support error backpropagation").

Left: the angle between W and psi, over training. Middle: |W - psi| relative to what it was; circles are the law,
(1 - rate * decay) an update. Right: the angle between updates and backprop's. Means over projections; bands are 95 %
intervals over seeds.

The last line on screen:  random: 92.7% of test images, psi 71 degrees from W, rank 25.4 to 25.4, updates 57 degrees off
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from actrelax import BackwardOptions, Network, Updates, build, relax_backward
from actrelax.analysis import figures
from actrelax.analysis.alignment import feedback_alignment, update_angles
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.learning import accuracy, as_stimuli, epochs_of

# network and learning: plain stochastic gradient descent
NETWORK = "mlp-4x32"
EPOCHS = 12
UPDATES = 23  # an epoch, of 64 digits each
RATE = 0.3
SEEDS = 3
MEASURED = 256

RULES = {  # label -> assumptions, Kolen and Pollack's decay, the optimiser's
    "learned": ("learned-feedback", None, 0.0),
    "learned, weight decay": ("learned-feedback", None, 0.003),
    "Kolen-Pollack": ("kolen-pollack", 0.01, 0.0),
    "random": ("random-feedback", None, 0.0),
}

OverEpochs = dict[float, list[float]]
"""Epoch -> a value for each seed."""


def main(
    out: Path = Path("runs/studies"), epochs: int = EPOCHS, seeds: int = SEEDS
) -> dict[str, dict[str, OverEpochs]]:
    """Learn by each rule, compare W and psi after each epoch, draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    epochs, seeds : int

    Returns
    -------
    dict
        Rule -> "angle", "distance" and "update", means over projections, "rank" of the lowest psi, "accuracy" -> epoch
        -> a value for each seed.
    """
    found: dict[str, dict[str, OverEpochs]] = {}
    for label in RULES:
        found[label] = defaultdict(lambda: defaultdict(list))
        for seed in range(seeds):
            learn(found[label], label, seed, epochs)
    with figures.saved(out / "weight_alignment.png", columns=3) as (_, axes):
        for ax, what, said in zip(
            axes,
            ("angle", "distance", "update"),
            (
                "angle between W and psi (degrees)",
                "|W - psi| / |W - psi| before",
                "angle to backprop's update (degrees)",
            ),
            strict=True,
        ):
            figures.over_epochs(ax, {label: values[what] for label, values in found.items()}, said)
            ax.set(ylim=(0, None))
        for label in RULES:
            figures.circles(axes[1], range(epochs + 1), [law(label, epoch) for epoch in range(epochs + 1)])
        figures.circles(axes[1], [], [], label="law")
        axes[1].legend()
    for label, values in found.items():
        at_end = {what: fmean(by_epoch[epochs]) for what, by_epoch in values.items()}
        print(
            f"{label}: {at_end['accuracy']:.1%} of test images, psi {at_end['angle']:.0f} degrees from W, "
            f"rank {fmean(values['rank'][0]):.1f} to {at_end['rank']:.1f}, updates {at_end['update']:.0f} degrees off"
        )
    return found


def learn(found: dict[str, OverEpochs], label: str, seed: int, epochs: int) -> None:
    """Train one network by a rule, and look at it before and after each epoch."""
    assumptions, decay, weight_decay = RULES[label]
    network = build(NETWORK, input_shape=(64,), generator=random_stream(seed, "weights")).double()
    network.add_feedback(assumptions, random_stream(seed, "feedback"))
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE, weight_decay=weight_decay)
    options = BackwardOptions(Updates(decay=decay))
    backward = partial(relax_backward, assumptions=assumptions, integrator="equilibrium", options=options)
    for epoch in epochs_of(network, optimiser, backward, epochs=epochs, seed=seed):
        look(found, network, assumptions, decay, epoch)
    first = found["distance"][0][seed]
    for by_epoch in found["distance"].values():
        by_epoch[seed] /= first


def look(found: dict[str, OverEpochs], network: Network, assumptions: str, decay: float | None, epoch: int) -> None:
    """Compare W with psi, and the update with backprop's, where feedback reaches the lower layers."""
    alignment = list(feedback_alignment(network).values())
    found["angle"][epoch].append(fmean(each.angle for each in alignment))
    found["distance"][epoch].append(fmean(each.distance for each in alignment))
    found["rank"][epoch].append(alignment[0].rank)  # of the lowest psi, of 32 rows and columns
    images, labels = digits().train
    x, y = as_stimuli(network, images[:MEASURED]), labels[:MEASURED]
    network.zero_grad()
    options = BackwardOptions(Updates(decay=decay))
    relax_backward(network, x, y, assumptions=assumptions, integrator="equilibrium", options=options)
    angles = update_angles(network, x, y, assumptions=assumptions, options=options)
    found["update"][epoch].append(fmean(list(angles.values())[:-1]))  # the output's update needs no feedback
    found["accuracy"][epoch].append(accuracy(network))


def law(label: str, epoch: int) -> float:
    """Return |W - psi| relative to what it was; nan for random feedback, which has no law."""
    rule, decay, weight_decay = RULES[label]
    if rule == "random-feedback":
        return float("nan")
    return (1 - RATE * ((decay or 0.0) + weight_decay)) ** (UPDATES * epoch)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
