"""Options of a single relaxation outside training: network, images and problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from actrelax.analysis.checks.solvers import SETTLED
from actrelax.analysis.fingerprints import verify
from actrelax.analysis.implicit_gradients import implicit_gradients
from actrelax.analysis.runs import RunFolder
from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import Settle, Steps, settle
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.network import FeedforwardPass, Network
from actrelax.models.problem import ForwardProblem, Loss, RelaxationProblem
from actrelax.simulations.data import random_stream
from actrelax.simulations.data.datasets import load_to_test
from actrelax.simulations.data.fingerprint import of_test_images
from actrelax.simulations.training.assemble import set_up
from actrelax.simulations.training.batches import Preprocessing
from actrelax.simulations.training.configuration import read_config
from actrelax.simulations.training.experiment import Images, Model
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.modules import has_feedback
from actrelax.simulations.training.networks import make_network
from actrelax.simulations.training.options import POSITIVE, given_in, require
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.saved import Run, load_run
from actrelax.simulations.training.user_code import is_own
from actrelax.simulations.training.usual_images import at_hand, drawing_shape, usual_shape


@dataclass(frozen=True)
class ProblemOptions:
    """Options of network and images."""

    run: Path | None = None
    """Folder of a run of `actrelax train`, whose network is used, and whose images and assumptions are the defaults."""
    trust: bool = False
    """With --run: allow the Python file of the run's network to be executed; alternatively, give your copy as --network
    FILE.py:FUNCTION."""
    accept_changes: bool = False
    """With --run: continue even if files, images or weights have changed since training."""
    named: tyro.conf.Suppress[str | None] = None
    """With --run: the --network given with it."""
    dataset: str | None = None
    """Data set, as for `actrelax train`. Default: MNIST, CIFAR-10 or the digits, by the network's input size, if the
    file is found; otherwise random images."""
    test_split: float | None = None
    """Share of test images in a PATH/ without test images, as for `actrelax train`. Default: all images."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Order of dimensions in a .npz of images with channels, as for `actrelax train`. Default: the run's layout for the
    run's data set, otherwise inferred."""
    data_dir: Path | None = None
    """Folder of NAME.npz files. Default: $ACTRELAX_DATA, or else ./data."""
    batch_size: int = 2
    """Number of images, from the test images."""
    first: int = 0
    """Index of the first image, from 0."""
    drawing: str | None = None
    """Your own image instead: a hexadecimal digit per pixel, 0 (black) to f (white), row by row."""
    label: int | None = None
    """Label of the drawing. Default: 0."""
    seed: int = 0
    """Seed of weights, feedback weights, time constants, random images and noise."""
    model: Model = field(default_factory=lambda: Model("mlp"))


@dataclass(frozen=True)
class Sample:
    """Network with feedback weights, and a batch of images.

    x, y        stimuli and labels
    source      description of the images' origin
    settle_eta  step size in which the rates of cycles settle
    """

    network: Network
    x: Tensor
    y: Tensor
    loss: Loss
    source: str
    settle_eta: float = 0.5

    def problem(
        self, relaxation: Relaxation, seed: int, assumptions: Assumptions, passed: FeedforwardPass | None = None
    ) -> RelaxationProblem:
        """Return the relaxation problem under the given assumptions, with cycles from settled rates or those given."""
        fields = relaxation.problem_fields(self.network, seed)
        return RelaxationProblem.from_batch(
            self.network, passed or self.rates or self.x, self.y, loss=self.loss, assumptions=assumptions, **fields
        )

    def forward_problem(self, relaxation: Relaxation, seed: int) -> ForwardProblem:
        """Return the forward phase, with the relaxation's time constants and the mean one for the output."""
        tau = relaxation.time_constants(self.network, seed)
        return ForwardProblem(
            self.network, self.x, tau={**tau, self.network.output: relaxation.tau} if isinstance(tau, Mapping) else tau
        )

    @cached_property
    def rates(self) -> FeedforwardPass | None:
        """Settled rates of a network with cycles, else None."""
        if not self.network.is_recurrent:
            return None
        steps = Steps.until(SETTLED[self.x.dtype], eta=self.settle_eta, most=100_000)
        return settle(self.network, self.x, Settle(steps))

    def gradients(self, passed: FeedforwardPass | None = None) -> dict[str, Tensor]:
        """Return population -> backprop's gradient, with cycles that of the loss at settled rates or those given."""
        if self.rates is not None:
            return implicit_gradients(self.network, passed or self.rates, self.y, loss=self.loss)
        return activity_gradients(self.network, self.x, self.y, loss=self.loss)

    def copies(self, count: int) -> Sample:
        """Return `count` copies of the first image."""
        return replace(
            self, x=self.x[:1].expand(count, *self.x.shape[1:]).contiguous(), y=self.y[:1].expand(count).contiguous()
        )


@dataclass(frozen=True)
class _OfRun:
    run: Path | None = None
    network: str | None = None


def of_run(arguments: Sequence[str]) -> tuple[ProblemOptions, Relaxation] | None:
    """Return the options of the run given by --run, as defaults; None without --run."""
    given = given_in(arguments, _OfRun)
    if given.run is None:
        return None
    experiment, execution = read_config(RunFolder(given.run))
    unset: dict[str, Any] = dict.fromkeys(("steps", "tolerance", "tolerance_of", "max_steps", "eta", "dt", "duration"))
    relaxation = replace(experiment.relaxation, integrator="sequential", **unset)
    options = ProblemOptions(
        named=given.network,
        dataset=experiment.images.dataset,
        test_split=experiment.images.test_split,
        data_dir=execution.data_dir,
        seed=experiment.seed,
        model=experiment.model,
    )
    return options, relaxation


def without_continuous_plasticity(assumptions: Assumptions) -> tuple[Assumptions, list[str]]:
    """Return the assumptions with plasticity at equilibrium, and a remark if it was continuous."""
    if not assumptions.is_continuous:
        return assumptions, []
    return assumptions.changed(plasticity="equilibrium"), [
        "continuous plasticity is left out: weights stay constant here."
    ]


def make_sample(options: ProblemOptions, assumptions: Assumptions, hardware: Hardware) -> Sample:
    """Load or draw images and weights.

    Raises
    ------
    ActrelaxError
        If the options are not possible.
    """
    if options.run is None and (options.trust or options.accept_changes):
        raise ActrelaxError("--trust and --accept-changes are for the network of a run: leave them out.")
    require(
        batch_size=(options.batch_size, 1, math.inf),
        first=(options.first, 0, math.inf),
        seed=(options.seed, 0, 2**63),
        test_split=(options.test_split, POSITIVE, 1),
    )
    require(label_smoothing=(options.model.label_smoothing, 0, 1))
    loss = options.model.as_loss
    set_up(hardware, options.seed)
    run = None if options.run is None else _load(options, options.run)
    if run is not None and options.layout is None and run.is_own(options.dataset):
        options = replace(options, layout=run.experiment.images.layout)
    x, y, shape, classes, source = _images(options, run)
    if run is None:
        network, _ = make_network(options.model, shape, classes, options.seed)
        preprocess = Preprocessing(torch.float64)
    else:
        network, preprocess, source = run.network, run.preprocess, f"{source}, network of {options.run}"
    network.to(device=hardware.device, dtype=hardware.dtype)
    network.eval()
    if not has_feedback(network):
        network.add_feedback(assumptions, random_stream(options.seed, "feedback"))
    if not network.hidden:
        raise ActrelaxError(f"{options.model.network} has no hidden population to relax: take a deeper network.")
    x = preprocess(x).to(device=hardware.device, dtype=hardware.dtype)
    return Sample(network, x, y.to(hardware.device), loss, source)


def _load(options: ProblemOptions, path: Path) -> Run:
    """Load the run; of the network's options only a copy of its file may be given."""
    named = options.named if options.named is not None and is_own(options.named) else None
    run = load_run(path, trust=options.trust, accept_changes=options.accept_changes, network=named)
    own = run.experiment.model
    _check_model(options.model if named is None else replace(options.model, network=own.network), own)
    return run


def _check_model(given: Model, own: Model) -> None:
    """Raise an error if options of the network differ from the run's."""
    for name in ("network", "activation", "weight_std", "width", "skips", "norm"):
        if getattr(given, name) != getattr(own, name):
            option = name.replace("_", "-")
            raise ActrelaxError(f"--run provides the network: leave --{option} out, or leave --run out.")


def _images(options: ProblemOptions, run: Run | None) -> tuple[Tensor, Tensor, tuple[int, ...], int, str]:
    """Return stimuli, labels, the shape of one stimulus, the number of classes, and the origin of the images."""
    if options.drawing is not None:
        return _drawn(options, options.drawing, run)
    if options.label is not None:
        raise ActrelaxError("--label needs --drawing: give --drawing, or leave --label out.")
    name = options.dataset or at_hand(options.model.network, options.data_dir)
    if name is None:
        if options.layout is not None:
            raise ActrelaxError("--layout is for .npz files, but the images are random: leave it out.")
        shape, stream = usual_shape(options.model.network), random_stream(options.seed, "images")
        x = torch.rand(options.first + options.batch_size, *shape, generator=stream, dtype=torch.float64)
        y = torch.randint(10, (len(x),), generator=stream)
        return x[options.first :], y[options.first :], shape, 10, "random images"
    data = load_to_test(name, options.data_dir, options.test_split, options.layout)
    if run is not None and run.is_own(options.dataset) and _reads(options) == _reads(run.experiment.images):
        verify(run.folder, of_test_images(data), accept_changes=options.accept_changes)
    require(first=(options.first, 0, len(data.test.images) - 1))
    require(batch_size=(options.batch_size, 1, len(data.test.images) - options.first))
    images, labels = (part[options.first : options.first + options.batch_size] for part in data.test)
    return images, labels, data.input_shape, data.classes, data.name


def _drawn(options: ProblemOptions, drawing: str, run: Run | None) -> tuple[Tensor, Tensor, tuple[int, ...], int, str]:
    """Return the result of `_images` for a drawing; without a run there are ten classes."""
    if options.first or options.batch_size not in (1, ProblemOptions.batch_size):
        raise ActrelaxError("--drawing is one image: leave --first and --batch-size out.")
    shape, classes = drawing_shape(options.model.network), 10
    if run is not None:
        populations = run.network.populations
        shape, classes = populations[run.network.input].shape, math.prod(populations[run.network.output].shape)
    if len(shape) == 3 and shape[0] != 1:
        raise ActrelaxError(f"--drawing is grey, but the network's images of shape {shape} have colours: leave it out.")
    pixels = [int(digit, 16) if digit in "0123456789abcdef" else -1 for digit in drawing]
    if len(pixels) != math.prod(shape) or min(pixels) < 0:
        raise ActrelaxError(
            f"--drawing takes {math.prod(shape)} digits from 0 to f, one per pixel of the network's images, got "
            f"{len(pixels)} characters."
        )
    label = options.label or 0
    require(label=(label, 0, classes - 1))
    x = torch.tensor(pixels, dtype=torch.float64).reshape(1, *shape) / 15
    return x, torch.tensor([label]), shape, classes, "a drawing"


def _reads(options: ProblemOptions | Images) -> tuple[float | None, str | None]:
    return options.test_split, options.layout
