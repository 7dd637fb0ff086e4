"""Learned feedback weights: they align with the forward weights while the network learns digits.

Learned feedback in activation relaxation: Millidge, Tschantz, Buckley & Seth (2020), "Activation Relaxation: A Local
Dynamical Approximation to Backpropagation in the Brain", arXiv 2009.05359. With decay: Kolen & Pollack (1994),
"Backpropagation without weight transport", and Akrout et al. (2019), "Deep Learning without Weight Transport",
arXiv 1904.05391.

W and psi are drawn independently and change by the same Hebbian product.
Left: angle between W and psi; paler lines are higher projections. Right: |W - psi|, which stays constant without decay,
so that psi aligns only as both outgrow the difference. Kolen and Pollack's decay of both weights shrinks the difference
by 1 - rate * decay per update (circles); the strong decay of this example slows learning.

The last line on screen:  kolen-pollack: 91.1% of test images, angles 42.1, 39.0, 20.0 degrees, difference 0.44
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from actrelax import BackwardOptions, Network, Updates, build, digits, relax_backward
from actrelax.analysis import figures
from actrelax.analysis.alignment import feedback_alignment
from actrelax.simulations.data import random_stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# network
NETWORK = "mlp-4x32"
SEED = 0

# relaxation
STEPS = 100
ETA = 0.1

# learning: plain stochastic gradient descent
EPOCHS = 12
BATCH = 64
RATE = 0.3
DECAY = {"learned-feedback": None, "kolen-pollack": 0.01}


def main(out: Path = Path("runs/examples"), epochs: int = EPOCHS, steps: int = STEPS) -> dict[str, dict[str, float]]:
    """Learn the digits by both rules, compare W and psi after each epoch, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    epochs : int
        Passes through the training images.
    steps : int
        Relaxation steps per batch.

    Returns
    -------
    dict
        Rule -> "accuracy" on the test images, from 0 to 1; "angle", mean over projections, in degrees; "difference",
        the largest |W - psi| relative to its initial value, and "law", its predicted value.
    """
    data = digits()
    test = data.test.images.flatten(1).double()
    measured = {}
    with figures.saved(out / "learned_feedback.png", columns=2) as (_, (left, right)):
        for rule, decay in DECAY.items():
            network = build(NETWORK, input_shape=(64,), generator=random_stream(SEED, "weights")).double()
            network.add_feedback(rule, random_stream(SEED, "feedback"))
            history, updates = learn(network, rule, decay, epochs, steps)
            angles, distances = (torch.stack(values) for values in zip(*history, strict=True))
            left_over = distances / distances[0]
            law = [(1 - RATE * (decay or 0)) ** (updates * epoch / epochs) for epoch in range(epochs + 1)]
            accuracy = (network(test).argmax(1) == data.test.labels).double().mean()
            measured[rule] = {
                "accuracy": float(accuracy),
                "angle": float(angles[-1].mean()),
                "difference": float(left_over[-1].max()),
                "law": law[-1],
            }
            listed = ", ".join(f"{angle:.1f}" for angle in angles[-1])
            print(f"{rule}: {accuracy:.1%} of test images, angles {listed} degrees, difference {left_over[-1, 0]:.2f}")
            draw(left, right, rule, angles, left_over, law)
    return measured


def learn(
    network: Network, rule: str, decay: float | None, epochs: int, steps: int
) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Train a network; return the results of `compare` before and after each epoch, and the number of updates."""
    images, labels = digits().train
    x = images.flatten(1).double()
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE)
    options = BackwardOptions(Updates(decay=decay))
    history, updates = [compare(network)], 0
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=random_stream(SEED, "order", epoch))
        for i in torch.split(order, BATCH):
            optimiser.zero_grad()
            relax_backward(network, x[i], labels[i], steps, eta=ETA, assumptions=rule, options=options)
            optimiser.step()
            updates += 1
        history.append(compare(network))
    return history, updates


def compare(network: Network) -> tuple[Tensor, Tensor]:
    """Return, for each projection, the angle between W and psi in degrees, and |W - psi|."""
    angles, distances, _ = torch.tensor(list(feedback_alignment(network).values()), dtype=torch.float64).T
    return angles, distances


def draw(left: Axes, right: Axes, rule: str, angles: Tensor, left_over: Tensor, law: list[float]) -> None:
    """Draw the curves of one rule, with one angle per projection from the lowest up."""
    colour, style = ("#D55E00", "--") if DECAY[rule] is None else ("#0072B2", "-")
    for place, angle in enumerate(angles.T):
        left.plot(angle, style, color=colour, alpha=1 - 0.3 * place, label=None if place else rule)
    right.plot(left_over[:, 0], style, color=colour, label=rule)
    right.plot(
        law, "o", color="0.3", fillstyle="none", markersize=4, label=None if DECAY[rule] is None else "predicted"
    )
    for ax in (left, right):
        ax.locator_params(axis="x", integer=True)
    left.set(xlabel="epoch", ylabel="angle between W and psi (degrees)", xlim=(0, None), ylim=(0, 100))
    right.set(xlabel="epoch", ylabel="|W - psi| (relative to initial)", xlim=(0, None), ylim=(0, 1.1))
    left.legend(loc="lower left")
    right.legend(loc="lower left")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
