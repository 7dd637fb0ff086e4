"""Assembly of a training from options: data, network, rule, optimiser and schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.learning import BackwardOptions, Updates
from actrelax.models.network import Network
from actrelax.models.problem import Loss
from actrelax.simulations.data import Dataset, Split, load, random_stream
from actrelax.simulations.data.fingerprint import fingerprint
from actrelax.simulations.training.accuracy import Convert, outputs
from actrelax.simulations.training.batches import Batches, Preprocessing, normalisation
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation
from actrelax.simulations.training.freezing import freeze
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.heap import keep_freed_memory
from actrelax.simulations.training.mixed_precision import in_single_precision
from actrelax.simulations.training.modules import has_batch_norm, kinds
from actrelax.simulations.training.networks import make_network
from actrelax.simulations.training.optimisers import make_optimiser
from actrelax.simulations.training.processes import ALONE, Processes
from actrelax.simulations.training.rules import make_rule
from actrelax.simulations.training.state import Training


@dataclass(frozen=True)
class Parts:
    """Experiment that is ready to run.

    training  new training
    module    `nn.Module` that shares its parameters with the network, if a user's function returned one
    loss      loss of the output
    options   options of the learning rule
    hardware  device and precision
    images    fingerprints of the images: part -> SHA-256
    """

    training: Training
    module: nn.Module | None
    loss: Loss
    options: BackwardOptions
    hardware: Hardware
    images: Mapping[str, str]


def assemble(
    experiment: Experiment,
    execution: Execution = Execution(),  # noqa: B008
    processes: Processes = ALONE,
    data: Dataset | None = None,
) -> Parts:
    """Load the data, initialise the network, create the training, and try the rule on one image.

    Sets torch's global seed, a different one in each process, and deterministic kernels on a GPU.

    Parameters
    ----------
    experiment : Experiment
    execution : Execution, optional
    processes : Processes, default ALONE
        Processes that share each batch.
    data : Dataset, optional
        Data set that replaces the experiment's, so that several experiments can share it.

    Raises
    ------
    ActrelaxError
        If the options are not possible.
    """
    experiment.check()
    execution.check(experiment)
    hardware = execution.hardware(experiment.precision)
    processes = processes.on(hardware.device)
    set_up(hardware, experiment.seed)
    if not processes.is_first:  # noise is drawn from torch's global generator
        torch.manual_seed(random_stream(experiment.seed, "process", processes.rank).initial_seed())
    if data is None:
        with processes.first_one_first():  # it may have to download the data
            data = load_images(experiment.images, execution.data_dir)
    preprocess, images = preprocessing(experiment.images, data, hardware), fingerprint(data)
    data = on_device(data, hardware)
    network, module = _network(experiment, data, hardware)
    processes.agree_on(list(network.state_dict().values()))  # a user's function may draw different weights
    o = experiment.optimisation
    optimiser = make_optimiser(network, o.optimiser, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
    options = _options(experiment, network)
    if o.recurrent_bound is not None:
        network.bound_recurrence(o.recurrent_bound)
    loss = experiment.model.as_loss
    if hardware.precision == "bf16":
        loss = in_single_precision(loss)
    batches = Batches(data, preprocess, experiment.batch_size, experiment.seed, experiment.images.augment, processes)
    factor = partial(learning_rate_factor, o, epochs=experiment.epochs, batches=len(batches))
    schedule = LambdaLR(optimiser, factor)
    # the schedule is stepped after each batch
    rule = make_rule(
        experiment, execution, network, loss, options, optimiser, batches, done=lambda: schedule.last_epoch
    )
    training = Training(
        network,
        batches,
        rule,
        optimiser,
        schedule,
        experiment.epochs,
        loss_is_sum=o.reduction == "sum",
        clip_norm=o.clip_norm,
        recurrent_bound=o.recurrent_bound,
        patience=experiment.patience,
        drops_unsettled=options.unsettled == "drop",
        respond=_respond(network, options, processes),
    )
    return Parts(training, module, loss, options, hardware, images)


def _respond(network: Network, options: BackwardOptions, processes: Processes) -> Convert | None:
    """Return the function from stimuli to outputs at settled rates, for tests; None without cycles."""
    if not network.is_recurrent:
        return None
    drops = options.unsettled == "drop"  # an image without finite rates then counts as wrong
    return partial(outputs, network, options.settle, check_finite=not drops, agree=processes.agree)


def _options(experiment: Experiment, network: Network) -> BackwardOptions:
    """Return the options of the learning rule; refuse those that need cycles."""
    o, forward, name = experiment.optimisation, experiment.forward, experiment.model.network
    forward.check_network(network, name)
    if o.recurrent_bound is not None and not network.is_recurrent:
        raise ActrelaxError(f"--recurrent-bound needs a network with cycles, but {name} has none: leave it out.")
    factors = {"conv": o.conv_factor} if o.conv_factor != 1 else {}
    if factors and "conv" not in kinds(network).values():
        warn(f"--conv-factor has no effect: {name} has no convolution.")
    is_constant = experiment.rule == "ar" and experiment.relaxation.knobs.statistics == "constant"
    if is_constant and not has_batch_norm(network):
        warn(f"--assumptions constant-statistics has no effect: {name} has no BatchNorm.")
    return BackwardOptions(
        Updates(factors, o.update_clip, o.decay),
        o.reduction,
        settle=forward.settle,
        unsettled=forward.unsettled or "keep",
        unsettled_above=forward.unsettled_above,
        sample_clip=forward.sample_clip,
    )


def _network(experiment: Experiment, data: Dataset, hardware: Hardware) -> tuple[Network, nn.Module | None]:
    """Return the network on its device with feedback weights, and the module that shares its parameters."""
    network, module = make_network(experiment.model, data.input_shape, data.classes, experiment.seed)
    network.to(device=hardware.device, dtype=hardware.dtype)
    if experiment.rule == "ar":
        network.add_feedback(experiment.relaxation.knobs, random_stream(experiment.seed, "feedback"))
    freeze(network, experiment.optimisation.freeze)
    if hardware.channels_last:
        _lay_out(network, experiment.model)
    return network, module


def load_images(images: Images, data_dir: Path | None = None) -> Dataset:
    """Load the data set, choose the training images, and hold out those for validation."""
    data = load(images.dataset, data_dir, images.test_split, images.layout)
    if images.augment != "none" and len(data.input_shape) != 3:
        raise ActrelaxError(
            f"--augment is for images, but {data.name} has {data.input_shape[0]} features: leave it out."
        )
    if images.train_images is not None:
        data = data.keeping(images.train_images)
    return data.holding_out(images.validation) if images.validation else data


def on_device(data: Dataset, hardware: Hardware) -> Dataset:
    """Move all parts to the device; uint8 images stay uint8, floats get the network's precision.

    Raises
    ------
    ActrelaxError
        If images overflow in this precision.
    """
    moved = {}
    for name, (images, labels) in data.parts.items():
        if images.dtype != torch.uint8:
            images = images.to(hardware.dtype)
            if not torch.isfinite(images).all():
                raise ActrelaxError(f"images of {data.name} are too large for {hardware.precision}: scale them down.")
        moved[name] = Split(images.to(hardware.device), labels.to(hardware.device))
    return replace(data, train=moved["train"], test=moved["test"], validation=moved.get("validation"))


def preprocessing(images: Images, data: Dataset, hardware: Hardware) -> Preprocessing:
    """Return the preprocessing of stored images; statistics of `data` are computed on the CPU in float64."""
    found = normalisation(images.normalise, data.train.images)
    if found is None:
        return Preprocessing(hardware.dtype, channels_last=hardware.channels_last)
    mean, std = (x.to(hardware.dtype) for x in found)
    return Preprocessing(hardware.dtype, mean, std, hardware.channels_last).to(hardware.device)


def learning_rate_factor(o: Optimisation, step: int, *, epochs: int, batches: int) -> float:
    """Return the learning rate after `step` batches, relative to `o.lr`.

    The rate rises linearly during warm-up. It then stays constant, falls by a factor every `o.step_epochs` epochs, or
    falls to 0 at the end of training, linearly or along a cosine.
    """
    # exact decimal arithmetic, since 0.3 / 0.1 is below 3 in binary
    after = Fraction(step, batches) - Fraction(str(o.warmup))
    if after < 0:
        return (step + 1) / (o.warmup * batches + 1)
    if o.schedule == "step":
        return o.step_factor ** math.floor(after / Fraction(str(o.step_epochs)))
    since = step / batches - o.warmup
    progress = since / max(epochs - o.warmup, since, 1e-9)
    if o.schedule == "linear":
        return 1 - progress
    if o.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0


def _lay_out(network: Network, model: Model) -> None:
    """Store the weights of convolutions with channels last; the layout of activities follows the images."""
    if all(p.dim() != 4 for p in network.parameters()):
        raise ActrelaxError(f"--channels-last is for convolutions, but {model.network} has none: leave it out.")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def set_up(hardware: Hardware, seed: int) -> None:
    """Seed torch, set its number of threads, its precision and its memory, and make its kernels deterministic."""
    torch.manual_seed(seed)
    assert hardware.threads is not None
    torch.set_num_threads(hardware.threads)
    keep_freed_memory()
    if hardware.device.startswith("cuda"):
        # cuBLAS reads this when it creates its first handle
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # filling uninitialised tensors would cost a kernel each, and no code reads them
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # by default, convolutions on newer GPUs round their factors to 10 bits of mantissa, even in fp32
        torch.backends.cudnn.allow_tf32 = hardware.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = hardware.precision == "tf32"
