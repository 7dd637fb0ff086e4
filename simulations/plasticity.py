"""Learn handwritten digits inside Brian2, with a network of rate neurons and plastic synapses.

Activation relaxation (Millidge, Tschantz, Buckley & Seth 2020, arXiv 2009.05359) runs as one simulation of 64-32-10
fully connected neurons that sees one digit after another. Each digit has a feedforward phase, in which neurons follow
their drive and then hold rate and gain; a relaxation, in which they follow their feedback while the output sends the
gradient of the loss; and a step of local plasticity in the synapses. The result equals the same rule in PyTorch, with
batches of one and plain gradient descent, to rounding.

Writes to --out config.json; metrics.csv, with the accuracy on the digits just learned, before each update, and on the
test digits, both inside Brian2; timing.csv; checkpoint.pt, whose entry "network" is the state_dict of the PyTorch
network; figures/plasticity.png, with the accuracy over stimuli, and hidden neurons during the two phases of a stimulus;
and summary.json, with the test accuracy of the PyTorch network with the learned weights. A stopped run continues with
--resume, and equals an uninterrupted one; --epochs may be increased. The last line on screen is

    test accuracy 95.00% after 3 passes: runs/plasticity
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from actrelax.analysis import figures
from actrelax.analysis.files import claimed
from actrelax.analysis.fingerprints import Fingerprints, identity, of_options, of_weights, record
from actrelax.analysis.runs import PLASTICITY, RunFolder
from actrelax.analysis.summary import Summary, versions
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Backward
from actrelax.models.learning.brian2 import Learner, Phases
from actrelax.models.network import Network, build
from actrelax.models.problem import LOSSES
from actrelax.simulations.data import Dataset, Split, digits, random_stream
from actrelax.simulations.data.fingerprint import fingerprint
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.batches import Batches, Preprocessing
from actrelax.simulations.training.callbacks import DivergenceCheck, MeasureEachBatch, ProgressBar
from actrelax.simulations.training.configuration import structured
from actrelax.simulations.training.loop import train
from actrelax.simulations.training.options import POSITIVE, given_in, require
from actrelax.simulations.training.recorder import Recorder, restore
from actrelax.simulations.training.signals import stopping_cleanly
from actrelax.simulations.training.state import Training


@dataclass(frozen=True)
class Config:
    """Options of learning inside Brian2."""

    out: Path = Path("runs/plasticity")
    """Folder for results and figures."""
    resume: Path | None = None
    """Continue the run in this folder, with its options; only --epochs and --codegen may differ."""
    overwrite: bool = False
    """Replace an existing run in --out."""
    accept_changes: bool = False
    """With --resume: continue even if the digits or the weights have changed."""
    epochs: int = 3
    """Number of passes through the training digits, each in a new order."""
    images: int = 1437
    """Number of training digits to use."""
    every: int = 479
    """Number of stimuli between tests, which also save a checkpoint; each pass ends with a test."""
    lr: float = 0.02
    """Learning rate, chosen by validation within the training digits."""
    steps: int = 100
    """Number of relaxation steps per stimulus."""
    eta: float = 0.1
    """Step size dt / tau of explicit Euler steps."""
    feedforward_steps: int | None = None
    """Number of steps of the feedforward phase. Default: one per layer; with any other --feedforward-eta than 1 it must
    be given."""
    feedforward_eta: float = 1.0
    """Step size dt / tau of the feedforward phase: 1 computes one layer per step, smaller values need many steps."""
    assumptions: str = "ar"
    """Preset of assumptions, with plasticity at equilibrium."""
    decay: float | None = None
    """Kolen-Pollack's decay of W and psi per update, relative to the learning rate."""
    activation: str = "tanh"
    """Activation function of the hidden neurons, one with a formula for Brian2."""
    loss: str = "cross-entropy"
    """Loss function: cross-entropy, sum-of-squares or half-sum-of-squares."""
    codegen: str = "numpy"
    """Code generation target of Brian2: cython compiles for about a minute at first, and is then several times
    faster."""
    seed: int = 0
    """Seed of initial weights, feedback weights and the order of the digits."""
    json: bool = False
    """Print only the summary, as JSON, on standard output."""


MAY_DIFFER = ("epochs", "codegen")  # options that a resumed run may change


@dataclass(frozen=True)
class LearningInBrian2:
    """Learning rule that updates weights inside Brian2; each batch is one run, stimulus after stimulus."""

    learner: Learner

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Backward:
        output = self.learner.learn(x, y)
        losses = LOSSES[self.learner.loss].value(output, y)
        return Backward(losses.mean(), output, torch.isfinite(losses).all(), len(y))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the activities of the neurons, which are part of the state."""
        return self.learner.activities

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the activities."""
        self.learner.activities = state


def main(config: Config) -> None:
    """Learn the digits, draw the results, and print the test accuracy."""
    if config.resume is None and config.accept_changes:
        raise ActrelaxError("--accept-changes needs --resume: give --resume, or leave it out.")
    require(
        epochs=(config.epochs, 1, math.inf),
        images=(config.images, 1, 1437),
        every=(config.every, 1, math.inf),
        lr=(config.lr, POSITIVE, 1e300),
        seed=(config.seed, 0, 2**63),
    )
    if config.resume is not None and config.out != Config.out:
        raise ActrelaxError("--resume continues a run in its folder: leave --out out.")
    folder = RunFolder(config.resume or config.out)
    check_begin(folder, config)
    training, learner = assemble(config)
    with claimed(folder.path):
        summary = learned(config, folder, training, learner)
    if config.json:
        print(json.dumps(asdict(summary)))
    else:
        passes = "1 pass" if config.epochs == 1 else f"{config.epochs} passes"
        print(f"test accuracy {summary.test_accuracy:.2%} after {passes}: {folder.path}")


def learned(config: Config, folder: RunFolder, training: Training, learner: Learner) -> Summary:
    """Begin or resume the run in a folder, learn, draw, and return the summary."""
    inputs = begin(folder, config, training)
    if config.codegen != "numpy":
        print("compiling takes about a minute, unless it was done before.", file=sys.stderr)
    with stopping_cleanly() as stop, ProgressBar(folder.path.name, every=1) as bar:
        check = DivergenceCheck(every=1)
        run, again = identity(inputs), f"plasticity --resume {folder.path}"
        recorder = Recorder(folder, check, stop, every=1, again=again, run=run)
        train(training, [check, MeasureEachBatch(), recorder, bar])
    draw(training, learner, folder)
    summary = summarised(config, training)
    record(folder, {**inputs, **of_weights(folder)})
    folder.write_summary(summary)
    return summary


def assemble(config: Config) -> tuple[Training, Learner]:
    """Return a new training, and the learner of its network."""
    network = make_network(config)
    learner = Learner(
        network,
        rate=config.lr,
        loss=config.loss,
        assumptions=config.assumptions,
        phases=Phases(config.steps, config.eta, config.feedforward_steps, config.feedforward_eta),
        decay=config.decay,
        codegen=config.codegen,
    )
    train, test = (Split(images.flatten(1), labels) for images, labels in (digits().train, digits().test))
    data = Dataset("digits", 10, Split(*(x[: config.images] for x in train)), test)
    optimiser = torch.optim.SGD(network.parameters(), lr=config.lr)  # finds no .grad, and only provides the rate
    training = Training(
        network,
        Batches(data, Preprocessing(torch.float64), config.every, config.seed),
        LearningInBrian2(learner),
        optimiser,
        LambdaLR(optimiser, lambda _: 1.0),
        config.epochs,
        respond=learner.respond,
    )
    return training, learner


def make_network(config: Config) -> Network:
    """Build the network as `actrelax train` does, in float64."""
    network = build(
        "digits-mlp", activation=config.activation, generator=random_stream(config.seed, "weights")
    ).double()
    network.add_feedback(config.assumptions, random_stream(config.seed, "feedback"))
    return network


def draw(training: Training, learner: Learner, folder: RunFolder) -> None:
    """Draw accuracy over stimuli, and hidden neurons during the two phases of a test digit."""
    images, labels = training.batches.data.test
    states = learner.watch(training.batches.preprocess(images[:1]), labels[:1])["hidden1"]
    with figures.saved(folder.path / PLASTICITY, columns=2) as (_, (left, right)):
        for name in ("train_accuracy", "test_accuracy"):
            stimuli, values = ([row[key] for row in training.tables["metrics"]] for key in ("stimuli", name))
            left.plot(stimuli, [100 * v for v in values], label=name.replace("_", " "), marker=".")
        left.set(xlabel="stimuli", ylabel="accuracy (%)", xlim=(0, None))
        left.legend(loc="lower right")
        times = [learner.phases.eta * (step + 1) for step in range(len(states))]
        right.plot(times, states[:, :7].numpy())
        right.axvline(learner.phases.eta * learner.feedforward_steps, color="0.4", linewidth=1, linestyle="-")
        right.set(xlabel="time (ms; tau is 1 ms)", ylabel="activity of seven hidden neurons")
        right.set(title="feedforward | relaxation")


def summarised(config: Config, training: Training) -> Summary:
    """Return the summary, with the test accuracy of the PyTorch network with the learned weights."""
    batches = training.batches
    seconds, speed = training.time_taken()
    return Summary(
        test_accuracy=accuracy(training.network, batches.data.test, batches.preprocess),
        train_accuracy=training.tables["metrics"][-1]["train_accuracy"],
        validation_accuracy=None,
        rule="ar",
        assumptions=config.assumptions,
        dataset="digits",
        network="digits-mlp",
        epochs=config.epochs,
        seed=config.seed,
        wall_seconds=seconds,
        images_per_second=speed,
        device=f"Brian2 ({config.codegen})",
        versions={**versions(), "brian2": version("brian2")},
    )


def options_of(config: Config) -> dict[str, Any]:
    """Return the options of config.json."""
    elsewhere = ("out", "resume", "overwrite", "accept_changes", "json")
    return {name: value for name, value in asdict(config).items() if name not in elsewhere}


def check_begin(folder: RunFolder, config: Config) -> None:
    """Check that a run may begin or be resumed with these options."""
    resumed = None if config.resume is None else folder.config()
    folder.check_begin(options_of(config), resumed, overwrite=config.overwrite, may_differ=MAY_DIFFER)
    if resumed is not None and resumed["epochs"] > config.epochs:
        raise ActrelaxError(
            f"--epochs must be at least {resumed['epochs']}, the passes of {folder.path}, got {config.epochs}."
        )


def begin(folder: RunFolder, config: Config, training: Training) -> Fingerprints:
    """Write the options, load the checkpoint of a resumed run, and return the run's fingerprints."""
    check_begin(folder, config)
    options = options_of(config)
    fixed = {name: value for name, value in options.items() if name not in MAY_DIFFER}
    inputs = {**of_options(fixed), "images": fingerprint(training.batches.data)}
    if config.resume is None:
        folder.clear()
    elif restore(training, folder, inputs, accept_changes=config.accept_changes):
        folder.write_tables(training.tables)  # if that fails, config.json stays unchanged
    record(folder, inputs)
    folder.write_config(options)
    return inputs


@dataclass(frozen=True)
class _Source:
    resume: Path | None = None


def defaults(arguments: Sequence[str]) -> Config:
    """Return the default options, from the run given by --resume if there is one."""
    folder = given_in(arguments, _Source).resume
    if folder is None:
        return Config()
    found = RunFolder(folder).config()
    if found.keys() != options_of(Config()).keys():
        raise ActrelaxError(f"{folder} holds a run of another program: resume it with that program.")
    return structured(Config, {**asdict(Config()), **found})


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("plasticity", sys.argv[1:]))
