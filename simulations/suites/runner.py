"""Doing many runs, several at a time, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from actrelax.analysis.runs import State
from actrelax.models.errors import ActrelaxError
from actrelax.models.results import DivergenceError
from actrelax.simulations.data import Dataset
from actrelax.simulations.suites.run_store import Kept
from actrelax.simulations.training.assemble import load_images
from actrelax.simulations.training.configuration import from_config
from actrelax.simulations.training.experiment import Images
from actrelax.simulations.training.run import Recording, run
from actrelax.simulations.training.signals import Stop, Stopped, stopping_cleanly

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK = 5.0
"""Seconds between two looks at how far runs are."""


@dataclass(frozen=True)
class Tried:
    """What became of an attempt at a run, which has ended unless something is said here.

    busy     whether another process is at it
    signal   that stopped it
    refused  why it can't be done, one sentence
    """

    kept: Kept
    busy: bool = False
    signal: int = 0
    refused: str = ""


def perform(
    runs: Sequence[Kept],
    jobs: int | None = None,
    *,
    scheduler: str | None = None,
    quiet: bool = False,
    ended: Callable[[Kept], object] = lambda _: None,
) -> None:
    """Do what is not done yet; when this returns, every run has its outcome or has diverged.

    Parameters
    ----------
    runs : sequence of Kept
        In the order in which they are begun. One that another process does is waited for.
    jobs : int, optional
        How many at a time: as many as this machine has cores, or the scheduler's workers threads, unless given.
    scheduler : str, optional
        Address of a Dask scheduler whose workers, of one thread each, do them; processes of this machine unless given.
    quiet : bool, default False
        Show no progress.
    ended : callable, optional
        Is told of each run that ends here.

    Raises
    ------
    ActrelaxError
        For a scheduler that is not there, a process that was killed, or runs that can't be done, once the others are.
    Stopped
        After Ctrl-C or SIGTERM, when the runs under way have left their checkpoints.
    """
    refused: dict[Kept, str] = {}
    with stopping_cleanly() as stop, _passed_on(stop), _where(jobs, scheduler) as attempts, _progress(runs, quiet):
        while left := [kept for kept in runs if kept not in refused and not kept.state.is_final]:
            busy = 0
            for tried in attempts(left, stop):
                busy += tried.busy
                stop.signal_number = stop.signal_number or tried.signal
                if tried.refused:
                    refused[tried.kept] = tried.refused
                elif not tried.busy and not tried.signal:
                    ended(tried.kept)
            if stop.signal_number:
                raise Stopped("stopped: the same command goes on from here.", stop.signal_number)
            if busy:
                time.sleep(LOOK)
    if refused:
        kept, why = next(iter(refused.items()))
        raise ActrelaxError(f"{len(refused)} of {len(runs)} runs can't be done; {kept.folder.path.name}: {why}")


Attempts = Callable[[Sequence[Kept], Stop], Iterator[Tried]]
"""(runs, whether to stop) -> what became of each, as they end."""


def _here(runs: Sequence[Kept], stop: Stop, *, jobs: int) -> Iterator[Tried]:
    """Try runs in processes of this machine."""
    waiting = (delayed(_attempt)(kept, os.getpid()) for kept in runs if not stop.signal_number)
    try:
        with parallel_config("loky"):
            yield from Parallel(n_jobs=jobs, batch_size=1, pre_dispatch=jobs, return_as="generator_unordered")(waiting)
    except TerminatedWorkerError as error:
        if stop.signal_number:  # passed on to a process that had not begun to listen
            return
        raise ActrelaxError(
            "a process was killed, perhaps for want of memory: the same command goes on from here, with fewer --jobs."
        ) from error


def _on_workers(runs: Sequence[Kept], stop: Stop, *, client: Client, jobs: int) -> Iterator[Tried]:
    """Try runs on a cluster's workers, which can't be told to stop: those under way are waited for."""
    from distributed import as_completed

    waiting, ended = iter(runs), as_completed(loop=client.loop)  # type: ignore[no-untyped-call]
    under_way: dict[Future[Tried], Kept] = {}

    def begin(count: int) -> None:
        for kept in islice(waiting, count):
            future = client.submit(_attempt, kept, os.getpid(), pure=False)
            under_way[future] = kept
            ended.add(future)  # type: ignore[no-untyped-call]

    begin(jobs)
    for future in ended:
        kept = under_way.pop(future)
        try:
            yield future.result()
        except Exception as error:  # Dask gives up a run whose workers die again and again
            yield Tried(kept, refused=f"{type(error).__name__}: {error}")
        begin(0 if stop.signal_number else 1)


def _attempt(kept: Kept, parent: int) -> Tried:
    """Begin a run or continue it, unless another process does."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which passes it on
        signal.signal(signal.SIGTERM, lambda *_: None)  # what is passed on is for a run, which listens by itself
    with kept.held() as mine:
        if not mine:
            return Tried(kept, busy=True)
        if kept.state.is_final:
            return Tried(kept)
        experiment, execution = kept.experiment, kept.execution
        recording = Recording(out=kept.folder.path, quiet=True)
        try:
            data = _loaded(experiment.images, execution.data_dir)
            if kept.state is State.BEGUN:
                experiment, execution = from_config(kept.folder.config())  # it goes on as it began
                recording = Recording(resume=kept.folder.path, quiet=True)
            run(experiment, execution, recording, data)
        except DivergenceError as error:
            kept.folder.write_divergence(str(error))
        except ActrelaxError as error:
            return Tried(kept, refused=str(error))
        except Stopped as stopped:
            return Tried(kept, signal=stopped.signal_number)
        except Exception as error:  # of a network of the user's, or for want of memory: no reason to stop the others
            traceback.print_exc()
            return Tried(kept, refused=f"{type(error).__name__}: {error}")
    return Tried(kept)


@lru_cache(maxsize=1)
def _loaded(images: Images, data_dir: Path | None) -> Dataset:
    """The data set of one run after another."""
    return load_images(images, data_dir)


@contextlib.contextmanager
def _where(jobs: int | None, scheduler: str | None) -> Iterator[Attempts]:
    """Yield what tries runs, in processes of this machine or on the workers of a cluster."""
    if scheduler is None:
        yield partial(_here, jobs=jobs or cpu_count())
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ActrelaxError('--scheduler needs Dask: pip install "actrelax[cluster]".') from error
    try:
        client = Client(scheduler, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ActrelaxError(f"there is no Dask scheduler at {scheduler}: start one with dask scheduler.") from error
    with client:
        threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        yield partial(_on_workers, client=client, jobs=jobs or max(1, threads))


@contextlib.contextmanager
def _passed_on(stop: Stop) -> Iterator[None]:
    """Tell the processes that do runs to stop, too."""

    def told() -> None:
        # again and again: a process that is loading its data does not listen yet
        for process in multiprocessing.active_children() if stop.signal_number else []:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)

    with _meanwhile(0.2, told):
        yield


@contextlib.contextmanager
def _progress(runs: Sequence[Kept], quiet: bool) -> Iterator[None]:
    """Show how many epochs of all runs are done, and how long the others will take."""
    ended: set[Kept] = set()

    def done() -> int:
        ended.update(kept for kept in runs if kept not in ended and kept.state.is_final)
        return sum(kept.experiment.epochs if kept in ended else kept.epochs for kept in runs)

    def show() -> None:
        bar.n = done()
        bar.refresh()

    total = sum(kept.experiment.epochs for kept in runs)
    with tqdm(total=total, initial=done(), unit=" epochs", smoothing=0, disable=quiet or None) as bar:
        with _meanwhile(LOOK, show):
            yield
        show()


@contextlib.contextmanager
def _meanwhile(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Look every so many seconds while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
