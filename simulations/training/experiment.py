"""An experiment in training: everything that determines its result, and the papers' protocols."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.options import POSITIVE, Hardware, Relaxation, require
from actrelax.simulations.training.processes import ALONE, Processes

T = TypeVar("T")


@dataclass(frozen=True)
class Images:
    """What is learned from."""

    dataset: str = "digits"
    """digits, mnist, fashion-mnist, cifar10, cifar100, svhn, a NAME.npz in the data directory, or a .npz file."""
    data_dir: Path | None = None
    """Where NAME.npz files are and go; $ACTRELAX_DATA unless given, or else ./data."""
    validation: int = 0
    """Hold out so many training images and report on them too: for tuning."""
    normalise: Literal["none", "half", "channels"] = "none"
    """none; half: mean and standard deviation 0.5; channels: each channel's own, over the training images."""
    augment: bool = False
    """Flip and crop (4 pixels of padding) the training images at random."""


@dataclass(frozen=True)
class Model:
    """What learns."""

    network: str = "digits-cnn"
    """A network by name (mlp, cnn, vgg8, mlp-DEPTHxWIDTH ...), or FILE.py:FUNCTION of your own."""
    activation: str | None = None
    """Of the hidden populations; the network's usual one unless given."""
    weight_std: float | None = None
    """Standard deviation of the initial weights; the network's usual one unless given."""
    loss: str = "cross-entropy"
    """cross-entropy, sum-of-squares or half-sum-of-squares."""


@dataclass(frozen=True)
class Optimisation:
    """How weights follow their updates."""

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    """From torch.optim."""
    lr: float = 0.1
    """Learning rate."""
    momentum: float = 0.0
    """Of sgd."""
    weight_decay: float = 0.0
    """The optimiser's, on forward and feedback weights alike."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """Of the learning rate after the warm-up: constant; a factor every so many epochs; cosine to 0 at the end."""
    warmup: float = 0.0
    """Epochs over which the learning rate rises from 0."""
    step_epochs: float = 10.0
    """Epochs between the steps of the step schedule."""
    step_factor: float = 0.1
    """Factor of a step."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the updates over the batch."""
    conv_factor: float = 1.0
    """Factor of the convolutions' updates."""
    update_clip: float | None = None
    """Bound on the updates, element by element."""
    decay: float | None = None
    """Kolen-Pollack's decay, of W and psi."""


@dataclass(frozen=True)
class Speed:
    """How the result is computed, which is the same."""

    evaluation: Literal["auto", "stepped", "closed-form"] = "auto"
    """stepped; closed-form: without steps, about as fast as backprop; auto: the closed form where it applies."""
    compile: Literal["auto", "no", "trace", "inductor"] = "auto"
    """trace: only run kernels from the second batch on; inductor: torch.compile; auto: trace for AR where possible."""


@dataclass(frozen=True)
class Experiment:
    """One training run: what a seed and these options determine, they determine to the last bit."""

    rule: Literal["ar", "backprop"] = "ar"
    """Where gradients come from."""
    epochs: int = 20
    """Passes through the training images."""
    batch_size: int = 64
    """Images per batch, over all processes."""
    processes: int | None = None
    """Processes that share each batch: as many as torchrun has started, another number is refused."""
    seed: int = 0
    """Fixes initial weights, feedback weights, the order of the images and their augmentation."""
    measure_alignment: int | None = None
    """Measure the angle between AR's and backprop's updates every so many batches, the first included."""
    images: Images = field(default_factory=Images)
    model: Model = field(default_factory=Model)
    relaxation: Relaxation = field(default_factory=Relaxation)
    optimisation: Optimisation = field(default_factory=Optimisation)
    speed: Speed = field(default_factory=Speed)
    hardware: Hardware = field(default_factory=Hardware)

    @property
    def name(self) -> str:
        """What it is in short: DATASET-NETWORK-CONDITION-seedN."""
        rule = "backprop" if self.rule == "backprop" else self.relaxation.assumptions
        network = Path(self.model.network.rpartition(":")[0]).stem or self.model.network
        return f"{Path(self.images.dataset).stem}-{network}-{rule}-seed{self.seed}"

    def resolved(self, processes: Processes = ALONE) -> Experiment:
        """Return the same with what depends on this machine made definite: device, threads, processes; paths absolute.

        Raises
        ------
        ActrelaxError
            For a device that is not there, or as many processes as there are not.
        """
        if self.processes not in (None, processes.count):
            raise ActrelaxError(
                f"the run is one of --processes {self.processes}, and this is one of {processes.count}: start it with "
                f"torchrun --nproc-per-node={self.processes}."
            )
        images, network = self.images, self.model.network
        if images.dataset.endswith(".npz"):
            images = replace(images, dataset=str(Path(images.dataset).absolute()))
        if images.data_dir is not None:
            images = replace(images, data_dir=images.data_dir.absolute())
        if ":" in network:
            network = str(Path(network).absolute())
        model = replace(self.model, network=network)
        hardware = self.hardware
        if hardware.threads is None:
            hardware = replace(hardware, threads=processes.threads)
        hardware = hardware.resolved()
        return replace(self, processes=processes.count, images=images, model=model, hardware=hardware)

    def check(self) -> None:
        """Refuse numbers out of range and options that exclude each other.

        Names and sizes that depend on data and network are refused where these are made.
        """
        o = self.optimisation
        require(
            epochs=(self.epochs, 1, math.inf),
            batch_size=(self.batch_size, 1, math.inf),
            seed=(self.seed, 0, 2**63),
            measure_alignment=(self.measure_alignment, 1, math.inf),
            validation=(self.images.validation, 0, math.inf),
            weight_std=(self.model.weight_std, 0, math.inf),
            lr=(o.lr, POSITIVE, 1e38),
            momentum=(o.momentum, 0, 1),
            weight_decay=(o.weight_decay, 0, math.inf),
            warmup=(o.warmup, 0, self.epochs),
            step_epochs=(o.step_epochs, 0.001, math.inf),
            step_factor=(o.step_factor, POSITIVE, 1),
            conv_factor=(o.conv_factor, POSITIVE, math.inf),
            update_clip=(o.update_clip, POSITIVE, math.inf),
            decay=(o.decay, 0, math.inf),
        )
        self.relaxation.check()
        decays = self.rule == "ar" and self.relaxation.knobs.needs_decay
        if decays and o.decay is None:
            raise ActrelaxError("Kolen-Pollack feedback needs a rate of decay: give --decay.")
        if o.decay is not None and not decays:
            raise ActrelaxError("--decay belongs to Kolen-Pollack feedback: use --weight-decay otherwise.")
        if o.momentum and o.optimiser != "sgd":
            raise ActrelaxError(f"--momentum belongs to sgd, {o.optimiser} has its own: leave it out.")
        is_continuous = self.rule == "ar" and self.relaxation.is_continuous
        if is_continuous:
            self._check_continuous()
        if self.measure_alignment and (self.rule == "backprop" or is_continuous):
            raise ActrelaxError(
                "--measure-alignment compares AR's updates after a relaxation with backprop's: leave it out."
            )

    def _check_continuous(self) -> None:
        """Refuse what weights that move during the relaxation can't have."""
        o = self.optimisation
        if o.optimiser != "sgd" or o.momentum or o.weight_decay:
            raise ActrelaxError("continuous plasticity is plain gradient descent: leave momentum and weight decay out.")
        if (self.processes or 1) > 1:
            raise ActrelaxError("continuous plasticity moves the weights of one process: start it without torchrun.")
        if self.hardware.precision == "bf16":
            raise ActrelaxError("continuous plasticity moves the weights themselves, which bf16 rounds: use fp32.")


_PAPERS = Optimisation(lr=0.0005, reduction="sum")

PROTOCOLS: dict[str, Experiment] = {
    "paper-mlp": Experiment(
        epochs=30,
        images=Images("mnist"),
        model=Model("mlp", activation="tanh", weight_std=0.05, loss="sum-of-squares"),
        relaxation=Relaxation(integrator="sequential"),
        optimisation=_PAPERS,
    ),
    "paper-cnn": Experiment(
        epochs=30,
        images=Images("cifar10", normalise="half"),
        model=Model("cnn", activation="tanh", weight_std=0.05, loss="sum-of-squares"),
        relaxation=Relaxation(integrator="sequential", clip=50.0),
        optimisation=replace(_PAPERS, conv_factor=2.0, update_clip=50.0),
    ),
}
"""The papers' hyperparameters (arXiv 2010.06219), with the defaults' batches of 64, 100 steps and eta = 0.1."""


def protocol(name: str) -> Experiment:
    """Look a protocol up by name."""
    return PROTOCOLS[known("protocol", name, PROTOCOLS)]


def as_options(experiment: Experiment) -> dict[str, Any]:
    """Return option -> value, flat: the names of the command line, as they stand in config.json."""
    flat: dict[str, Any] = {}
    for name, value in asdict(experiment).items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return {name: str(value) if isinstance(value, Path) else value for name, value in flat.items()}


LATER: dict[str, Any] = {
    "tau_spread_over": "neurons",
    "noise": 0.0,
    "input_noise": 0.0,
    "delay": 0.0,
    "feedback_transform": None,
    "channels_last": False,
    "tolerance": None,
    "tolerance_of": None,
    "max_steps": None,
    "evaluation": "stepped",
    "compile": "no",
    "processes": 1,
}
"""Options that older runs don't name -> what they did."""

RENAMED = {"evaluation": "method"}
"""Option -> its former name, which older runs and the hashes of all runs have."""

REMOVED: dict[str, Any] = {"verify_every": 1000}
"""Options that older runs name, without effect on their results -> their defaults."""


def from_options(options: Mapping[str, Any]) -> Experiment:
    """Make an experiment of what `as_options` returned.

    Raises
    ------
    ActrelaxError
        If options are missing or not known.
    """
    expected = as_options(Experiment())
    now = {old: name for name, old in RENAMED.items()}
    options = LATER | {now.get(name, name): value for name, value in options.items() if name not in REMOVED}
    if set(options) != set(expected):
        differing = ", ".join(sorted(set(options) ^ set(expected)))
        raise ActrelaxError(f"the configuration has missing or unknown options: {differing}.")
    return _made(Experiment, options)


def _made(kind: type[T], options: Mapping[str, Any]) -> T:
    hints = typing.get_type_hints(kind)
    values = {}
    for f in fields(kind):  # type: ignore[arg-type]
        hint = hints[f.name]
        if is_dataclass(hint):
            values[f.name] = _made(typing.cast("type[Any]", hint), options)
        else:
            parts = typing.get_args(hint) or (hint,)
            allowed = [value for part in parts for value in (typing.get_args(part) or (part,))]
            values[f.name] = _typed(f.name, options[f.name], allowed)
    return kind(**values)


def _typed(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return a value out of JSON as the option's type: one of some types or, for a Literal, of some values."""
    if Path in allowed and isinstance(value, str):
        return Path(value)
    if float in allowed and type(value) is int:
        return value
    if type(value) not in allowed and value not in allowed:
        raise ActrelaxError(f"the configuration has {value!r} for {name}, which is not among its values.")
    return value
