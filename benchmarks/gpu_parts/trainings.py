"""Trainings on CIFAR-10 with accuracy and time: the paper's CNN by several rules, and vgg8 in mixed precision."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actrelax.models.results import DivergenceError
from actrelax.simulations.data import Dataset, load
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation, protocol
from actrelax.simulations.training.loop import Callback, train
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.state import Training
from gpu_parts.items import Item, Options, Rows, UnsuitableError

EPOCHS = 10
FIRST = ("backprop", "ar", "kolen-pollack", "no-derivatives")
REST = (
    "learned-feedback",
    "random-feedback",
    "sign-feedback",
    "no-derivatives-dense",
    "no-derivatives-conv",
    "simplified-dense",
    "simplified",
)


def items(options: Options) -> list[Item]:
    """Return the trainings, all with seed 0."""
    cnn, vgg = paper(options), deep(options)
    runs = [(f"cnn, {rule}", by_rule(cnn, rule)) for rule in FIRST]
    runs += [(f"vgg8, bf16, {rule}", by_rule(vgg, rule)) for rule in FIRST[:2]]
    resnet = residual(options)
    name = f"{'whitened ' if options.long else ''}resnet18, bf16"
    runs += [(f"{name}, {rule}", by_rule(resnet, rule)) for rule in FIRST[:2]]
    if options.long:
        runs += [(f"cnn, {rule}", by_rule(cnn, rule)) for rule in REST]
    return [_item(name, experiment, options) for name, experiment in runs]


def paper(options: Options) -> Experiment:
    """Return the papers' protocol for CNNs with ten epochs."""
    if options.tiny:
        return Experiment(epochs=1, model=Model("digits-cnn"))
    return replace(protocol("paper-cnn"), epochs=EPOCHS)


def deep(options: Options) -> Experiment:
    """Return a training of vgg8 with Adam, augmented images and bfloat16."""
    images = Images() if options.tiny else Images("cifar10", normalise="channels", augment="flip,crop")
    return Experiment(
        epochs=1 if options.tiny else EPOCHS,
        batch_size=128,
        precision="bf16",
        images=images,
        model=Model("digits-cnn" if options.tiny else "vgg8"),
        optimisation=Optimisation("adam", lr=0.001, schedule="cosine"),
    )


def residual(options: Options) -> Experiment:
    """Return ResNet-18 for ten epochs; with --long towards 94 %, as in speed runs on CIFAR-10.

    These whiten the patches of images, smooth labels, and let the learning rate rise and fall linearly.
    """
    whitened = f"{Path(__file__).parent / 'whitened.py'}:whitened_resnet18"
    network = "digits-resnet-8" if options.tiny else "resnet18"
    images = Images() if options.tiny else Images("cifar10", normalise="channels", augment="flip,crop")
    epochs = 1 if options.tiny else 30 if options.long else EPOCHS
    return Experiment(
        epochs=epochs,
        batch_size=512 if not options.tiny else 64,
        precision="bf16",
        images=images,
        model=Model(whitened if options.long else network, label_smoothing=0.1 if options.long else 0.0),
        relaxation=Relaxation(integrator="equilibrium"),
        optimisation=Optimisation(lr=0.4, momentum=0.9, weight_decay=5e-4, schedule="linear", warmup=0.2 * epochs),
    )


def by_rule(experiment: Experiment, rule: str) -> Experiment:
    """Return the experiment with another rule: backprop, or a preset of AR's assumptions."""
    if rule == "backprop":
        return replace(experiment, rule="backprop")
    return replace(experiment, relaxation=replace(experiment.relaxation, assumptions=rule))


def forgetting(experiment: Experiment, data: Dataset) -> Experiment:
    """Return the experiment with the suites' decay, which shrinks the initial W and psi by exp(-2)."""
    batches = experiment.epochs * math.ceil(len(data.train.images) / experiment.batch_size)
    decay = 2 / (experiment.optimisation.lr * batches)
    return replace(experiment, optimisation=replace(experiment.optimisation, decay=decay))


def _item(name: str, experiment: Experiment, options: Options) -> Item:
    return Item(name, lambda: trained(name, experiment, options))


def trained(name: str, experiment: Experiment, options: Options) -> Rows:
    """Train, and return one row with accuracy and time."""
    if options.data is None:
        raise UnsuitableError("trainings need CIFAR-10: give --data FILE.npz.")
    data = loaded(options.data)
    if experiment.relaxation.knobs.needs_decay:
        experiment = forgetting(experiment, data)
    parts = assemble(experiment, Execution(options.device), data=data)
    training = parts.training
    if isinstance(parts.module, nn.Module) and hasattr(parts.module, "whitening"):
        whiten(parts.module.whitening, training.batches.example(5000).images)
    train(training, [Wait()])
    seconds, speed = training.time_taken()
    last = training.tables["metrics"][-1]
    return [
        {
            "run": name,
            "data": data.name,
            "epochs": experiment.epochs,
            "batch": experiment.batch_size,
            "test_accuracy": last["test_accuracy"],
            "train_loss": last["train_loss"],
            "seconds": seconds,
            "images_per_second": speed,
        }
    ]


@torch.no_grad()
def whiten(convolution: nn.Conv2d, images: Tensor) -> None:
    """Set filters to the eigenvectors of the images' patches, each scaled to unit variance, and to their negatives."""
    size = convolution.kernel_size[0]
    patches = F.unfold(images.double(), size).transpose(1, 2).flatten(0, 1)
    variances, vectors = torch.linalg.eigh(patches.T.cov())
    filters = (vectors / (variances + 1e-2).sqrt()).T.flip(0).view(-1, images.shape[1], size, size)
    convolution.weight.copy_(torch.cat([filters, -filters]))


class Wait(Callback):
    """Callback that waits for the device at the end of each epoch, for correct times, and checks for divergence."""

    def on_batch(self, training: Training) -> None:
        if training.batch == len(training.batches) and not training.is_sound():
            raise DivergenceError(f"weights or losses are not finite in epoch {training.epoch + 1}")


@cache
def loaded(path: Path) -> Dataset:
    """Load a data set once for all trainings of the process."""
    return load(str(path))
