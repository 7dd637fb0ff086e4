"""A network of rate neurons learns handwritten digits inside Brian2: no weight is computed elsewhere.

Activation relaxation (Millidge, Tschantz, Buckley & Seth 2020, arXiv 2009.05359) as one simulation of 64-32-10
neurons, fully connected, that sees one digit after another. Each digit is a feedforward phase, in which the neurons
follow their drive and hold rate and gain; a relaxation, in which they follow their feedback while the output sends
the loss's gradient; and a step of local plasticity in the synapses. What Brian2 computes equals the same rule in
PyTorch, with batches of one and plain gradient descent, to rounding.

Writes, to --out, config.json; metrics.csv (accuracy on the digits just learned, each before its update, and on the
test digits, both inside Brian2); checkpoint.pt, whose entry "network" is the state_dict of the PyTorch network;
figures/plasticity.png: accuracy over stimuli, and the hidden neurons over one stimulus's two phases; and summary.json
with the test accuracy of the PyTorch network that has these weights. A run that stopped continues with --resume,
for more passes if --epochs says so, and gives what it would have given in one go. The last line on screen is

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

from actrelax.analysis import figures
from actrelax.analysis.runs import RunFolder, Summary, versions
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.brian2 import Learner, Phases
from actrelax.models.network import Network, build
from actrelax.simulations.data import Split, digits, random_stream
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.brian2_training import Online
from actrelax.simulations.training.options import POSITIVE, among, require


@dataclass(frozen=True)
class Config:
    """Options of learning inside Brian2."""

    out: Path = Path("runs/plasticity")
    """Folder for results and figures."""
    resume: Path | None = None
    """Continue the run in this folder; its options are taken from there, and only --epochs may differ."""
    epochs: int = 3
    """Passes through the training digits, in a new order each."""
    images: int = 1437
    """Use only so many of the training digits."""
    every: int = 479
    """Test, and save a checkpoint, every so many stimuli."""
    lr: float = 0.02
    """Learning rate, chosen by validation within the training digits."""
    steps: int = 100
    """Relaxation steps a stimulus."""
    eta: float = 0.1
    """Size of a step of explicit Euler, dt / tau."""
    feedforward_steps: int | None = None
    """Steps of the feedforward phase; one a layer unless given."""
    feedforward_eta: float = 1.0
    """dt / tau of the feedforward phase: 1 computes a layer per step, less comes close in many steps."""
    assumptions: str = "ar"
    """A preset, with plasticity at equilibrium: which implausible assumptions are lifted."""
    decay: float | None = None
    """Kolen-Pollack's decay, of W and psi."""
    activation: str = "tanh"
    """Of the hidden neurons; any that has a formula."""
    loss: str = "cross-entropy"
    """cross-entropy, sum-of-squares or half-sum-of-squares."""
    codegen: str = "numpy"
    """Brian2's target: cython compiles for about a minute the first time, and is then several times faster."""
    seed: int = 0
    """Fixes initial weights, feedback weights and the order of the digits."""
    json: bool = False
    """Print the summary as JSON, and nothing else, on standard output."""


def main(config: Config) -> None:
    """Learn, draw, and say what came out."""
    require(
        epochs=(config.epochs, 1, math.inf),
        images=(config.images, 1, 1437),
        every=(config.every, 1, math.inf),
        lr=(config.lr, POSITIVE, math.inf),
        seed=(config.seed, 0, 2**63),
    )
    folder = RunFolder(config.resume or config.out)
    train, test = (Split(s.images.double().flatten(1), s.labels) for s in (digits().train, digits().test))
    network = make_network(config)
    phases = Phases(config.steps, config.eta, config.feedforward_steps, config.feedforward_eta)
    learner = Learner(
        network,
        rate=config.lr,
        loss=config.loss,
        assumptions=config.assumptions,
        phases=phases,
        decay=config.decay,
        codegen=config.codegen,
    )
    begin(folder, config)
    train = Split(train.images[: config.images], train.labels[: config.images])
    online = Online(learner, train, test, config.seed, folder)
    online.load()
    if config.codegen != "numpy":
        print("compiling: about a minute, unless it was compiled before.", file=sys.stderr)
    online.run(config.epochs, config.every, f"continue with actrelax plasticity --resume {folder.path}")
    draw(online, folder)
    summary = summarised(config, online, network)
    folder.write_summary(summary)
    if config.json:
        print(json.dumps(asdict(summary)))
    else:
        passes = "1 pass" if config.epochs == 1 else f"{config.epochs} passes"
        print(f"test accuracy {summary.test_accuracy:.2%} after {passes}: {folder.path}")


def make_network(config: Config) -> Network:
    """Build the network as `actrelax train` does, in float64."""
    network = build(
        "digits-mlp", activation=config.activation, generator=random_stream(config.seed, "weights")
    ).double()
    network.add_feedback(config.assumptions, random_stream(config.seed, "feedback"))
    return network


def draw(online: Online, folder: RunFolder) -> None:
    """Draw accuracy over stimuli, and the hidden neurons over the two phases of a test digit."""
    images, labels = online.test
    learner = online.learner
    states = learner.watch(images[:1], labels[:1])["hidden1"]
    with figures.saved(folder.figures / "plasticity.png", columns=2) as (_, (left, right)):
        for measure in ("train_accuracy", "test_accuracy"):
            stimuli, values = ([row[key] for row in online.metrics] for key in ("stimuli", measure))
            left.plot(stimuli, [100 * v for v in values], label=measure.replace("_", " "), marker=".")
        left.set(xlabel="stimuli", ylabel="accuracy (%)", xlim=(0, None))
        left.legend(loc="lower right")
        times = [learner.phases.eta * (step + 1) for step in range(len(states))]
        right.plot(times, states[:, :7].numpy())
        right.axvline(learner.phases.eta * learner.feedforward_steps, color="0.4", linewidth=1, linestyle="-")
        right.set(xlabel="time (ms; tau is 1 ms)", ylabel="x of seven hidden neurons", title="feedforward | relaxation")


def summarised(config: Config, online: Online, network: Network) -> Summary:
    """Measure the PyTorch network that has the weights which Brian2 learned."""
    return Summary(
        test_accuracy=accuracy(network, online.test),
        train_accuracy=online.metrics[-1]["train_accuracy"],
        validation_accuracy=None,
        rule="ar",
        assumptions=config.assumptions,
        dataset="digits",
        network="digits-mlp",
        epochs=config.epochs,
        seed=config.seed,
        wall_seconds=online.seconds,
        images_per_second=online.learned / online.seconds,
        device=f"Brian2 ({config.codegen})",
        versions={**versions(), "brian2": version("brian2")},
    )


def begin(folder: RunFolder, config: Config) -> None:
    """Write down the options; refuse to replace another run, or to continue one under other options."""
    options = {name: value for name, value in asdict(config).items() if name not in ("out", "resume", "json")}
    if config.resume is not None:
        for name, value in folder.config().items():
            if name not in ("epochs", "codegen") and options[name] != value:
                raise ActrelaxError(
                    f"{folder.path} is a run with --{name.replace('_', '-')} {value}, not {options[name]}: "
                    "leave that option out, or begin anew."
                )
        if (passes := folder.config()["epochs"]) > config.epochs:
            raise ActrelaxError(f"{folder.path} is a run of {passes} passes, which --epochs can only add to.")
    elif folder.is_begun():
        raise ActrelaxError(f"{folder.path} holds a run: --resume {folder.path} continues it; or give another --out.")
    folder.write_config(options)


@dataclass(frozen=True)
class _Source:
    resume: Path | None = None


def defaults(arguments: Sequence[str]) -> Config:
    """Return what options have unless they are given: those of a run that is resumed."""
    folder = among(arguments, _Source).resume
    if folder is None:
        return Config()
    try:
        return Config(**RunFolder(folder).config())
    except TypeError as error:
        raise ActrelaxError(f"{folder} holds a run of another program: continue it with that.") from error


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("plasticity", sys.argv[1:]))
