"""The relaxation on the site: digits-cnn, trained for some epochs, and five digits, as one HTML page.

python docs/relaxation_page.py FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

from actrelax import RelaxationProblem, digits, solve
from actrelax.analysis.view.page import to_html
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model
from actrelax.simulations.training.loop import train

EPOCHS, DIGITS = 5, 5


def write(path: Path, epochs: int = EPOCHS) -> None:
    """Train, relax by Euler's method in 100 steps of 0.1, and write the page."""
    training = assemble(Experiment(epochs=epochs, model=Model("digits-cnn")), Execution(threads=1)).training
    train(training)
    network, test = training.network.double(), digits().test
    problem = RelaxationProblem.from_batch(network, test.images[:DIGITS].double(), test.labels[:DIGITS])
    source = f"test digits, after {epochs} epochs of training"
    to_html(solve(problem, "euler", 100, eta=0.1, record=True), path, source=source)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
