"""Training runs: from options to files and summary, new or resumed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

import torch

from actrelax.analysis.clip_bound import largest_derivative, why_no_bound
from actrelax.analysis.convergence import Distances, distances
from actrelax.analysis.fingerprints import identity, of_weights, record
from actrelax.analysis.runs import LEARNING_CURVES, RunFolder
from actrelax.analysis.summary import Summary, versions
from actrelax.models.engines import TorchOptions, integrator_named, schedule
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.data import Dataset
from actrelax.simulations.training.assemble import Parts, assemble
from actrelax.simulations.training.begin import begin, check_begin, claimed_by_all, files_of, go_on
from actrelax.simulations.training.callbacks import Alignment, DivergenceCheck, NothingLearned, ProgressBar, TensorBoard
from actrelax.simulations.training.configuration import as_config, hash_of
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.idle import idle_options
from actrelax.simulations.training.loop import Callback, train
from actrelax.simulations.training.processes import Processes, current
from actrelax.simulations.training.recorder import KeepBest, Recorder, restore
from actrelax.simulations.training.recording import Recording as Recording
from actrelax.simulations.training.signals import stopping_cleanly
from actrelax.simulations.training.state import Training
from actrelax.simulations.training.user_code import is_own
from actrelax.simulations.training.watch import Watch


def run(experiment: Experiment, execution: Execution, recording: Recording, data: Dataset | None = None) -> Summary:
    """Do a training run, or resume one, in all processes that torchrun has started.

    Parameters
    ----------
    experiment : Experiment
    execution : Execution
        With ``recording.resume``, experiment and execution must equal the run's, but for a larger number of epochs.
    recording : Recording
    data : Dataset, optional
        The experiment's data set, if it is already loaded.

    Returns
    -------
    Summary
        Summary of the whole run; for a finished run, the content of its summary.json.

    Raises
    ------
    ActrelaxError
        If the input is not possible; existing files stay unchanged.
    DivergenceError
        If the training diverges; the folder keeps the last checkpoint.
    Stopped
        After Ctrl-C or SIGTERM; a checkpoint has been saved.
    AbandonedError
        If another process has ended.
    """
    recording.check()
    processes = current()
    if recording.network is not None:  # replaces the network's file in the run's config.json
        experiment = replace(experiment, model=replace(experiment.model, network=recording.network))
    experiment, execution = experiment.resolved(), execution.resolved(experiment, processes)
    folder = RunFolder(recording.folder_of(experiment))
    longer = check_begin(folder, experiment, execution, recording)
    if recording.resume is not None and folder.is_finished() and not longer:
        return folder.summary()
    with claimed_by_all(folder, processes):
        check_begin(folder, experiment, execution, recording)  # again, since another process may have begun it
        return _run(folder, experiment, execution, recording, processes, data)


def _run(
    folder: RunFolder,
    experiment: Experiment,
    execution: Execution,
    recording: Recording,
    processes: Processes,
    data: Dataset | None,
) -> Summary:
    inputs = files_of(folder, experiment, recording)
    made_with = versions()  # now, because files may change during training
    parts = assemble(experiment, execution, processes, data)
    inputs["images"] = parts.images
    watchers = _watchers(experiment, execution, recording, parts, folder)
    if recording.resume is None:
        begin(folder, inputs, as_config(experiment, execution), processes)
        if processes.is_first and not recording.quiet:
            for sentence in idle_options(experiment):
                print(sentence, file=sys.stderr)
    else:
        restore(parts.training, folder, inputs, accept_changes=recording.accept_changes)
        go_on(folder, inputs, experiment.epochs, parts.training)
    with (
        stopping_cleanly(patiently=processes.count > 1) as stop,
        ProgressBar(folder.path.name, recording.read_every, recording.quiet) as bar,
    ):
        check, mark = DivergenceCheck(recording.read_every), identity(inputs)
        again = f"train --resume {folder.path}{' --trust' if is_own(experiment.model.network) else ''}"
        recorder = Recorder(folder, check, stop, recording.checkpoint_every, again=again, run=mark)
        train(parts.training, [check, NothingLearned(), *watchers, KeepBest(folder, mark), recorder, bar])
    summary = _summary(experiment, parts, made_with)
    if processes.is_first:
        _draw(folder)
        record(folder, {**inputs, **of_weights(folder)})
        folder.write_summary(summary)
    return summary


def _watchers(
    experiment: Experiment, execution: Execution, recording: Recording, parts: Parts, folder: RunFolder
) -> list[Callback]:
    watchers: list[Callback] = []
    if execution.measure_alignment:
        watchers.append(Alignment(execution.measure_alignment, parts.loss, parts.options, experiment.relaxation.knobs))
    if execution.watch:
        watchers.append(Watch(experiment, parts.training.network))
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
        assumptions=experiment.relaxation.condition if experiment.rule == "ar" else "",
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
        unsettled=training.unsettled_so_far,
    )


def _ends(experiment: Experiment, training: Training) -> tuple[Distances | None, float | None]:
    """Return distances from equilibrium and a bound on |-x + feedback|, for the first batch and the final weights."""
    relaxation = experiment.relaxation
    if experiment.rule != "ar" or relaxation.is_continuous or relaxation.delay or relaxation.noise:
        return None, None
    if training.network.is_recurrent:  # the tables say how many samples have not settled
        return None, None
    example = training.batches.example()
    with training.network.fork_state(example.images):
        problem = RelaxationProblem.from_batch(
            training.network,
            *example,
            loss=experiment.model.as_loss,
            assumptions=relaxation.knobs,
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
    from actrelax.analysis import figures  # with Matplotlib and SciPy's statistics, a third of the time to start

    metrics = folder.table("metrics")
    parts = [name.removesuffix("_accuracy") for name in metrics[0] if name.endswith("_accuracy")]
    with figures.saved(folder.path / LEARNING_CURVES, columns=2) as (_, (left, right)):
        figures.learning_curves(left, {"train": metrics}, "train_loss")
        for part in parts:
            figures.learning_curves(right, {part: metrics}, f"{part}_accuracy")
        right.set_ylabel("accuracy (%)")
