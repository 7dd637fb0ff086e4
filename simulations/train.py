"""Train a network by activation relaxation, under any assumptions, or by backprop.

`--protocol paper-mlp` (784-300-300-100-10 on MNIST) and `--protocol paper-cnn` (the LeNet-like network on CIFAR-10) are
the protocols of Millidge, Tschantz, Seth & Buckley 2020 (arXiv 2010.06219); further options change them. A seed fixes
initial weights, order and augmentation of the images for all rules and assumptions, so comparisons are paired.

Writes to --out config.json, metrics.csv, timing.csv, checkpoint.pt, figures/learning-curves.png and, at the end,
summary.json; with --validation also best.pt. A stopped or killed run continues with --resume, and equals an
uninterrupted run bit for bit; with more --epochs a finished run continues, too. The last line on screen has the test
accuracy and the folder. Several processes share each batch if torchrun starts them (docs/training.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from actrelax.analysis.runs import RunFolder
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import hash_of, read_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, protocol
from actrelax.simulations.training.options import given_in
from actrelax.simulations.training.run import Recording, run


@dataclass(frozen=True)
class Config:
    """Options of a training run."""

    protocol: str | None = None
    """Protocol of a paper, paper-mlp or paper-cnn, which sets the defaults of all other options."""
    experiment: Experiment = field(default_factory=Experiment)
    execution: Execution = field(default_factory=Execution)
    recording: Recording = field(default_factory=Recording)


@dataclass(frozen=True)
class _Source:
    protocol: str | None = None
    resume: Path | None = None
    network: str | None = None


def defaults(arguments: Sequence[str]) -> Config:
    """Return the default options, from the protocol, or from the run given by --resume."""
    source = given_in(arguments, _Source)
    if source.resume is None:
        return Config() if source.protocol is None else Config(experiment=protocol(source.protocol))
    if source.protocol is not None:
        raise ActrelaxError("--resume takes its options from the run: leave --protocol out.")
    experiment, execution = read_config(RunFolder(source.resume))
    return Config(experiment=experiment, execution=execution, recording=Recording(network=source.network))


def main(config: Config) -> None:
    """Do the run, and print its accuracy."""
    summary = run(config.experiment, config.execution, config.recording)
    folder = config.recording.folder_of(config.experiment)
    if config.recording.json:
        print(json.dumps(asdict(summary)))
    else:
        print(f"hash of the options: {hash_of(config.experiment.resolved())}")
        if summary.best_epoch is not None:
            best = f"epoch {summary.best_epoch}, with test accuracy {summary.test_accuracy_at_best:.2%}"
            print(f"best validation accuracy after {best}: best.pt")
        print(f"test accuracy {summary.test_accuracy:.2%} after {summary.epochs} epochs: {folder}")


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("train", sys.argv[1:]))
