"""Options that determine the result of a training run, and the papers' protocols."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from actrelax.models._names import known, look_up
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Design
from actrelax.models.problem import LOSSES, Loss, smoothed
from actrelax.simulations.data.folders import is_folder
from actrelax.simulations.training.forward_phase import ForwardPhase
from actrelax.simulations.training.hardware import Precision
from actrelax.simulations.training.optimisers import optimiser_named, takes
from actrelax.simulations.training.options import LARGEST, POSITIVE, Repeated, require
from actrelax.simulations.training.relaxation import Relaxation

Augment = Literal["none", "flip", "crop", "flip,crop"]


@dataclass(frozen=True)
class Images:
    """Options of the data set."""

    dataset: str = "digits"
    """Data set: digits, mnist, fashion-mnist, cifar10, cifar100, svhn, the NAME of a NAME.npz in the data directory, a
    .npz file, or a PATH/ of images with one folder per class."""
    train_images: int | None = None
    """Number of training images to use, chosen by a permutation that does not depend on the seed. Default: all."""
    validation: int = 0
    """Number of training images to hold out for validation."""
    normalise: Literal["none", "half", "channels"] = "none"
    """Mean and standard deviation for normalisation: none; half: 0.5 and 0.5; channels: from the training images, for
    each channel."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Order of dimensions in a .npz of images with channels: (n, channels, height, width) or (n, height, width,
    channels). Default: the only order with 1 to 4 channels."""
    augment: Augment = "none"
    """Random augmentation of training images: flip mirrors them left to right (not for digits); crop shifts them by up
    to 4 pixels."""
    test_split: float | None = None
    """Share of test images in a PATH/ without test images; the split does not depend on the seed."""


@dataclass(frozen=True)
class Model:
    """Options of network and loss."""

    network: str = "digits-cnn"
    """Network by name (mlp, cnn, resnet-20, vit, conv-rec, mlp-DEPTHxWIDTH, ...), or your own as FILE.py:FUNCTION."""
    activation: str | None = None
    """Activation function of the hidden populations. Default: the network's."""
    weight_std: float | None = None
    """Standard deviation of the initial weights. Default: the network's."""
    loss: str = "cross-entropy"
    """Loss function: cross-entropy, sum-of-squares or half-sum-of-squares."""
    label_smoothing: float = 0.0
    """Share of each target that is distributed over all classes, as in torch.nn.CrossEntropyLoss."""
    width: int | None = None
    """Channels of a resnet's first stage: 16 by default, 8 for digits-. Width of a vit's tokens: 64 by default, 32 for
    digits-vit. Channels of vgg8's first block: 64 by default."""
    skips: Literal["yes", "no"] | None = None
    """Whether a resnet has skips: yes by default."""
    norm: Literal["batch", "group", "scaled"] | None = None
    """Normalisation of a resnet: BatchNorm by default; GroupNorm; scaled: a learned scale on each residual branch."""

    @property
    def design(self) -> Design:
        """Options of residual networks and transformers, as `build_module` takes them."""
        return Design(self.width, self.skips, self.norm)

    @property
    def as_loss(self) -> Loss:
        """Loss as an argument of the models; an unknown name, or label smoothing of squares, raises an error."""
        loss = look_up("loss", self.loss, LOSSES)
        if not self.label_smoothing:
            return loss
        if self.loss != "cross-entropy":
            raise ActrelaxError(f"--label-smoothing needs --loss cross-entropy, got {self.loss}: leave it out.")
        return smoothed(loss, self.label_smoothing)


@dataclass(frozen=True)
class Optimisation:
    """Options of the optimiser."""

    optimiser: str = "sgd"
    """Optimiser: sgd, adam, adamw, or torch.optim.NAME (such as torch.optim.RMSprop)."""
    lr: float = 0.1
    """Learning rate."""
    momentum: float = 0.0
    """Momentum of sgd, and of other optimisers that have it."""
    weight_decay: float = 0.0
    """Weight decay by the optimiser, of forward and feedback weights."""
    schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant; step: multiplied by --step-factor every --step-epochs; linear or
    cosine to 0 at the end."""
    warmup: float = 0.0
    """Number of epochs over which the learning rate rises from 0."""
    step_epochs: float = 10.0
    """With --schedule step: number of epochs between steps."""
    step_factor: float = 0.1
    """With --schedule step: factor of the learning rate per step."""
    reduction: Literal["mean", "sum"] = "mean"
    """Reduction of updates over the batch."""
    conv_factor: float = 1.0
    """Factor of the updates of convolutions."""
    update_clip: float | None = None
    """Bound on the magnitude of each element of an update. Default: no bound."""
    decay: float | None = None
    """Kolen-Pollack's decay of W and psi per update, relative to the learning rate."""
    recurrent_bound: float | None = None
    """Networks with cycles: bound on the norm of each cycle's linear map; after each update the weights are scaled down
    to it. Default: no bound."""
    clip_norm: float | None = None
    """Bound on the norm of all updates of a batch together, which are scaled down to it. Default: no bound."""
    freeze: Repeated = ()
    """Projection, module or parameter that does not learn, such as conv1->conv2; may be repeated."""


@dataclass(frozen=True)
class Experiment:
    """Options that determine the result of a training run."""

    rule: Literal["ar", "backprop", "bptt"] = "ar"
    """Learning rule: ar, activation relaxation; backprop, on networks with cycles by implicit differentiation; bptt, on
    networks with cycles: backprop through the steps of the forward phase."""
    epochs: int = 20
    """Number of passes through the training images."""
    batch_size: int = 64
    """Number of images per batch, over all processes."""
    seed: int = 0
    """Seed of initial weights, feedback weights, and order and augmentation of the images."""
    precision: Precision = "fp32"
    """Precision of weights and activities; tf32: a GPU may round factors of products; bf16: only weights are fp32."""
    evaluation: Literal["auto", "stepped", "closed-form"] = "auto"
    """Evaluation of relaxations: stepped; closed-form, about as fast as backprop; auto: closed-form if it applies."""
    images: Images = field(default_factory=Images)
    model: Model = field(default_factory=Model)
    relaxation: Relaxation = field(default_factory=Relaxation)
    forward: ForwardPhase = field(default_factory=ForwardPhase)
    optimisation: Optimisation = field(default_factory=Optimisation)
    patience: int | None = None
    """Number of epochs without a better validation accuracy after which training stops; needs --validation. Default: no
    early stopping."""

    @property
    def name(self) -> str:
        """Short name: DATASET-NETWORK-CONDITION-seedN."""
        rule = self.relaxation.condition if self.rule == "ar" else self.rule
        network = Path(self.model.network.rpartition(":")[0]).stem or self.model.network
        return f"{Path(self.images.dataset).stem}-{network}-{rule}-seed{self.seed}"

    @property
    def is_continuous(self) -> bool:
        """True if weights change during the relaxation."""
        return self.rule == "ar" and self.relaxation.is_continuous

    def resolved(self) -> Experiment:
        """Return the experiment with absolute paths."""
        images, model = self.images, self.model
        if images.dataset.endswith(".npz") or is_folder(images.dataset):
            images = replace(images, dataset=str(Path(images.dataset).absolute()))
        if ":" in model.network:
            model = replace(model, network=str(Path(model.network).absolute()))
        return replace(self, images=images, model=model)

    def check(self) -> None:
        """Raise an error for values out of range and incompatible options.

        Names and sizes that depend on data and network are checked when these are loaded.
        """
        o = self.optimisation
        require(
            epochs=(self.epochs, 1, math.inf),
            batch_size=(self.batch_size, 1, math.inf),
            seed=(self.seed, 0, 2**63),
            train_images=(self.images.train_images, 1, math.inf),
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
            recurrent_bound=(o.recurrent_bound, POSITIVE, math.inf),
            label_smoothing=(self.model.label_smoothing, 0, 1),
            patience=(self.patience, 1, math.inf),
            decay=(o.decay, 0, math.inf),
        )
        if o.momentum == 1:
            raise ActrelaxError("--momentum must be below 1, got 1.")
        if self.images.test_split == 1:
            raise ActrelaxError("--test-split must be below 1, which would leave no images for training, got 1.")
        if self.patience is not None and not self.images.validation:
            raise ActrelaxError("--patience needs a validation accuracy: give --validation, too.")
        _ = self.model.as_loss, self.model.design  # raise
        known("augment", self.images.augment, get_args(Augment))
        self.relaxation.check()
        self.forward.check()
        decays = self.rule == "ar" and self.relaxation.knobs.needs_decay
        if decays and o.decay is None:
            raise ActrelaxError("Kolen-Pollack feedback needs a decay rate: give --decay.")
        if o.decay is not None and not decays:
            raise ActrelaxError("--decay is for Kolen-Pollack feedback only: use --weight-decay instead.")
        for option in ("momentum", "weight_decay"):
            if getattr(o, option) and not takes(o.optimiser, option):
                raise ActrelaxError(f"{o.optimiser} has no --{option.replace('_', '-')}: leave it out.")
        optimiser_named(o.optimiser)
        if o.freeze and o.recurrent_bound is not None:
            raise ActrelaxError("--recurrent-bound scales all weights of a cycle, frozen or not: leave --freeze out.")
        if self.is_continuous:
            self._check_continuous()

    def _check_continuous(self) -> None:
        """Raise an error for options that continuous plasticity does not support."""
        o = self.optimisation
        if o.clip_norm is not None:
            raise ActrelaxError("continuous plasticity does not support --clip-norm: leave it out.")
        if o.optimiser != "sgd" or o.momentum or o.weight_decay:
            raise ActrelaxError(
                "continuous plasticity needs --optimiser sgd without momentum and weight decay: leave them out."
            )
        if self.precision == "bf16":
            raise ActrelaxError("continuous plasticity does not support bf16: use fp32.")


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
"""The papers' hyperparameters (arXiv 2010.06219), with the default batches of 64, 100 steps and eta = 0.1.

The papers' clip of relaxations at 50 is left out: only "simplified" reaches it (docs/reproduction.md), and a clip would
require stepping.
"""


def protocol(name: str) -> Experiment:
    """Return a protocol by name."""
    return PROTOCOLS[known("protocol", name, PROTOCOLS)]
