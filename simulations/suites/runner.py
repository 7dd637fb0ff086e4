"""Execution of a suite: the remaining runs, several at a time, locally or on a cluster, and a report on all runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError
from tqdm import tqdm

from actrelax.analysis.fingerprints import verify_alike
from actrelax.analysis.reports import results_table
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.models.results import DivergenceError
from actrelax.simulations.data import Dataset
from actrelax.simulations.suites.executors import executor_for
from actrelax.simulations.suites.run_store import Kept
from actrelax.simulations.suites.suite import Suite
from actrelax.simulations.training.assemble import load_images
from actrelax.simulations.training.configuration import read_config
from actrelax.simulations.training.experiment import Images
from actrelax.simulations.training.options import require
from actrelax.simulations.training.run import run
from actrelax.simulations.training.signals import Stop, Stopped, stopping_cleanly

LOOK = 1.0
"""Seconds between checks of the runs."""


@dataclass(frozen=True)
class Work:
    """Options of the execution of runs."""

    jobs: int | None = None
    """Number of runs at a time. Default: the number of cores, or of threads of the scheduler's workers."""
    scheduler: str | None = None
    """Address of a Dask scheduler, tcp://HOST:8786, whose workers do the runs and see the same folders. Default: this
    machine."""
    runs: Path = Path("runs")
    """Folder that contains the folders of runs."""
    conditions: tuple[str, ...] = ()
    """Conditions whose runs are done; the tables keep finished runs of all conditions. Default: all."""
    report_only: bool = False
    """Do no runs, and only write tables and figures of finished ones."""
    accept_changes: bool = False
    """Continue even if files or images have changed since some runs."""
    quiet: bool = False
    """Show no progress bar on standard error."""


def carry_out(suite: Suite, out: Path, work: Work, report: Callable[[Sequence[Outcome]], str]) -> None:
    """Do the remaining runs of a suite, and report on all runs.

    Parameters
    ----------
    suite : Suite
    out : Path
        Folder of the tables of all runs, to which each run is added when it ends.
    work : Work
    report : callable
        Function of the ended runs that writes the report into `out`, and returns the text to print.

    Raises
    ------
    ActrelaxError
        If options are out of range, or no run has ended; errors of `perform` are raised after the report.
    """
    require(jobs=(work.jobs, 1, 1024))
    for name in work.conditions:
        known("condition", name, suite.conditions, where="--conditions")
    places = {}
    for case in suite.cases():
        experiment = case.experiment.resolved()
        kept = Kept(work.runs.absolute(), experiment, case.execution.resolved(experiment), work.accept_changes)
        kept.check_files()
        places[case.variant, case.condition, kept.hash] = case, kept
    found = results_table.read(out)

    def collect() -> None:
        new = {
            key: results_table.outcome_of(kept.folder, case.condition, kept.experiment.seed, kept.hash, case.variant)
            for key, (case, kept) in places.items()
            if key not in found and kept.state.is_final
        }
        found.update(results_table.add(out, new) if new else results_table.read(out))

    refused = None
    try:
        if not work.report_only:
            asked = work.conditions or tuple(suite.conditions)
            left = [kept for key, (case, kept) in places.items() if key not in found and case.condition in asked]
            for _ in perform(left, work):
                collect()
    except ActrelaxError as error:
        refused = error
    collect()
    verify_alike([kept.folder for _, kept in places.values()], accept_changes=work.accept_changes)
    ended = [found[key] for key in places if key in found]
    if ended:
        with results_table.held(out):
            print(report(ended))
    if refused or not ended:
        raise refused or ActrelaxError("no run has ended yet: leave --report-only out.")


def perform(runs: Sequence[Kept], work: Work) -> Iterator[Kept]:
    """Do the remaining runs until each has finished or diverged.

    Parameters
    ----------
    runs : sequence of Kept
        Runs in the order in which they begin. Runs of other processes are waited for.
    work : Work
        Only `jobs`, `scheduler` and `quiet` are used.

    Yields
    ------
    Kept
        Each run when it ends.

    Raises
    ------
    ActrelaxError
        If the scheduler is missing, or a process was killed; for impossible runs, after all others.
    Stopped
        After Ctrl-C or SIGTERM, when the current runs have saved their checkpoints.
    """
    refused: dict[Kept, str] = {}
    with (
        stopping_cleanly() as stop,
        executor_for(work.jobs, work.scheduler) as (executor, jobs),
        _progress(runs, work.quiet) as show,
    ):
        while left := [kept for kept in runs if kept not in refused and not kept.state.is_final]:
            elsewhere = False
            for kept, attempt in _attempts(left, executor, jobs, stop, show):
                if attempt.refused:
                    refused[kept] = attempt.refused
                elif kept.state.is_final:
                    yield kept
                else:
                    elsewhere = True
            if stop.signal_number:
                raise Stopped("stopped: repeat the command to continue.", stop.signal_number)
            if elsewhere:
                time.sleep(5 * LOOK)
            show(left)
    if refused:
        kept, why = next(iter(refused.items()))
        raise ActrelaxError(f"{len(refused)} of {len(runs)} runs can't be done; {kept.folder.path.name}: {why}")


class Attempt(NamedTuple):
    """Result of an attempt at a run; both fields are empty if the run has ended or another process is doing it.

    signal   number of the signal that stopped the run, or 0
    refused  reason why the run is impossible, in one sentence, or ""
    """

    signal: int = 0
    refused: str = ""


def _attempts(
    runs: Iterable[Kept], executor: Executor, jobs: int, stop: Stop, show: Callable[[Iterable[Kept]], None]
) -> Iterator[tuple[Kept, Attempt]]:
    """Try each run once, `jobs` at a time, and start no further runs after a signal."""
    waiting, under_way = iter(runs), dict[Future[Attempt], Kept]()
    while True:
        for kept in islice(waiting, 0 if stop.signal_number else jobs - len(under_way)):
            under_way[executor.submit(_attempt, kept)] = kept
        if not under_way:
            return
        done, _ = wait(under_way, LOOK, FIRST_COMPLETED)
        show(under_way.values())
        for future in done:
            attempt = _result(future, stop)
            stop.signal_number = stop.signal_number or attempt.signal
            yield under_way.pop(future), attempt
        if stop.signal_number and isinstance(executor, ProcessPoolExecutor):
            # repeated at each check, since a process that is loading data does not handle signals yet
            for process in multiprocessing.active_children():
                with suppress(ProcessLookupError):
                    os.kill(cast(int, process.pid), signal.SIGTERM)


def _result(future: Future[Attempt], stop: Stop) -> Attempt:
    try:
        return future.result()
    except TerminatedWorkerError as error:
        if stop.signal_number:  # the signal reached a process without a handler
            return Attempt(stop.signal_number)
        raise ActrelaxError(
            "a process was killed, perhaps for lack of memory: repeat the command with fewer --jobs to continue."
        ) from error
    except Exception as error:  # Dask gives up a run after repeated deaths of its workers
        return Attempt(refused=f"{type(error).__name__}: {error}")


def _attempt(kept: Kept) -> Attempt:
    """Begin or resume a run, unless it has ended or another process is doing it."""
    with kept.held() as mine:
        if not mine or kept.state.is_final:
            return Attempt()
        experiment, execution, recording = kept.experiment, kept.execution, kept.recording()
        try:
            if kept.state is State.BEGUN:
                begun, computed = read_config(kept.folder)
                if computed.device == execution.device:  # on another device the run starts again
                    experiment, execution = begun, computed
                    recording = kept.recording(resume=True)
            run(experiment, execution, recording, _loaded(experiment.images, kept.execution.data_dir))
        except DivergenceError as error:
            kept.folder.write_divergence(str(error))
        except ActrelaxError as error:
            return Attempt(refused=str(error))
        except Stopped as stopped:
            return Attempt(signal=stopped.signal_number)
        except Exception as error:  # from a user's network, or lack of memory; other runs continue
            traceback.print_exc()
            return Attempt(refused=f"{type(error).__name__}: {error}")
    return Attempt()


@lru_cache(maxsize=1)
def _loaded(images: Images, data_dir: Path | None) -> Dataset:
    """Load a data set, or reuse the last run's."""
    return load_images(images, data_dir)


@contextmanager
def _progress(runs: Sequence[Kept], quiet: bool) -> Iterator[Callable[[Iterable[Kept]], None]]:
    """Show a progress bar over the epochs of all runs, and yield a function that updates it for given runs."""
    total = sum(kept.experiment.epochs for kept in runs)
    done: dict[Kept, int] = {}

    def count(changed: Iterable[Kept]) -> int:
        done.update({kept: kept.experiment.epochs if kept.state.is_final else kept.epochs for kept in changed})
        return sum(done.values())

    def show(changed: Iterable[Kept]) -> None:
        bar.n = count(changed)
        bar.refresh()

    with tqdm(total=total, initial=count(runs), unit=" epochs", smoothing=0, disable=quiet or None) as bar:
        yield show
