"""One training run from its options to its outcome: begun, continued, recorded in its folder."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from actrelax.analysis import figures
from actrelax.analysis.clip_bound import largest_derivative, why_no_bound
from actrelax.analysis.convergence import Distances, distances
from actrelax.analysis.runs import RunFolder, Summary, flat, versions
from actrelax.models.engines import TorchOptions, integrator_named, schedule
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.data import Dataset
from actrelax.simulations.training.assemble import Parts, assemble
from actrelax.simulations.training.callbacks import Alignment, DivergenceCheck, ProgressBar, TensorBoard
from actrelax.simulations.training.configuration import as_config, hash_of, read_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.idle import idle_options
from actrelax.simulations.training.longer import is_longer
from actrelax.simulations.training.loop import Callback, Training, train
from actrelax.simulations.training.options import require
from actrelax.simulations.training.processes import current
from actrelax.simulations.training.recorder import KeepBest, Recorder
from actrelax.simulations.training.signals import stopping_cleanly


@dataclass(frozen=True)
class Recording:
    """What is kept of a run, and how often; nothing here changes its result."""

    out: Path | None = None
    """Folder of the run; runs/DATASET-NETWORK-CONDITION-seedN unless given."""
    resume: Path | None = None
    """Continue the run in this folder; its options are taken from there, and only more --epochs may be given."""
    overwrite: bool = False
    """Replace a run that is in --out already."""
    checkpoint_every: int | None = None
    """Batches between two checkpoints; without it one is saved at the end of each epoch."""
    read_every: int = 50
    """Batches between two checks of loss, accuracy and finiteness; each check waits for the device."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard."""
    quiet: bool = False
    """Leave out the line per epoch on standard error, and what it says of options without an effect."""
    json: bool = False
    """Print the summary as JSON, and nothing else, on standard output."""

    def folder_of(self, experiment: Experiment) -> Path:
        """Return where the run is, or will be."""
        return self.resume or self.out or Path("runs") / experiment.name

    def check(self) -> None:
        """Refuse numbers out of range and options that exclude each other."""
        require(checkpoint_every=(self.checkpoint_every, 1, math.inf), read_every=(self.read_every, 1, math.inf))
        if self.resume is not None and (self.out is not None or self.overwrite):
            raise ActrelaxError("--resume continues a run in its folder: leave --out and --overwrite out.")


def run(experiment: Experiment, execution: Execution, recording: Recording, data: Dataset | None = None) -> Summary:
    """Train from the beginning, or from where a run stopped, to the end; all processes that torchrun started at once.

    Parameters
    ----------
    experiment : Experiment
    execution : Execution
        With ``recording.resume`` both are those of the run, or it is an error; the experiment may have more epochs.
    recording : Recording
    data : Dataset, optional
        Loaded already, as the experiment names it.

    Returns
    -------
    Summary
        Of the whole run, from its summary.json where it was finished before.

    Raises
    ------
    ActrelaxError
        For input that can't be used; nothing is damaged.
    DivergenceError
        If something becomes non-finite; the folder keeps its last checkpoint.
    Stopped
        After Ctrl-C or SIGTERM, with a checkpoint.
    AbandonedError
        If another process has ended.
    """
    recording.check()
    processes = current()
    experiment, execution = experiment.resolved(), execution.resolved(experiment, processes)
    folder = RunFolder(recording.folder_of(experiment))
    config = as_config(experiment, execution)
    resumed = None if recording.resume is None else flat(as_config(*read_config(folder)))
    folder.check_begin(flat(config), resumed, overwrite=recording.overwrite, may_differ=("epochs",))
    longer = resumed is not None and is_longer(folder.path, read_config(folder)[0], experiment.epochs)
    if resumed is not None and folder.is_finished() and not longer:
        return folder.summary()
    made_with = versions()  # now, as files may change while it trains
    parts = assemble(experiment, execution, processes, data)
    watchers = _watchers(experiment, execution, recording, parts, folder)
    if resumed is None and processes.is_first:
        folder.clear()
        folder.write_config(config)
        if not recording.quiet:
            for sentence in idle_options(experiment):
                print(sentence, file=sys.stderr)
    state = None if resumed is None else folder.checkpoint()
    if state is not None:
        with folder.fitting():
            parts.training.load_state_dict(state)
    if longer:
        _go_on(folder, parts.training, config)
    with (
        stopping_cleanly(patiently=processes.count > 1) as stop,
        ProgressBar(folder.path.name, recording.read_every, recording.quiet) as bar,
    ):
        check = DivergenceCheck(recording.read_every)
        recorder = Recorder(folder, check, stop, recording.checkpoint_every)
        train(parts.training, [check, *watchers, KeepBest(folder), recorder, bar])
    summary = _summary(experiment, parts, made_with)
    if processes.is_first:
        _draw(folder)
        folder.write_summary(summary)
    return summary


def _go_on(folder: RunFolder, training: Training, config: Mapping[str, Any]) -> None:
    """Make a run longer than it was, unless it has lost its patience."""
    if training.is_over:
        raise ActrelaxError(
            f"{folder.path} stopped after epoch {training.epoch} for want of a better validation accuracy: "
            "leave --epochs out, or begin another run with a larger --patience."
        )
    if training.processes.is_first:
        folder.lengthen(config)


def _watchers(
    experiment: Experiment, execution: Execution, recording: Recording, parts: Parts, folder: RunFolder
) -> list[Callback]:
    watchers: list[Callback] = []
    if execution.measure_alignment:
        watchers.append(Alignment(execution.measure_alignment, parts.loss, parts.options, experiment.relaxation.knobs))
    if recording.tensorboard:
        board = TensorBoard(folder.tensorboard)
        watchers += [board] if parts.training.processes.is_first else []
    return watchers


def _summary(experiment: Experiment, parts: Parts, made_with: Mapping[str, str]) -> Summary:
    training = parts.training
    metrics, best = training.tables["metrics"][-1], training.best_epoch
    accuracies = {row["epoch"]: row["test_accuracy"] for row in training.tables["metrics"]}
    device = torch.device(parts.hardware.device)
    seconds, speed = training.time_taken()
    ends, bound = _ends(experiment, training)
    return Summary(
        test_accuracy=metrics["test_accuracy"],
        train_accuracy=metrics["train_accuracy"],
        validation_accuracy=metrics.get("validation_accuracy"),
        rule=experiment.rule,
        assumptions=experiment.relaxation.assumptions if experiment.rule == "ar" else "",
        dataset=training.batches.data.name,
        network=experiment.model.network,
        epochs=training.epoch,
        seed=experiment.seed,
        wall_seconds=seconds,
        images_per_second=speed,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        versions=made_with,
        steps=None if ends is None else ends.steps,
        equilibrium=None if ends is None else ends.by_population,
        largest_bracket=bound,
        processes=training.processes.count,
        hash=hash_of(experiment),
        best_epoch=best,
        test_accuracy_at_best=None if best is None else accuracies[best],
    )


def _ends(experiment: Experiment, training: Training) -> tuple[Distances | None, float | None]:
    """Return, for the first batch and the final weights, where relaxations end and a bound on |-x + feedback|."""
    relaxation = experiment.relaxation
    if experiment.rule == "backprop" or relaxation.is_continuous or relaxation.delay or relaxation.noise:
        return None, None
    problem = RelaxationProblem.from_batch(
        training.network,
        *training.batches.example(),
        loss=experiment.model.as_loss,
        assumptions=relaxation.assumptions,
        **replace(relaxation, clip=None).problem_fields(training.network, experiment.seed),
    )
    if not problem.is_frozen:
        return None, None
    integrator, steps = integrator_named(relaxation.integrator), relaxation.as_steps
    ends = distances(problem, integrator, steps, options=TorchOptions(check_finite=False))
    dt = schedule(problem, integrator, steps).dt
    if why_no_bound(problem, integrator, dt=dt) is not None:
        return ends, None
    return ends, float(largest_derivative(problem, integrator, dt=dt))


def _draw(folder: RunFolder) -> None:
    metrics = folder.table("metrics")
    parts = [name.removesuffix("_accuracy") for name in metrics[0] if name.endswith("_accuracy")]
    with figures.saved(folder.figures / "learning-curves.png", columns=2) as (_, (left, right)):
        figures.learning_curves(left, {"train": metrics}, "train_loss")
        for part in parts:
            figures.learning_curves(right, {part: metrics}, f"{part}_accuracy")
        right.set_ylabel("accuracy (%)")
