"""Observation of the stability of a network with cycles, epoch by epoch, on eight fixed images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from actrelax.analysis.spectra import rightmost_eigenvalue
from actrelax.analysis.stability import Phase, loop_matrix
from actrelax.models.engines import TorchOptions, settled_pass, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import FeedforwardPass, Network
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.loop import Callback
from actrelax.simulations.training.state import Row, Training

IMAGES = 8
PHASES: tuple[Phase, ...] = ("forward", "backward")


class Watch(Callback):
    """Columns of the metrics about the stability of a network with cycles, for the first training images.

    abscissa PHASE   the largest over the images of the largest real part of an eigenvalue: below 1 the phase settles;
                     images without finite rates are excluded
    unsettled share  share of the epoch's images that had not settled
    steps PHASE      number of steps that the images take together; with "equilibrium" the number of GMRES's products

    With backprop the backward phase is AR's of the same network, in which it takes no steps. The first row is the
    untrained network's.
    """

    def __init__(self, experiment: Experiment, network: Network) -> None:
        if not network.is_recurrent:
            raise ActrelaxError(f"--watch needs a network with cycles, but {experiment.model.network} has none.")
        self.experiment = experiment

    def on_start(self, training: Training) -> None:
        if training.done == 0:
            training.tables["metrics"][-1] |= self.observe(training)

    def on_epoch(self, training: Training) -> None:
        training.tables["metrics"][-1] |= self.observe(training)

    @torch.no_grad()
    def observe(self, training: Training) -> Row:
        """Return the columns for the present weights."""
        row, images = training.tables["metrics"][-1], training.batches.data.train
        x, y = training.batches.preprocess(images.images[:IMAGES]), images.labels[:IMAGES]
        passed = self._settled(training.network, x)
        alone = [self._settled(training.network, x[i : i + 1]) for i in range(len(x))]
        problems = [
            self._problem(training.network, one, y[i : i + 1])
            for i, one in enumerate(alone)
            if all(bool(r.isfinite().all()) for r in one.activities.values())
        ]
        abscissae = {
            f"abscissa {phase}": max(
                (rightmost_eigenvalue(loop_matrix(one, phase)).real for one in problems), default=math.nan
            )
            for phase in PHASES
        }
        return {
            **abscissae,
            "unsettled share": row["unsettled"] / len(images.labels) if training.epoch else math.nan,
            "steps forward": passed.steps or 0,
            "steps backward": self._steps(self._problem(training.network, passed, y)),
        }

    def _settled(self, network: Network, x: Tensor) -> FeedforwardPass:
        return settled_pass(network, x, self.experiment.forward.settle, check_finite=False)

    def _problem(self, network: Network, passed: FeedforwardPass, y: Tensor) -> RelaxationProblem:
        experiment, relaxation = self.experiment, self.experiment.relaxation
        relaxes = experiment.rule == "ar"
        fields = relaxation.problem_fields(network, experiment.seed) if relaxes else {}
        knobs = relaxation.knobs if relaxes else "ar"
        return RelaxationProblem.from_batch(
            network, passed, y, loss=experiment.model.as_loss, assumptions=knobs, **fields
        )

    def _steps(self, problem: RelaxationProblem) -> int:
        """Return the number of steps of the rule's relaxation; noise is drawn from a generator of its own."""
        if self.experiment.rule != "ar":
            return 0
        relaxation, generator = self.experiment.relaxation, torch.Generator(problem.like.device).manual_seed(0)
        found = solve(
            problem,
            relaxation.integrator,
            relaxation.steps_of(problem.network),
            generator=generator,
            options=TorchOptions(check_finite=False),
        )
        return found.steps if found.products is None else found.products
