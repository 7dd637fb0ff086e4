"""What identifies a training run, and the papers' protocols."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from actrelax.models._names import known, look_up
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import LOSSES, Loss, smoothed
from actrelax.simulations.data.folders import is_folder
from actrelax.simulations.training.hardware import Precision
from actrelax.simulations.training.optimisers import optimiser_named, takes
from actrelax.simulations.training.options import LARGEST, POSITIVE, require
from actrelax.simulations.training.relaxation import Relaxation

Augment = Literal["none", "flip", "crop", "flip,crop"]


@dataclass(frozen=True)
class Images:
    """What is learned from."""

    dataset: str = "digits"
    """digits, mnist, fashion-mnist, cifar10, cifar100, svhn, a NAME.npz in the data directory, a .npz file, or a PATH/
    of images with a folder per class."""
    validation: int = 0
    """Hold out so many training images and report on them too: for tuning."""
    normalise: Literal["none", "half", "channels"] = "none"
    """none; half: mean and standard deviation 0.5; channels: each channel's own, over the training images."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Of a .npz of images with channels: (n, channels, height, width) or (n, height, width, channels). Not needed if
    only one has 1 to 4 channels."""
    augment: Augment = "none"
    """What happens to training images at random: flip mirrors them left to right (not for digits); crop shifts them by
    up to 4 pixels."""
    test_split: float | None = None
    """Share of the images of a PATH/ without test images that is tested on, the same whatever the seed."""


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
    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes, as in torch.nn.CrossEntropyLoss."""

    @property
    def as_loss(self) -> Loss:
        """The loss as the models take it; refuses an unknown name, and smoothed labels under squares."""
        loss = look_up("loss", self.loss, LOSSES)
        if not self.label_smoothing:
            return loss
        if self.loss != "cross-entropy":
            raise ActrelaxError(f"--label-smoothing belongs to cross-entropy, not {self.loss}: leave it out.")
        return smoothed(loss, self.label_smoothing)


@dataclass(frozen=True)
class Optimisation:
    """How weights follow their updates."""

    optimiser: str = "sgd"
    """sgd, adam, adamw, or another as torch.optim.NAME (torch.optim.RMSprop)."""
    lr: float = 0.1
    """Learning rate."""
    momentum: float = 0.0
    """Of sgd, and of others that have it."""
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
    clip_norm: float | None = None
    """Bound on the norm of all updates of a batch together; they are scaled down to it."""


@dataclass(frozen=True)
class Experiment:
    """What identifies a training run: the options that determine its result."""

    rule: Literal["ar", "backprop"] = "ar"
    """Where gradients come from."""
    epochs: int = 20
    """Passes through the training images."""
    batch_size: int = 64
    """Images per batch, over all processes."""
    seed: int = 0
    """Fixes initial weights, feedback weights, the order of the images and their augmentation."""
    precision: Precision = "fp32"
    """Of weights and activities; tf32: a GPU may round what it multiplies; bf16: only weights are in fp32."""
    evaluation: Literal["auto", "stepped", "closed-form"] = "auto"
    """stepped; closed-form: without steps, about as fast as backprop; auto: the closed form where it applies."""
    images: Images = field(default_factory=Images)
    model: Model = field(default_factory=Model)
    relaxation: Relaxation = field(default_factory=Relaxation)
    optimisation: Optimisation = field(default_factory=Optimisation)
    patience: int | None = None
    """Stop after so many epochs without a better validation accuracy; needs --validation."""

    @property
    def name(self) -> str:
        """What it is in short: DATASET-NETWORK-CONDITION-seedN."""
        rule = "backprop" if self.rule == "backprop" else self.relaxation.assumptions
        network = Path(self.model.network.rpartition(":")[0]).stem or self.model.network
        return f"{Path(self.images.dataset).stem}-{network}-{rule}-seed{self.seed}"

    @property
    def is_continuous(self) -> bool:
        """Whether weights change during the relaxation."""
        return self.rule == "ar" and self.relaxation.is_continuous

    def resolved(self) -> Experiment:
        """Return the same with absolute paths."""
        images, model = self.images, self.model
        if images.dataset.endswith(".npz") or is_folder(images.dataset):
            images = replace(images, dataset=str(Path(images.dataset).absolute()))
        if ":" in model.network:
            model = replace(model, network=str(Path(model.network).absolute()))
        return replace(self, images=images, model=model)

    def check(self) -> None:
        """Refuse numbers out of range and options that exclude each other.

        Names and sizes that depend on data and network are refused where these are made.
        """
        o = self.optimisation
        require(
            epochs=(self.epochs, 1, math.inf),
            batch_size=(self.batch_size, 1, math.inf),
            seed=(self.seed, 0, 2**63),
            validation=(self.images.validation, 0, math.inf),
            test_split=(self.images.test_split, POSITIVE, 1),
            weight_std=(self.model.weight_std, 0, math.inf),
            lr=(o.lr, POSITIVE, LARGEST),
            momentum=(o.momentum, 0, 1),
            weight_decay=(o.weight_decay, 0, math.inf),
            warmup=(o.warmup, 0, self.epochs),
            step_epochs=(o.step_epochs, 0.001, math.inf),
            step_factor=(o.step_factor, POSITIVE, 1),
            conv_factor=(o.conv_factor, POSITIVE, math.inf),
            update_clip=(o.update_clip, POSITIVE, math.inf),
            clip_norm=(o.clip_norm, POSITIVE, math.inf),
            label_smoothing=(self.model.label_smoothing, 0, 1),
            patience=(self.patience, 1, math.inf),
            decay=(o.decay, 0, math.inf),
        )
        if self.images.test_split == 1:
            raise ActrelaxError("--test-split 1 leaves no images to train on: give a smaller share.")
        if self.patience is not None and not self.images.validation:
            raise ActrelaxError("--patience waits for a better validation accuracy: give --validation, too.")
        _ = self.model.as_loss  # raises
        known("augment", self.images.augment, get_args(Augment))
        self.relaxation.check()
        decays = self.rule == "ar" and self.relaxation.knobs.needs_decay
        if decays and o.decay is None:
            raise ActrelaxError("Kolen-Pollack feedback needs a rate of decay: give --decay.")
        if o.decay is not None and not decays:
            raise ActrelaxError("--decay belongs to Kolen-Pollack feedback: use --weight-decay otherwise.")
        for option in ("momentum", "weight_decay"):
            if getattr(o, option) and not takes(o.optimiser, option):
                raise ActrelaxError(f"{o.optimiser} has no --{option.replace('_', '-')}: leave it out.")
        optimiser_named(o.optimiser)
        if self.is_continuous:
            self._check_continuous()

    def _check_continuous(self) -> None:
        """Refuse what weights that move during the relaxation can't have."""
        o = self.optimisation
        if o.clip_norm is not None:
            raise ActrelaxError("continuous plasticity moves the weights at every step: leave --clip-norm out.")
        if o.optimiser != "sgd" or o.momentum or o.weight_decay:
            raise ActrelaxError("continuous plasticity is plain gradient descent: leave momentum and weight decay out.")
        if self.precision == "bf16":
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
        relaxation=Relaxation(integrator="sequential"),
        optimisation=replace(_PAPERS, conv_factor=2.0, update_clip=50.0),
    ),
}
"""The papers' hyperparameters (arXiv 2010.06219), with the defaults' batches of 64, 100 steps and eta = 0.1.

Their clip of relaxations at 50 is left out: only "simplified" reaches it (docs/reproduction.md), and relaxations with a
clip are stepped.
"""


def protocol(name: str) -> Experiment:
    """Look a protocol up by name."""
    return PROTOCOLS[known("protocol", name, PROTOCOLS)]
