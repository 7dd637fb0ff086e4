"""Train a network by activation relaxation, under any assumptions, or by backprop, and compare them fairly.

The protocols of Millidge, Tschantz, Seth & Buckley 2020 (arXiv 2010.06219) are `--protocol paper-mlp` (784-300-300-
100-10 on MNIST) and `--protocol paper-cnn` (the LeNet-like network on CIFAR-10); options after it change them. Under
one seed initial weights, order and augmentation of the images are the same whatever the rule and the assumptions.

Writes, to --out, config.json, metrics.csv, timing.csv, checkpoint.pt, figures/learning-curves.png and, at the end,
summary.json; with --validation also best.pt. A run that was stopped or killed continues with --resume and gives, bit
for bit, what it would have given without the interruption; with more --epochs a finished run goes on. The last line on
screen is the test accuracy and the folder. Several processes share each batch where torchrun starts them
(docs/training.md).
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
    """paper-mlp or paper-cnn: sets the options of a paper's protocol; others on the command line change them."""
    experiment: Experiment = field(default_factory=Experiment)
    execution: Execution = field(default_factory=Execution)
    recording: Recording = field(default_factory=Recording)


@dataclass(frozen=True)
class _Source:
    protocol: str | None = None
    resume: Path | None = None
    network: str | None = None


def defaults(arguments: Sequence[str]) -> Config:
    """Return what options have unless they are given: those of a protocol, or of a run that is resumed."""
    source = given_in(arguments, _Source)
    if source.resume is None:
        return Config() if source.protocol is None else Config(experiment=protocol(source.protocol))
    if source.protocol is not None:
        raise ActrelaxError("--resume takes its options from the run: leave --protocol out.")
    experiment, execution = read_config(RunFolder(source.resume))
    return Config(experiment=experiment, execution=execution, recording=Recording(network=source.network))


def main(config: Config) -> None:
    """Run, and say what came out."""
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
